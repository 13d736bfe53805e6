"""The demo's answers, without a browser."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.images import open_image
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.demo import drawings, handlers
from m3router.router.demo.answering import LONGEST_QUESTION
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED, Choices
from m3router.router.demo.samples import SCENES, drawn_samples, logged_samples
from m3router.router.demo.service import DemoService
from m3router.router.demo.session_stats import Spending, saved, spent_on
from m3router.router.demo.views import view_of
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from tests.data.clips import write_video
from tests.data.test_images import gradient, png_header
from tests.demo.conftest import BACKGROUND

SCALES = (1, 9, 36, 144, 576)
PRINT = "What digit is next to the letter g?"


def choices(mode: str = AUTO, *, level: int = 1, budget: float = 50) -> Choices:
    return Choices(mode=mode, level=level, budget=budget)


def test_auto_is_what_the_pipeline_answers(service, scene):
    image = open_image(scene)
    for question in (BACKGROUND, PRINT):
        told = service.ask(image, question)
        (routed,) = service.pipeline.answer([image], [question])
        assert told.routed.answer == routed.answer
        assert told.routed.scale == routed.scale
        assert told.routed.sufficiency == routed.sufficiency


def test_a_budget_is_the_policy_that_the_run_would_calibrate(service, scene, world):
    image = open_image(scene)
    data = CalibrationData.read(Run(world.run))
    least, most = service.budgets()
    assert least == 1 and 1 < most <= 576
    assert service.ask(image, PRINT, budget=least).routed.scale == 1
    for budget in (least, (least + most) // 2, most):
        (routed,) = service.pipeline.answer([image], [PRINT], policy=data.policy(budget=budget))
        assert service.ask(image, PRINT, budget=budget).routed.scale == routed.scale
    more = data.policy(budget=10_000)
    same = data.policy(budget=most)
    p, costs = data.calibrate.p, data.calibrate.costs
    assert more.choose(p, costs).tolist() == same.choose(p, costs).tolist()


def test_a_policy_is_made_once_for_each_budget(service):
    assert service._budgets.policy(37) is service._budgets.policy(37)
    with pytest.raises(DataError, match="The budget must be at least 1"):
        service._budgets.policy(0.5)


def test_without_calibration_data_there_is_no_budget_and_no_path(world, tmp_path, scene):
    run = Path(shutil.copytree(world.run, tmp_path / "run"))
    shutil.rmtree(run / "features")
    bare = DemoService.load(run, model="embedded", device="cpu")
    assert bare.budgets() is None
    assert "complete data" in bare.no_budget and str(tmp_path) not in bare.no_budget
    assert bare.ask(open_image(scene), BACKGROUND).routed.answer.text
    shown = handlers.ask(bare, str(scene), BACKGROUND, choices(BUDGET), Spending())
    assert "No budget can be set" in shown.problem


def test_the_comparison_asks_every_scale(service, scene):
    image = open_image(scene)
    compared = service.compare(image, PRINT)
    fixed = [service.ask(image, PRINT, scale=scale) for scale in SCALES]
    assert [one.scale for one in compared.answers] == list(SCALES)
    assert [one.answer.text for one in compared.answers] == [
        one.routed.answer.text for one in fixed
    ]
    assert [one.flops for one in compared.answers] == [
        one.routed.flops["language"] for one in fixed
    ]
    pairs = zip(compared.answers, fixed, strict=True)
    assert all(np.array_equal(one.image, other.image) for one, other in pairs)
    assert compared.chosen == service.ask(image, PRINT).routed.scale
    assert compared.settled == 576  # the finest alone reads it
    assert service.compare(image, BACKGROUND).settled == 1


def test_the_session_adds_up_and_compares_with_the_finest(service, scene):
    image = open_image(scene)
    first, second = service.ask(image, BACKGROUND, scale=1), service.ask(image, PRINT, scale=576)
    spent = first.spending + second.spending
    assert (spent.questions, spent.tokens, spent.finest_tokens) == (2, 577, 1152)
    assert saved(spent.tokens, spent.finest_tokens) == pytest.approx(575 / 1152)
    (finest,) = service.pipeline.answer([image], [BACKGROUND], scale=576)
    assert finest.answer.answer_tokens == first.routed.answer.answer_tokens
    assert first.spending.finest_flops == pytest.approx(finest.flops["language"])
    assert first.spending.flops == pytest.approx(first.routed.flops["language"])
    assert second.spending.flops == pytest.approx(second.spending.finest_flops)
    assert spent.vision_flops == pytest.approx(2 * finest.flops["vision"])


def test_what_was_thrown_away_is_counted(service, scene):
    """A peek and earlier answers cost tokens and FLOPs, so that a session may lose."""
    told = service.ask(open_image(scene), PRINT, scale=576)
    earlier = service.ask(open_image(scene), PRINT, scale=144).routed.answer
    flops = told.routed.flops | {"peek": 5.0, "earlier": 7.0}
    routed = replace(told.routed, peek_tokens=1, earlier=(earlier,), flops=flops)
    spent = spent_on(routed, finest_tokens=576, shape=service.pipeline.model.shape)
    assert spent.tokens == 576 + 1 + 144
    assert spent.flops == pytest.approx(told.spending.flops + 12)
    assert "25% more: 721 instead of 576" in plain(drawings.savings(spent))


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def test_session_counts_answers_and_not_comparisons(service, scene):
    shown = handlers.ask(service, str(scene), BACKGROUND, choices(FIXED, level=2), Spending())
    assert shown.session.questions == 1 and shown.session.tokens == 9
    assert "98% fewer: 9 instead of 576" in plain(shown.savings)
    again = handlers.ask_everywhere(service, str(scene), BACKGROUND, choices(), shown.session)
    assert again.session == shown.session and again.savings == shown.savings
    assert again.everywhere.count("<li") == 5 and again.everywhere.count("the router takes") == 1
    assert "the coarsest is enough" in again.everywhere
    failed = handlers.ask(service, None, BACKGROUND, choices(), shown.session)
    assert failed.session == shown.session and failed.savings == shown.savings


def test_the_chart_has_a_bar_for_each_scale(service, scene):
    shown = handlers.ask(service, str(scene), PRINT, choices(), Spending())
    assert shown.problem == ""
    (routed,) = service.pipeline.answer([open_image(scene)], [PRINT])
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", shown.chart)]
    assert widths == pytest.approx([100 * p for p in routed.sufficiency.values()], abs=0.06)
    assert shown.chart.count("taken") == 1
    fixed = handlers.ask(service, str(scene), PRINT, choices(FIXED, level=3), Spending())
    assert "You chose the scale" in fixed.chart
    assert "Scale 3 of 5: 36 visual tokens, chosen by you" in plain(fixed.answer)


def test_what_the_model_cannot_read_gets_no_answer(service, scene, tmp_path):
    few = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(few).resize((320, 240), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    for scale in (None, 9):
        (told,) = service.pipeline.answer([photo], [PRINT], scale=scale)
        (usual,) = service.pipeline.answer([scene], [PRINT], scale=scale)
        assert told.outside and told.familiarity <= 0.01
        assert not usual.outside and usual.familiarity > 0.01
    for chosen in (choices(), choices(FIXED, level=2)):
        shown = handlers.ask_everywhere(
            service, str(tmp_path / "photo.png"), PRINT, chosen, Spending()
        )
        assert "Outside what this model can read" in shown.answer
        assert "%" not in plain(shown.answer + shown.everywhere) and shown.chart == ""
    assert "drawn scenes only" in handlers.preview(service, str(tmp_path / "photo.png"))[1]
    assert "drawn scenes only" not in handlers.preview(service, str(scene))[1]
    assert "drawn scenes only" in view_of(service).introduction


def test_bad_questions_and_choices_are_told(service, scene):
    for question, mode, message in (
        ("", choices(), "The question is empty"),
        (" \n ", choices(), "The question is empty"),
        (None, choices(), "The question is empty"),
        ("red " * 499, choices(FIXED, level=5), "does not fit"),
        ("a" * (LONGEST_QUESTION + 1), choices(), "2001 characters, and at most 2000"),
        (BACKGROUND, choices(FIXED, level=6), "Scales go from 1 to 5, not 6"),
        (BACKGROUND, choices(BUDGET, budget=0.1), "The budget must be at least 1"),
        (BACKGROUND, choices(BUDGET, budget=float("nan")), "The budget must be at least 1"),
    ):
        for handler in (handlers.ask, handlers.ask_everywhere):
            shown = handler(service, str(scene), question, mode, Spending())
            assert message in shown.problem, (question, mode)
            assert 'role="alert"' in shown.problem
            assert not (shown.answer or shown.chart or shown.grid or shown.everywhere)
    missing = handlers.ask(service, None, BACKGROUND, choices(), Spending())
    assert "There is no image yet" in missing.problem


def test_bad_files_are_told_by_name_without_their_folder(service, tmp_path):
    whole = tmp_path / "whole.png"
    gradient().save(whole)
    for name, content, message in (
        ("cut.png", whole.read_bytes()[: whole.stat().st_size // 2], "truncated or damaged"),
        ("empty.png", b"", "the file is empty (0 bytes)"),
        ("bomb.png", png_header(20_000, 20_000), "is too large"),
        ("text.png", b"this is no image", "not an image in a known format"),
        ("noise.mp4", bytes(range(256)) * 20, "truncated, damaged, or not a video"),
        ("empty.webm", b"", "the file is empty (0 bytes)"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        wrong, image = handlers.preview(service, str(path))
        asked = handlers.ask(service, str(path), BACKGROUND, choices(), Spending())
        assert asked.problem == wrong and image == ""
        assert name in wrong and message in plain(wrong), name
        assert str(tmp_path) not in wrong and "/" not in plain(wrong)
    gone = handlers.ask(service, str(tmp_path / "gone.png"), BACKGROUND, choices(), Spending())
    assert "The upload gone.png is no longer kept here" in gone.problem


def test_unusual_images_are_asked_about(service, tmp_path):
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (1, 300)).save(tmp_path / "thin.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    for path in sorted(tmp_path.iterdir()):
        shown = handlers.ask(service, str(path), BACKGROUND, choices(), Spending())
        assert shown.problem == "" and "data:image/jpeg;base64," in shown.grid, path.name
    assert "4 x 8 pixels" in handlers.preview(service, str(tmp_path / "turned.jpg"))[1]


def test_a_video_is_seen_in_as_many_frames_as_the_run(service, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    wrong, image = handlers.preview(service, str(clip))
    assert wrong == "" and "up to 6 frames of the video" in image
    assert "128 x 144 pixels" in image  # 3 rows of 2 frames of 64 x 48
    shown = handlers.ask(service, str(clip), BACKGROUND, choices(), Spending())
    (routed,) = service.pipeline.answer([clip], [BACKGROUND])
    assert shown.problem == "" and routed.answer.text in plain(shown.answer)


def test_a_video_without_the_extra_says_what_to_install(service, tmp_path, monkeypatch):
    clip = write_video(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    wrong, _ = handlers.preview(service, str(clip))
    assert "pip install &#39;m3router[video]&#39;" in wrong


def test_nothing_from_outside_becomes_markup(service, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    path = tmp_path / f"{evil}.png"
    Image.new("RGB", (8, 8)).save(path)
    _, image = handlers.preview(service, str(path))
    compared = handlers.ask_everywhere(service, str(path), f"a {evil}", choices(), Spending())
    path.write_text("nothing")
    wrong, _ = handlers.preview(service, str(path))
    for html in (image, wrong, compared.problem + compared.everywhere):
        assert evil not in html and "onerror" in html


def test_an_unforeseen_failure_is_told_without_its_inside(service, scene, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("CUDA out of memory at /secret/place")

    monkeypatch.setattr(service.pipeline, "answer", broken)
    shown = handlers.ask(service, str(scene), BACKGROUND, choices(), Spending())
    assert "Something went wrong on the server" in shown.problem
    assert "secret" not in shown.problem and "secret" in caplog.text


@pytest.mark.parametrize(
    "chosen", [choices(), choices(BUDGET, budget=60), choices(FIXED, level=2)], ids=str
)
def test_an_image_is_encoded_once_also_at_all_scales(service, scene, monkeypatch, chosen):
    encoded: list[int] = []
    real = service.pipeline.model.encode

    def counted(images):
        encoded.append(len(images))
        return real(images)

    monkeypatch.setattr(service.pipeline.model, "encode", counted)
    shown = handlers.ask(service, str(scene), PRINT, chosen, Spending())
    assert encoded == [1]
    compared = handlers.ask_everywhere(service, str(scene), PRINT, chosen, Spending())
    assert encoded == [1, 1]
    assert shown.problem == compared.problem == ""
    assert plain(compared.answer).rpartition(". ")[0] == plain(shown.answer).rpartition(". ")[0]
    assert compared.chart == shown.chart and compared.grid == shown.grid


def test_a_comparison_at_a_given_scale_says_what_the_router_takes(service, scene):
    image = open_image(scene)
    routed, fixed = service.compare(image, PRINT), service.compare(image, PRINT, scale=9)
    assert fixed.told.routed.scale == 9 and fixed.told.routed.sufficiency == {}
    assert fixed.chosen == routed.chosen == routed.told.routed.scale
    texts = [[one.answer.text for one in each.answers] for each in (fixed, routed)]
    assert texts[0] == texts[1]


def test_one_question_at_a_time(service, scene, monkeypatch):
    image, inside, most = open_image(scene), [], []
    real = service.pipeline.answer

    def watched(*args, **options):
        inside.append(1)
        most.append(len(inside))
        told = real(*args, **options)
        inside.pop()
        return told

    monkeypatch.setattr(service.pipeline, "answer", watched)
    threads = [threading.Thread(target=service.ask, args=(image, BACKGROUND)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def needs(model, path: Path, question: str) -> list[str]:
    """What a model says at every scale, asked one by one."""
    (encoding,) = model.encode([open_image(path)])
    return [
        model.answer([Request(encoding=encoding, question=question, scale=scale)])[0].text
        for scale in SCALES
    ]


def test_the_built_in_examples_are_what_they_claim_with_the_shipped_model(tmp_path):
    model = load_model("embedded", device="cpu")
    samples = drawn_samples(model, tmp_path)
    assert [(one.easy, one.hard) for one in samples] == [scene[1:] for scene in SCENES]
    for sample in samples:
        assert needs(model, sample.path, sample.easy) == [sample.easy_answer] * 5
        said = needs(model, sample.path, sample.hard)
        assert said[-1] == sample.hard_answer
        assert sample.hard_answer not in said[:-1]


def test_examples_that_a_model_does_not_bear_out_are_left_out(tmp_path):
    assert drawn_samples(FakeModel(), tmp_path) == []


def test_examples_of_a_run_are_held_out_and_what_they_claim(service, world, tmp_path):
    run = Run(world.run)
    samples = logged_samples(run, world.images, tmp_path)
    log = run.log()
    held_out = {str(log.images[row]) for row in run.split(log).part("test")}
    assert samples and {one.path.name for one in samples} <= held_out
    for sample in samples:
        assert set(needs(service.pipeline.model, sample.path, sample.easy)) == {sample.easy_answer}
        said = needs(service.pipeline.model, sample.path, sample.hard)
        assert said[-1] == sample.hard_answer and sample.hard_answer not in said[:-1]
    assert logged_samples(run, tmp_path / "elsewhere", tmp_path) == []


def test_another_policy_or_model_is_refused(world):
    with pytest.raises(DataError, match="Unknown policy 'unknown'"):
        DemoService.load(world.run, policy="unknown", device="cpu")
    with pytest.raises(MismatchError):
        DemoService.load(world.run, model="fake")
