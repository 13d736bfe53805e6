"""The demo as a visitor meets it: the real server, and a real browser."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.children import child
from tests.data.clips import write_video
from tests.data.test_images import gradient, png_header
from tests.demo.browsing import CONTRASTS, DESKTOP, PHONE, Visitor, chromium
from tests.demo.conftest import BACKGROUND
from tests.router.inference.reading import READ, reader_run

ROOT = Path(__file__).resolve().parents[2]
OUTLINED = """element => [element, element.closest('label') ?? element].some(
  one => getComputedStyle(one).outlineStyle !== 'none')"""
PRINT = "What digit is next to the letter g?"


@pytest.fixture(scope="module")
def browser():
    driver, running = chromium()
    yield running
    running.close()
    driver.stop()


@contextlib.contextmanager
def serving(temporary: Path, run: Path, *more: str) -> Iterator[str]:
    """The address of `m3router demo`; nothing of its visitors may be left when it is stopped."""
    command = [sys.executable, "-m", "m3router", "demo", str(run), "--port", "0"]
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with child(
        [*command, "--device", "cpu", *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        address = process.stdout.readline().split()[1]
        yield address
        assert list(temporary.rglob("*.png")), "uploads are kept somewhere while it runs"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in said and "Error" not in said, said
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def server(browser, world, tmp_path_factory):
    """A run of the embedded model, with examples of the run."""
    temporary = tmp_path_factory.mktemp("temporary")
    with serving(temporary, world.run, "--examples", str(world.images)) as address:
        yield address


@pytest.fixture
def visit(browser, server):
    """Opens the page; afterwards nothing suspicious may have been noticed."""
    visitors = []

    def visited(size=DESKTOP, **options):
        visitors.append(Visitor(browser, server, size, **options))
        return visitors[-1]

    yield visited
    for visitor in visitors:
        visitor.close()
        assert visitor.noticed == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_whole_flow(visit, scene, size):
    visitor = visit(size)
    page = visitor.page
    assert not visitor.overflows()
    assert page.get_by_role("heading", level=1).count() == 1
    visitor.upload(scene)
    assert "192 x 192 pixels" in visitor.text("preview")

    visitor.question(PRINT)
    visitor.ask()
    assert "of 5" in visitor.text("answer") and "chosen by the router" in visitor.text("answer")
    bars = page.locator(".m3-bar")
    assert bars.count() == 5
    widths = [bars.nth(place).bounding_box()["width"] for place in range(5)]
    told = [row.split()[1] for row in page.locator("#m3-chart tbody tr").all_inner_texts()]
    longest, highest = int(np.argmax(widths)), int(np.argmax([int(one) for one in told]))
    assert told[longest] == told[highest]
    assert page.locator("#m3-grid img").get_attribute("alt").startswith("The image under a grid")
    assert "1 question, against always" in visitor.text("savings")
    if size == PHONE:
        assert page.locator("#m3-answer").bounding_box()["y"] < PHONE[1]  # scrolled to
        visitor.ask("Ask at all scales")
        assert page.locator(".m3-card").count() == 5
        assert page.evaluate(CONTRASTS) == [] and not visitor.overflows()
        return  # what follows is the same at any width

    visitor.ask("Ask at all scales")
    assert page.locator(".m3-card").count() == 5
    assert page.locator(".m3-card img").count() == 5
    assert page.get_by_text("the router takes this").count() == 1
    assert "1 question, against always" in visitor.text("savings")

    page.get_by_label("One scale", exact=True).check()
    page.get_by_role("radio", name="576", exact=True).check()
    visitor.ask()
    assert "Scale 5 of 5: 576 visual tokens, chosen by you" in visitor.text("answer")
    page.get_by_label("Auto within a budget", exact=True).check()
    page.get_by_label("number input for Budget").fill("1")
    visitor.ask()
    assert "Scale 1 of 5: 1 visual token, chosen by the router within 1" in visitor.text("answer")
    assert "3 questions, against always" in visitor.text("savings")
    assert page.evaluate(CONTRASTS) == []
    assert not visitor.overflows()


def test_by_keyboard_only(visit, scene):
    visitor = visit()
    page = visitor.page
    press = page.keyboard.press
    page.on("filechooser", lambda _: None)  # from the start, so that no real dialog opens

    def go_to(locator):
        for _ in range(40):
            press("Tab")
            if locator.evaluate("element => element === document.activeElement"):
                assert locator.evaluate(OUTLINED), f"{locator} is not seen to have the focus"
                return
        pytest.fail(f"{locator} cannot be reached by Tab")

    go_to(page.get_by_label("Click to upload or drop files"))
    with page.expect_event("filechooser") as chosen:
        press("Enter")
    chosen.value.set_files(str(scene))
    page.locator("#m3-preview").get_by_text(scene.name).wait_for()
    go_to(page.get_by_label("Question", exact=True))
    page.keyboard.type(BACKGROUND)
    with page.expect_response("**/queue/join**"):
        press("Enter")
    visitor.settle()
    assert "chosen by the router" in visitor.text("answer")
    go_to(page.get_by_label("One scale", exact=True))
    press("Space")
    third = page.get_by_role("radio", name="36", exact=True)
    third.wait_for()
    go_to(third)
    press("Space")
    go_to(page.get_by_role("button", name="Ask", exact=True))
    with page.expect_response("**/queue/join**"):
        press("Space")
    visitor.settle()
    assert "Scale 3 of 5: 36 visual tokens" in visitor.text("answer")
    go_to(page.get_by_role("button", name="Ask at all scales"))
    press("Enter")
    page.locator(".m3-card").first.wait_for()


def test_examples_ask_at_once(visit):
    page = visit().page
    easy = page.get_by_role("button", name="(1 visual token will do)").first
    hard = page.get_by_role("button", name="(takes 576)").first
    for button in (easy, hard):
        label = button.inner_text()
        button.click()
        question = label[: label.index("?") + 1]
        page.wait_for_function(
            f"document.querySelector('#m3-question textarea').value === {question!r}"
        )
    page.locator(".m3-answer").wait_for()
    page.get_by_role("button", name="Ask at all scales").click()
    page.locator("#m3-all").get_by_text("Only the finest scale says this").wait_for()
    last = page.locator(".m3-card .m3-said").last.inner_text()
    assert f" {last.capitalize()}. " in hard.inner_text()


def test_the_address_holds_what_is_chosen_but_no_image(visit, scene):
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="(takes 576)").first.click()
    page.locator(".m3-answer").wait_for()
    page.get_by_label("One scale", exact=True).check()
    page.get_by_role("radio", name="144", exact=True).check()
    page.wait_for_function("location.search.includes('option=144')")
    asked = page.get_by_label("Question", exact=True).input_value()
    address = page.url
    assert "sample=" in address
    page.goto(address)
    page.locator("#m3-preview img").wait_for()
    page.get_by_role("radio", name="144", exact=True).wait_for()
    assert page.get_by_role("radio", name="144", exact=True).is_checked()
    assert page.get_by_label("Question", exact=True).input_value() == asked
    assert page.locator(".m3-answer").count() == 0  # an address asks nothing
    visitor.upload(scene)
    page.wait_for_function("!location.search.includes('sample')")
    assert scene.stem not in page.url
    page.goto(f"{visitor.address}/?option=145&budget=40&sample=none&question=<b>Why%3F")
    page.locator("#m3-address .m3-note").wait_for()
    assert "no option '145'" in visitor.text("address")
    assert page.get_by_label("Auto", exact=True).is_checked()
    assert page.get_by_label("Question", exact=True).input_value() == "<b>Why?"


def test_an_image_that_the_model_cannot_read_gets_no_answer(visit, tmp_path):
    visitor = visit(PHONE, color_scheme="dark")
    few = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(few).resize((320, 240), Image.Resampling.BICUBIC).save(tmp_path / "cat.jpg")
    visitor.upload(tmp_path / "cat.jpg")
    assert "outside what this model can read" in visitor.text("preview")
    visitor.question(PRINT)
    visitor.ask("Ask at all scales")
    assert "Outside what this model can read" in visitor.text("answer")
    assert "%" not in visitor.text("answer") + visitor.text("all")
    assert not visitor.page.locator("#m3-chart").is_visible()
    assert visitor.page.evaluate(CONTRASTS) == [] and not visitor.overflows()


def test_a_run_by_option_has_the_same_page(browser, tmp_path):
    """Options have names of their own, here of a function."""
    run = reader_run(tmp_path / "read")
    images = tmp_path / "read" / "images"
    (tmp_path / "temporary").mkdir()
    with serving(tmp_path / "temporary", run.root, "--examples", str(images)) as address:
        visitor = Visitor(browser, address, PHONE)
        page = visitor.page
        page.get_by_role("button", name=READ[0]).first.click()
        page.locator(".m3-answer").wait_for()
        page.get_by_label("One option", exact=True).check()
        page.get_by_role("radio", name="mid", exact=True).check()
        visitor.ask()
        assert "Option 2 of 3: mid, chosen by you" in visitor.text("answer")
        visitor.ask("Ask at all options")
        assert page.locator(".m3-card").count() == 3
        assert "option=mid" in page.url and "sample=" in page.url
        assert page.evaluate(CONTRASTS) == [] and not visitor.overflows()
        visitor.close()
        assert visitor.noticed == []


def test_bad_files_are_told_in_the_page(visit, scene, tmp_path):
    visitor = visit()
    whole = tmp_path / "whole.png"
    gradient().save(whole)
    for name, content, message in (
        ("cut.png", whole.read_bytes()[: whole.stat().st_size // 2], "truncated or damaged"),
        ("empty.png", b"", "the file is empty (0 bytes)"),
        ("bomb.png", png_header(20_000, 20_000), "is too large"),
        ("text.png", b"this is no image", "not an image in a known format"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a known"),
        (
            "phone.heic",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99,
            "not an image in a known",
        ),
        ("noise.mp4", bytes(range(256)) * 20, "truncated, damaged, or not a video"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        visitor.upload(path)
        told = visitor.page.get_by_role("alert").inner_text()
        assert name in told and message in told
        assert "/" not in told and "Traceback" not in told
    visitor.question(BACKGROUND)
    visitor.ask()
    assert "noise.mp4 cannot be read" in visitor.text("problem")
    visitor.upload(scene)
    assert visitor.text("problem").strip() == ""


def test_unusual_files_are_asked_about(visit, tmp_path):
    visitor = visit()
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    write_video(tmp_path / "clip.mp4")
    visitor.question(BACKGROUND)
    for number, path in enumerate(sorted(tmp_path.iterdir()), start=1):
        visitor.upload(path)
        visitor.ask()
        assert f"{number} question" in visitor.text("savings"), path.name
        seen = visitor.text("preview")
        assert ("frames of the video" in seen) == (path.suffix == ".mp4")


def test_bad_questions_are_told_in_the_page(visit, scene):
    visitor = visit(PHONE)
    visitor.question(BACKGROUND)
    visitor.ask()
    assert "There is no image yet" in visitor.text("problem")
    visitor.upload(scene)
    visitor.question("")
    visitor.ask()
    assert "The question is empty" in visitor.text("problem")
    visitor.page.get_by_label("One scale", exact=True).check()
    visitor.page.get_by_role("radio", name="576", exact=True).check()
    visitor.question("red " * 499)
    visitor.ask()
    assert "does not fit" in visitor.text("problem")
    evil = "${7*7}{{value}}<img src=x onerror=alert(1)>"
    visitor.question(evil)
    visitor.ask("Ask at all scales")
    assert evil in visitor.text("all")
    assert not visitor.overflows()


def test_two_visitors_at_once_have_their_own_sessions(visit, scene):
    first, second = visit(), visit(PHONE, color_scheme="dark")
    for visitor in (first, second):
        visitor.upload(scene)
        visitor.question(PRINT)
    for visitor in (first, second):  # neither waits for the other to be answered
        visitor.page.get_by_role("button", name="Ask", exact=True).click()
    for visitor in (first, second):
        visitor.page.locator("#m3-savings").get_by_text("1 question,").wait_for()
    first.settle()
    first.ask()
    first.page.locator("#m3-savings").get_by_text("2 questions,").wait_for()
    assert "1 question," in second.text("savings")
    assert second.page.evaluate(CONTRASTS) == []


def test_a_reload_in_the_middle_starts_anew(visit, scene):
    visitor = visit()
    visitor.upload(scene)
    visitor.question(PRINT)
    visitor.page.get_by_role("button", name="Ask at all scales").click()
    visitor.open()
    # Gradio's script tells the console of the stream that the reload cut off.
    assert all(one.startswith("console") for one in visitor.noticed)
    visitor.noticed.clear()
    assert visitor.page.get_by_label("Question", exact=True).input_value() == ""
    visitor.upload(scene)
    visitor.question(PRINT)
    visitor.ask()
    assert "1 question," in visitor.text("savings")


def test_too_large_a_file_is_refused_in_the_page(browser, server, tmp_path):
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(100 * 2**20)
    visitor = Visitor(browser, server)
    visitor.page.locator("#m3-upload input[type=file]").set_input_files(str(huge))
    visitor.page.get_by_text("exceed the maximum allowed size").wait_for()
    visitor.close()
    # Gradio then asks for the progress of what was never sent.
    assert all(one.startswith("console") for one in visitor.noticed)


def test_clients_that_are_no_browsers_get_nothing_else(server, scene):
    with httpx.Client(base_url=server) as client:
        for path in (ROOT / "README.md", scene, "/etc/passwd", "http://example.com/a.png"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        for path in ("/gradio_api/info", "/config", "/gradio_api/runs", "/docs", "/monitoring"):
            assert client.get(path).status_code == 404
        file = {"files": ("a.png", b"0" * (65 * 2**20))}
        assert client.post("/gradio_api/upload", files=file).status_code == 413
        page = client.get("/")
    assert page.status_code == 200
    assert not re.search(r"""(src|href)=["']?(https?:)?//|preconnect|url\(http""", page.text)
