"""The page of a log as a person meets it: wide and narrow, by keyboard, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m3router.router.reports.log_browser import write_page
from m3router.router.reports.log_summary import inspect_log
from tests.demo.browsing import CONTRASTS, chromium
from tests.router.logs import log_of_cells
from tests.router.test_log_summary import answered

OPTIONS = [f"max_pixels={784 * 4**k}" for k in range(6)]
N = 1600
LONG = "Which of these statements about the third of the figures is right? " * 6
BROKEN = """() => {
  const broken = [];
  for (const one of document.querySelectorAll("#detail th, #detail .option, #detail .number")) {
    const text = one.firstChild;
    if (!text || one.getClientRects().length === 0) continue;
    for (const match of text.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(text, match.index);
      range.setEnd(text, match.index + match[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => box.top));
      if (lines.size > 1) broken.push(match[0]);
    }
  }
  return broken;
}"""
"""Words of the table that stand on two lines."""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """Questions at six options: at each, fewer are right than at the next."""
    cells: list[list[dict[str, Any] | None]] = [
        [answered(float(i % 7 <= k), f"answer {i % 7 <= k}", 4.0**k) for k in range(len(OPTIONS))]
        for i in range(N)
    ]
    cells[5] = [{"cost": None, "error": "the server said no"}, *cells[5][1:-1], None]
    examples = [{"question": f"{LONG if i % 3 else ''}{i}?"} for i in range(N)]
    log = log_of_cells(cells, options=OPTIONS, examples=examples)
    page = tmp_path_factory.mktemp("page") / "log.html"
    write_page(log, inspect_log(log, draws=2), page)
    return page


@pytest.fixture(scope="module")
def browser():
    driver, running = chromium()
    yield running
    running.close()
    driver.stop()


@pytest.fixture
def visit(browser, page_file):
    """Opens the page at a size; afterwards it has asked for nothing and no script has failed."""
    opened, noticed = [], []

    def visited(width: int, height: int = 900, fragment: str = "", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        opened.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("request", lambda request: noticed.append(request.url))
        page.goto(page_file.as_uri() + fragment)
        del noticed[:1]  # the page itself
        return page

    yield visited
    for context in opened:
        context.close()
    assert noticed == []


def chosen(page) -> str:
    return page.locator(".row[aria-selected=true] .asked").inner_text()


def overflows(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_wide_the_head_stays_over_the_marks_and_the_keyboard_reaches_everything(visit):
    page = visit(1280)
    assert page.locator("#count").inner_text() == "1,600 of 1,600 questions"
    assert page.locator("#names b").all_inner_texts() == [str(784 * 4**k) for k in range(6)]
    assert page.locator("#shared").inner_text() == "max_pixels="
    assert page.locator(".clear:visible, .chip:visible").count() == 0
    page.locator("#list").evaluate("list => list.scrollTop = 100_000")
    page.locator(".row", has_text="1390?").wait_for()
    head = [page.locator(".name").nth(k).bounding_box() for k in range(6)]
    marks = [page.locator(".row").nth(9).locator(".mark").nth(k).bounding_box() for k in range(6)]
    for name, mark in zip(head, marks, strict=True):
        assert name["x"] == pytest.approx(mark["x"], abs=1)
        assert name["y"] + name["height"] < 500
    page.locator("#list").press("Home")
    page.keyboard.press("ArrowDown")
    assert chosen(page).endswith("1?")
    assert page.locator("#detail").bounding_box()["x"] > 600
    assert LONG.strip() in page.locator("#detail .question").inner_text()  # the whole question
    assert page.locator(".row").nth(1).bounding_box()["height"] == 72
    assert page.evaluate(BROKEN) == []
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("Escape")
    assert "Choose a question" in page.locator("#detail").inner_text()
    assert not overflows(page)


def test_filters_say_what_they_do_and_nothing_found_says_why(visit):
    page = visit(1280, color_scheme="dark")
    page.locator("#scale").select_option(OPTIONS[0])
    assert page.locator(".on").count() == 0  # half a filter filters nothing
    page.locator("#outcome").select_option("error")
    assert page.locator("#count").inner_text() == "1 of 1,600 questions"
    assert page.locator(".on select").count() == 2
    page.locator("#text").fill("nobody says this")
    page.locator("#empty").wait_for()
    told = page.locator("#set .chip").all_inner_texts()
    assert told == ["“nobody says this” ✕", f"at scale {OPTIONS[0]}: error ✕"]
    assert page.evaluate(CONTRASTS) == []
    page.locator("#set .chip").first.click()
    assert page.locator("#count").inner_text() == "1 of 1,600 questions"
    assert page.url.endswith("#scale=max_pixels%3D784&outcome=error")
    page.locator("#reset").click()
    assert page.locator("#count").inner_text() == "1,600 of 1,600 questions"
    assert page.locator(".on, .clear:visible").count() == 0
    assert page.evaluate("document.activeElement.id") == "list"


def test_narrow_the_detail_opens_below_its_row_and_a_link_leads_to_it(visit):
    page = visit(390, 844, "#id=e1500")
    assert chosen(page).endswith("1500?")
    row, detail = page.locator("#row1500").bounding_box(), page.locator("#detail").bounding_box()
    assert detail["y"] == pytest.approx(row["y"] + row["height"], abs=1)
    assert detail["width"] == 390
    following = page.locator("#row1501").bounding_box()
    assert following["y"] == pytest.approx(detail["y"] + detail["height"], abs=1)
    assert page.evaluate(BROKEN) == [] and page.evaluate(CONTRASTS) == []
    # Another one opens where it is, though what was open above it closes.
    page.locator("#list").evaluate("(list, by) => list.scrollTop += by", detail["height"])
    page.locator("#row1501").wait_for()
    page.wait_for_function("document.getElementById('row1501').getBoundingClientRect().y < 600")
    before = page.locator("#row1501").bounding_box()["y"]
    page.locator("#row1501").click()
    assert page.locator("#row1501").bounding_box()["y"] == pytest.approx(before, abs=2)
    page.locator("#row1501").click()
    assert page.locator("#detail:visible").count() == 0
    assert not overflows(page)


def test_on_paper_the_list_goes_on_and_ends_with_the_chosen_question(visit):
    page = visit(794, 1123, "#id=e7")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".row").count() == 200
    assert page.locator("#tables .wide").first.is_visible()
    last = page.locator("#row199").bounding_box()
    assert page.locator("#detail").bounding_box()["y"] >= last["y"] + last["height"]
    assert "The first 200 of 1,600" in page.locator("#printed").inner_text()
    assert page.locator("#more").is_visible() is False
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator(".row").count() < 60
