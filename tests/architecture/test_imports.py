"""The direction of imports, their cycles, and what importing does."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import m3router

ROOT = Path(__file__).resolve().parents[2]
NAME = "m3router"
FOLDERS = ("m3router", "data", "m3core", "router", "experiments")
MAY_IMPORT = {
    "data": {"data"},
    "m3core": {"data", "m3core"},
    "router": {"data", "m3core", "router"},
}
NOT_IN_DATA = {"torch", "transformers", "accelerate", "sklearn", "lightgbm", "optuna"}


def modules() -> list[Path]:
    """Every module of the repository, once: the links in `m3router/` are not followed."""
    here = (ROOT / NAME).glob("*.py")
    return sorted([*here, *(path for name in FOLDERS[1:] for path in (ROOT / name).rglob("*.py"))])


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] in (NAME, "experiments") else (NAME, *parts))


def everything(path: Path) -> str:
    return str(path.relative_to(ROOT))


MODULES = {dotted(path): path for path in modules()}


def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def exported() -> dict[str, str]:
    """Public name of a package -> the module that it is imported from on first use."""
    found = {}
    for name, path in MODULES.items():
        for node in ast.walk(tree(name)) if path.name == "__init__.py" else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exports":
                table = ast.literal_eval(node.args[1])
                found |= {f"{name}.{one}": module for one, module in table.items()}
    return found


BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
"""Where a statement holds other statements; an import is one, and stands nowhere else."""


def statements(
    node: ast.AST, late: bool = False, typing: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every statement below one: whether inside a function, whether for types only."""
    late |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    typing |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    for block in BLOCKS:
        for inner in getattr(node, block, ()):
            yield inner, late, typing
            yield from statements(inner, late, typing)


def found_in(name: str) -> Iterator[tuple[str, bool, bool]]:
    for node, late, typing in statements(tree(name)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [exported().get(one, one) for one in inside]
            found = [one if one in MODULES else str(node.module) for one in found]
        else:
            continue
        for one in set(found):
            yield one, late, typing


@functools.cache
def imports(name: str) -> list[tuple[str, bool, bool]]:
    """What a module imports: full name, whether inside a function, whether for types only."""
    return list(found_in(name))


def test_the_packages_are_found():
    assert len(MODULES) > 40
    assert {path.relative_to(ROOT).parts[0] for path in MODULES.values()} == set(FOLDERS)


def refused(name: str) -> set[str]:
    """What a module imports and may not."""
    found = {one for one, *_ in imports(name)}
    tops = {one.split(".")[0] for one in found}
    never = {"tests", "data", "m3core", "router"}
    if not name.startswith("experiments"):
        never |= {"experiments"}
    folder = MODULES[name].relative_to(ROOT).parts[0]
    if folder in ("m3router", "data", "router"):
        never |= {"transformers"}  # only m3core imports it
    if folder == "data":
        never |= NOT_IN_DATA
    if folder not in MAY_IMPORT:
        return tops & never
    ours = {one for one in found if one.startswith(f"{NAME}.")}
    upward = {one for one in ours if one.split(".")[1] not in MAY_IMPORT[folder]}
    return tops & never | upward


def test_imports_point_one_way():
    assert {name: found for name in MODULES if (found := refused(name))} == {}


def needed(name: str) -> set[str]:
    """Modules of ours that a module cannot do without, also where it asks for them late."""
    return {one for one, _, typing in imports(name) if one in MODULES and not typing} - {name}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one name (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            component = []
            while True:
                component.append(stack.pop())
                if component[-1] == name:
                    break
            if len(component) > 1:
                found.append(sorted(component))

    sys.setrecursionlimit(10_000)
    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert cycles({"a": {"b"}, "b": set()}) == []


def test_no_module_imports_itself_in_a_circle():
    assert cycles({name: needed(name) for name in MODULES}) == []


LAYERS = ("m3router.router", "m3router.m3core", "m3router.data")


@pytest.mark.parametrize("layer", LAYERS)
def test_no_folder_imports_itself_in_a_circle(layer):
    """Folders are ideas, and ideas stand on one another, types included."""
    depth = layer.count(".") + 1

    def folder(name: str) -> str:
        return ".".join(name.split(".")[: depth + 1])

    graph: dict[str, set[str]] = {}
    for name in MODULES:
        if name.startswith(f"{layer}."):
            wanted = {folder(one) for one, *_ in imports(name) if one.startswith(f"{layer}.")}
            graph.setdefault(folder(name), set()).update(wanted - {folder(name)})
    known = {name: {one for one in wanted if one in graph} for name, wanted in graph.items()}
    assert cycles(known) == []


OPTIONAL = {
    "aiohttp",
    "accelerate",
    "av",
    "bitsandbytes",
    "datasets",
    "fastapi",
    "gradio",
    "h11",
    "httpx",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "openpyxl",
    "optuna",
    "peft",
    "playwright",
    "plotly",
    "rapidocr_onnxruntime",
    "prometheus_client",
    "ray",
    "sentence_transformers",
    "sklearn",
    "starlette",
    "torch",
    "torchvision",
    "trackio",
    "transformers",
    "uvicorn",
    "wandb",
    "yarl",
}
"""Packages that may be imported inside a function: extras, and what takes long to load."""


@functools.cache
def brings(name: str) -> frozenset[str]:
    """The optional and heavy packages that importing a module of ours loads."""
    seen, waiting, found = {name}, [name], set[str]()
    while waiting:
        for one, late, typing in imports(waiting.pop()):
            if late or typing:
                continue
            found |= {one.split(".")[0]} & OPTIONAL
            if one in MODULES and one not in seen:
                seen.add(one)
                waiting.append(one)
    return frozenset(found)


def test_a_late_import_keeps_something_optional_or_heavy_away():
    for name in MODULES:
        for one, late, typing in imports(name):
            if late and not typing and one.split(".")[0] not in OPTIONAL:
                assert one in MODULES, f"{name}: {one} belongs at the top"
                assert brings(one) - brings(name), f"{name}: {one} loads nothing worth the waiting"


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


IMPORT_ALL = """
import importlib, json, socket, sys
sys.path.insert(0, {root!r})

def refuse(*_, **__):
    raise AssertionError("importing opened a connection")

socket.socket.connect = refuse
import m3router
dir(m3router)
loaded = [sorted(set(sys.modules) & {heavy!r})]
for names in {names!r}:
    for name in names:
        importlib.import_module(name)
    loaded.append(sorted(set(sys.modules) & {heavy!r}))
import torch
assert not torch.cuda.is_initialized()
print(json.dumps(loaded))
"""
STARTS = {f"{NAME}.__main__"}


def test_importing_does_nothing_and_loads_no_more_than_it_must(tmp_path):
    """In one process that imports the namespace, then all of data/, then everything else."""
    data = {name for name in MODULES if name.startswith(f"{NAME}.data")}
    names = [sorted(data), sorted(set(MODULES) - data - STARTS)]
    heavy = {*NOT_IN_DATA, "numpy", "pandas"}
    code = IMPORT_ALL.format(root=str(ROOT), names=names, heavy=heavy)
    alone, with_data, with_all = json.loads(run_python(code, tmp_path))  # nothing else is written
    assert alone == []  # the namespace is light
    assert not set(with_data) & NOT_IN_DATA
    assert {"torch", "transformers"} <= set(with_all)  # so this would have been seen
    assert list(tmp_path.iterdir()) == []


def packages() -> list[str]:
    return [name for name, path in MODULES.items() if path.name == "__init__.py"]


def test_about_twenty_names_are_public():
    public = [name for name in m3router.__all__ if name not in ("data", "m3core", "router")]
    assert 15 <= len(public) <= 22


@pytest.mark.parametrize("name", [one for one in packages() if one.startswith(NAME)])
def test_public_names_are_listed_and_there(name):
    """What tab completion shows: every public name, and what lies in the package."""
    package = importlib.import_module(name)
    assert package.__doc__
    listed = dir(package)
    for one in getattr(package, "__all__", []):
        assert one in listed and getattr(package, one) is not None
    inside = {
        other.removeprefix(f"{name}.")
        for other in MODULES
        if other.startswith(f"{name}.") and other.count(".") == name.count(".") + 1
    }
    assert {one for one in inside if not one.startswith("_")} <= set(listed)
