"""Every public function takes a path as a text too: no parameter wants a `pathlib.Path` alone."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import m3router
from m3router.data.errors import DataError, M3RouterError
from m3router.data.importers import IMPORTERS, importer
from m3router.data.paths import as_path
from m3router.data.registry import load
from m3router.router.stages import (
    checks,
    evaluating,
    importance,
    judging,
    labelling,
    learning,
    monitoring,
    references,
    reporting,
    studies,
    tuning,
)

PATH = re.compile(r"(?<![\w.])Path\b")
STAGES = (
    *(checks, evaluating, importance, judging, labelling, learning, monitoring),
    *(references, reporting, studies, tuning),
)


def packages(root: ModuleType) -> Iterator[ModuleType]:
    yield root
    for one in pkgutil.iter_modules(root.__path__):
        if one.ispkg and not one.name.startswith("_"):
            yield from packages(importlib.import_module(f"{root.__name__}.{one.name}"))


def callables() -> dict[str, Callable[..., Any]]:
    """All public functions and methods, the stages of a run and the importers."""
    found: dict[str, Any] = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in packages(m3router)
        for name in getattr(package, "__all__", ())
    }
    found |= {name: importer(name) for name in IMPORTERS}
    for module in STAGES:
        named = vars(module).items()
        found |= {f"{module.__name__}.{n}": one for n, one in named if n.endswith("_stage")}
    for name, one in list(found.items()):
        if inspect.isclass(one):
            found |= {
                f"{name}.{method}": getattr(one, method)
                for method in ("__init__", *dir(one))
                if not method.startswith("_") or method == "__init__"
            }
    return {name: one for name, one in found.items() if inspect.isroutine(one)}


def parameters(one: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(one).parameters)
    except (TypeError, ValueError):
        return {}


CALLABLES = callables()


def test_no_parameter_wants_a_path_object():
    wrong = [
        f"{name}({parameter}: {about.annotation})"
        for name, one in CALLABLES.items()
        for parameter, about in parameters(one).items()
        if PATH.search(text := str(about.annotation)) and not text.startswith("Callable")
    ]
    assert not wrong


def takes_one_path(one: Callable[..., Any]) -> bool:
    """Whether a path, or a run, is all that must be given."""
    needed = [
        about
        for about in parameters(one).values()
        if about.default is inspect.Parameter.empty
        and about.kind not in (about.VAR_POSITIONAL, about.VAR_KEYWORD)
    ]
    return len(needed) == 1 and str(needed[0].annotation) in ("StrPath", "AnyRun")


ALONE = {name: one for name, one in CALLABLES.items() if takes_one_path(one)}


def test_many_can_be_called():
    known = {"m3router.OracleLog.read", "m3router.open_pipeline", "m3router.Policy.read", "table"}
    assert known <= set(ALONE) and len(ALONE) > 25


@pytest.mark.parametrize("name", sorted(set(ALONE)))
def test_a_text_does_what_a_path_does(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def told(place: Any) -> str:
        try:
            return f"gave {type(ALONE[name](place)).__name__}"
        except M3RouterError as error:
            return f"{type(error).__name__}: {error}"

    assert told("nowhere") == told(Path("nowhere"))


class Place:
    """Like a path: what `os.fspath` takes."""

    def __init__(self, text: str | bytes) -> None:
        self.text = text

    def __fspath__(self) -> Any:
        return self.text


def test_what_is_no_path_is_refused():
    assert as_path(Place("a/b")) == Path("a", "b") == as_path("a/b")
    for wrong in (None, 3, b"a", Place(b"a"), ["a"], open(os.devnull, "rb")):  # noqa: SIM115
        with pytest.raises(DataError, match="A path must be a text or a pathlib.Path, not"):
            as_path(wrong)  # type: ignore[arg-type]


def test_a_run_takes_a_text(tmp_path):
    run = m3router.Run(str(tmp_path))
    assert run == m3router.Run(tmp_path) and run.root == tmp_path and run.opened().root == tmp_path
    assert load("m3router.router.runs.run:as_run")(run) is run
