"""The direction of imports, and what importing does, read from the source and tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "m3core", "router", "experiments")
MAY_IMPORT = {
    "data": {"data"},
    "m3core": {"data", "m3core"},
    "router": {"data", "m3core", "router"},
    "experiments": {"data", "m3core", "router", "experiments"},
}
NOT_IN_DATA = {"torch", "transformers", "accelerate", "sklearn", "lightgbm", "optuna"}


def modules() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(str(node.module).split(".")[0])
    return names


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def everything(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_packages_are_found():
    assert len(modules()) > 40
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(PACKAGES)


@pytest.mark.parametrize("path", modules(), ids=everything)
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert names & set(PACKAGES) <= MAY_IMPORT[package]
    assert "tests" not in names
    if package != "m3core":
        assert "transformers" not in names, "only m3core imports transformers"
    if package == "data":
        assert not names & NOT_IN_DATA


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


IMPORT_ALL = """
import builtins, importlib, socket, sys
sys.path.insert(0, {root!r})

def refuse(*_, **__):
    raise AssertionError("importing opened a connection")

socket.socket.connect = refuse
for name in {names!r}:
    importlib.import_module(name)
import torch
assert not torch.cuda.is_initialized()
"""


def test_importing_everything_does_nothing(tmp_path):
    names = [dotted(path) for path in modules()]
    assert run_python(IMPORT_ALL.format(root=str(ROOT), names=names), tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_data_loads_no_model_library(tmp_path):
    names = [dotted(path) for path in modules() if path.relative_to(ROOT).parts[0] == "data"]
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted(set(sys.modules) & {NOT_IN_DATA!r}))"
    )
    assert run_python(code, tmp_path).strip() == "[]"
