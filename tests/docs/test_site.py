"""What the site is made of: nothing is left out, nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import m3router
from experiments import figures

ROOT = Path(__file__).resolve().parents[2]
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
MADE_BY_HAND = {"flow.svg"}


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "making" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(entry: Any) -> set[str]:
    """Every page that a navigation names."""
    if isinstance(entry, str):
        return {entry}
    values = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(listed, values))


class _Loader(yaml.SafeLoader):
    pass


def test_every_page_is_in_the_navigation():
    named = listed(yaml.load(NAVIGATION, Loader=_Loader)["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    notebooks = (ROOT / "docs").rglob("*.ipynb")  # pages are made of them
    made = {path.relative_to(ROOT / "docs").with_suffix(".md").as_posix() for path in notebooks}
    pages |= made
    assert pages <= named
    for page in named - pages:
        assert (ROOT / page).is_file(), page


def test_the_reference_has_every_public_module():
    def inside(name: str) -> set[str]:
        """A package and all that lies in it, as the import system finds it."""
        found = {name}
        for one in pkgutil.iter_modules([str(ROOT.joinpath(*name.split(".")[1:]))]):
            if not one.name.startswith("_"):
                full = f"{name}.{one.name}"
                found |= inside(full) if one.ispkg else {full}
        return found

    known = inside("m3router.data") | inside("m3router.m3core") | inside("m3router.router")
    pages = hook("reference").public_modules()
    assert set(pages) | {module for modules in pages.values() for module in modules} == known
    assert list(pages)[0] == "m3router.data" and list(pages)[-1].startswith("m3router.router")


def test_a_page_of_the_reference_names_its_modules():
    reference = hook("reference")
    text = reference.markdown(
        "m3router.router.evaluation", ["m3router.router.evaluation.studies.cells"]
    )
    assert (
        "\n# m3router.router.evaluation\n\n" in text
        and "::: m3router.router.evaluation.studies.cells\n" in text
    )


def test_the_reference_begins_with_the_public_names():
    reference = hook("reference")
    page = reference.start_page()
    names = [name for name in m3router.__all__ if not name.startswith("__")]
    assert sorted(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == sorted(names)
    modules = set().union(*reference.public_modules().values())
    for one in reference.public_names():
        assert one.module in modules and f"[{one.module}.{one.name}]" in page, "links lead there"
    assert "## More" not in page, "every name has a purpose"

    class Config:
        nav = [{"Reference": [{"Command line": "cli.md"}]}]

    (section,) = reference.on_config(Config).nav
    first, _, *packages = section["Reference"]
    assert first == {"Public names": reference.START}
    assert [*map(list, packages)] == [["m3router.data"], ["m3router.m3core"], ["m3router.router"]]


def test_words_of_the_glossary_are_explained_where_they_are_used():
    glossary = hook("glossary")
    known = glossary.entries((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    assert set(glossary.WORDS.values()) <= set(known) and len(known) >= 40
    assert known["Oracle log"].startswith("What every option answered to every example")
    assert "](" not in "".join(known.values())

    class Page:
        class file:
            src_uri = "routing.md"

    class Config:
        docs_dir = str(ROOT / "docs")

    text = glossary.on_page_markdown("The AIQ of both.", Page, Config, None)
    assert text.startswith("The AIQ of both.") and "\n*[AIQ]: Mean accuracy" in text
    assert "headroom" not in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[Qwen3-VL](families.md)", "qwen"),
        ("`m3core/vlm/QwenBudget.py`", "qwen"),
        ("BlindTest(Qwen2.5)", "qwen"),
        ("--log-to-project", "project"),
        ("m3router[serve]", "serve"),
        ("OracleLog.read", "log"),
    ],
)
def test_a_search_finds_what_stands_in_brackets_and_names(text, found):
    """As lunr does it: texts are split at the separator, and a query finds words by their begin."""
    plugins = yaml.load(NAVIGATION, Loader=_Loader)["plugins"]
    (search,) = (one["search"] for one in plugins if isinstance(one, dict) and "search" in one)
    words = [word for word in re.split(search["separator"], text) if word]
    assert any(word.lower().startswith(found) for word in words), words


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("routing.md", "../experiments/routing/README.md", "experiments/routing/README.md"),
        ("tutorials/own-model.md", "../training.md", "training.md"),
        ("tutorials/own-model.md", "../../README.md", "repository/README.md"),
        ("experiments/routing/README.md", "../../docs/routing.md", "routing.md"),
        (
            "experiments/routing/README.md",
            "results/routing.json",
            "experiments/routing/results/routing.json",
        ),
        ("repository/README.md", "docs/limits.md", "limits.md"),
    ],
)
def test_links_lead_out_of_docs_and_back(page, link, target):
    outside = hook("outside")
    assert outside._in_site(outside._in_repository(page, link)) == target


def test_figures_are_what_the_recorded_results_give():
    assert figures.main(["--check"]) == 0
    names = {path.name for path in (ROOT / "docs" / "figures").iterdir()}
    made = {path.name for path in [*figures.drawn(), *figures.pictures()]}
    assert names == made | MADE_BY_HAND


def test_a_stale_figure_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", {"labels": figures.labels})
    assert figures.main([]) == 0 and figures.main(["--check"]) == 0
    page = tmp_path / "labels.svg"
    page.write_text(page.read_text().replace("How many", "How few"))
    assert figures.main(["--check"]) == 1
    assert "labels.svg" in capsys.readouterr().out


def test_nothing_of_the_site_comes_from_other_hosts():
    settings = yaml.load(NAVIGATION, Loader=_Loader)
    assert settings["theme"]["font"] is False
    assert settings["extra"]["polyfills"] == ["assets/iframe-worker.js"]
    assert "://" not in re.sub(r"#.*", "", NAVIGATION)
    for path in (ROOT / "docs" / "assets").iterdir():
        assert "//" not in re.sub(r"^\s*//.*", "", path.read_text(), flags=re.MULTILINE)
    for path in (ROOT / "docs" / "figures").glob("*.svg"):
        links = set(re.findall(r'(?:href|src)="([^"]+)"', path.read_text()))
        assert all(link.startswith("#") for link in links)
