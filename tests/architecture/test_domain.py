"""Routers, policies, cascades and runs do not know the hub, the server or the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = ("router/policies", "router/cascade", "router/runs", "router/training/scale_router.py")
OUTER = (
    "huggingface_hub",
    "m3router.router.hub",
    "m3router.router.serve",
    "m3router.router.cli",
    "m3router.router.demo",
)


def modules() -> list[Path]:
    found = [ROOT / one for one in DOMAIN]
    return sorted(file for one in found for file in ([one] if one.is_file() else one.glob("*.py")))


def imported(path: Path) -> set[str]:
    """Everything a module imports, inside of functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_domain_module_knows_nothing_outside(path):
    assert [
        name for name in imported(path) if f"{name}.".startswith(tuple(f"{one}." for one in OUTER))
    ] == []


def test_the_modules_are_found():
    assert len(modules()) > 20
