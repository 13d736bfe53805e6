"""Every relative link of the documentation leads somewhere, its anchor included."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "experiments").rglob("*.md"),
        ROOT / "m3core/embedded/checkpoint/README.md",
    ]
)
REFERENCE = ROOT / "docs" / "reference"


def words(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor that MkDocs gives a heading; GitHub's differ in what they keep."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    text = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(path: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in words(path).splitlines() if re.match(r"#+ ", line)}


def module_of(anchor: str) -> Path | None:
    """The module in which an object of the reference lies."""
    parts = anchor.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    return None


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", words(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_relative_to(ROOT), target
        if path.parent == REFERENCE:
            assert (ROOT / path.stem.replace(".", "/")).is_dir(), target
            module = module_of(anchor) if anchor else None
            if anchor:
                assert module is not None, target
                name = anchor.split(".")[len(module.relative_to(ROOT).parts)]
                assert re.search(rf"^(class|def) {name}\b|^{name}\b", module.read_text(), re.M), (
                    target
                )
            continue
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def test_a_heading_becomes_the_anchor_that_the_site_gives_it():
    from markdown import markdown

    for heading in ("M3's Table 9", "What `--cap` does", "A – b: c (d)", "[Link](x.md) and more"):
        html = markdown(f"# {heading}", extensions=["toc"])
        assert f'id="{slug(heading)}"' in html


def test_there_are_pages_to_check():
    assert len(PAGES) > 20
