"""The pictures of pages: what is taken, and what is found wrong."""

from __future__ import annotations

import pytest
from PIL import Image

from experiments.screenshots.camera import Shot, take
from experiments.screenshots.contact import write_index
from experiments.screenshots.pages import Material
from m3router.data.errors import DataError
from tests.demo import browsing

PAGE = """<!doctype html><title>x</title><style>body { margin: 0; background: white }
@media (prefers-color-scheme: dark) { body { background: black } }</style>
<div style="width: 600px; height: 2000px">text</div><button>Press</button>
<script>document.querySelector("button").onclick = () => { throw new Error("broken") }</script>"""


def test_pages_are_taken_and_their_faults_told(tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    address = (tmp_path / "page.html").as_uri()
    driver, browser = browsing.chromium()
    try:
        shot = Shot(
            name="page",
            title="A <page>",
            address=address,
            visit=lambda page: page.get_by_text("Press").click(),
            paper=True,
        )
        taken = take(browser, shot, tmp_path, widths=(390,))
    finally:
        browser.close()
        driver.stop()
    assert list(taken.files) == [(390, "light"), (390, "dark")]
    for (width, scheme), name in taken.files.items():
        with Image.open(tmp_path / name) as picture:
            assert picture.width == width and picture.height >= 2000
            assert picture.convert("L").getpixel((5, 1990)) == (255 if scheme == "light" else 0)
    assert (tmp_path / taken.printed).read_bytes().startswith(b"%PDF")
    assert taken.faults == [
        "error in a script: broken",
        "390 px, light: the page is 600 px wide",
        "390 px, dark: the page is 600 px wide",
    ]
    index = write_index(tmp_path, [taken]).read_text(encoding="utf-8")
    assert "A &lt;page&gt;" in index and 'href="page.pdf"' in index
    assert index.count("<figure>") == 2 and index.count('class="fault"') == 3


def test_an_unfinished_quickstart_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no finished quickstart: run `m3router quickstart"):
        Material.of(tmp_path, tmp_path)
