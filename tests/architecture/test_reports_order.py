"""metrics <- evaluation <- reports: what a number is, how methods are compared, how it is shown."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROUTER = Path(__file__).resolve().parents[2] / "router"
OPTIONAL = {"plotly", "matplotlib"}
NOT_BELOW = {
    "metrics": ("router.",),
    "text": ("router.",),
    "evaluation": ("m3router.router.reports", "m3router.router.cli"),
    "reports": ("m3router.router.cli",),
}
"""Folder -> what its modules must not import, itself excepted."""


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether inside a function) of everything that a module imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(name, id(node) not in top) for name in names]
    return found


@pytest.mark.parametrize("folder", NOT_BELOW)
def test_the_folders_have_one_order(folder):
    for path in (ROUTER / folder).rglob("*.py"):
        for name, inside in imports(path):
            own = name.startswith(f"router.{folder}.") or name == f"router.{folder}"
            assert own or not name.startswith(NOT_BELOW[folder]), (path, name)
            assert not inside or name.split(".")[0] in OPTIONAL, (path, name)
