"""Hook of MkDocs: one page for each package, made from docstrings when the site is built.

Nothing of it is kept in the repository, so nothing can be stale.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "m3core", "router")
"""Folders, in the order of imports; each is imported as a part of ``m3router``."""
SECTION = "Reference"
LATE_IN_SEARCH = "---\nsearch:\n  boost: 0.3\n---"
"""So that a search finds the pages that explain before the functions that are named alike."""


def public_modules() -> dict[str, list[str]]:
    """Package -> its public modules, both dotted; packages in the order of imports."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*.py")):
            parts = ("m3router", *path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                found[".".join(parts[:-1])]  # noqa: B018 - a package without modules is a page too
            elif not any(part.startswith("_") for part in parts):
                found[".".join(parts[:-1])].append(".".join(parts))
    return dict(sorted(found.items(), key=lambda one: (PACKAGES.index(one[0].split(".")[1]), one)))


def page_of(package: str) -> str:
    """Path of a package's page in the site."""
    return f"reference/{package}.md"


def markdown(package: str, modules: list[str]) -> str:
    """A package's page: what the package says about itself, then its modules."""
    init = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    about = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    parts = [LATE_IN_SEARCH, f"# {package}", about, *(f"::: {module}" for module in modules)]
    return "\n\n".join(parts) + "\n"


def on_config(config: Any) -> Any:
    """Put the pages into the navigation, a section for each of the three."""
    pages = [{package: page_of(package)} for package in public_modules()]
    for entry in config.nav:
        if SECTION in entry:
            entry[SECTION] = [*entry[SECTION], *pages]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for package, modules in public_modules().items():
        files.append(File.generated(config, page_of(package), content=markdown(package, modules)))
    return files
