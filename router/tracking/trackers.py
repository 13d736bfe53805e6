"""The table of experiment trackers, and several of them as one that never costs any work."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TextIO, TypeVar

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.registry import load_entry, unknown_name
from m3router.router.runs.run import as_run
from m3router.router.tracking.tracker import Place, Setting, Tracker

TRACKERS: dict[str, str] = {
    "mlflow": "m3router.router.tracking.mlflow:MlflowTracker",
    "tensorboard": "m3router.router.tracking.tensorboard:TensorboardTracker",
    "trackio": "m3router.router.tracking.trackio:TrackioTracker",
    "wandb": "m3router.router.tracking.wandb:WandbTracker",
}
"""Name of a tracker, of the package it needs and of the extra that brings it."""

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Record(Protocol):
    """Tells trackers what a stage found; gets the run, as the stage does, and its result."""

    def __call__(self, trackers: Trackers, run: Any, result: Any, /) -> None:
        """Tell it."""


class Trackers:
    """Tells several trackers the same.

    One that fails is named in a warning and told nothing more: what is being tracked goes on.
    Without any tracker all methods do nothing.
    """

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._open = dict(trackers or {})
        self._failed: dict[str, Tracker] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def settings(self, values: Mapping[str, Any]) -> None:
        """Keep what the run was made with; values may be mappings and lists."""
        flat = flat_settings(values)
        self._tell(lambda one: one.settings(flat))

    def metrics(self, values: Mapping[str, float | None], *, step: int | None = None) -> None:
        """Keep numbers; those that are missing or not finite are left out."""
        known = {
            name: float(value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }
        if known:
            self._tell(lambda one: one.metrics(known, step=step))

    def text(self, name: str, text: str) -> None:
        """Keep a text."""
        self._tell(lambda one: one.text(name, text))

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure."""
        self._tell(lambda one: one.figure(name, image))

    def close(self, *, failed: bool) -> None:
        """End the run of every tracker, also of those that failed before."""
        broken = list(self._failed.values())
        self._tell(lambda one: one.close(failed=failed))
        self._open.clear()
        for one in broken:
            with contextlib.suppress(Exception), _prints_aside():  # it was named already
                one.close(failed=True)

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, one in list(self._open.items()):
            try:
                with _prints_aside():
                    what(one)
            except Exception as error:  # a client of somebody else's server may raise anything
                logger.warning(
                    "%s failed and is told nothing more (%s); the work goes on.",
                    name,
                    _reason(error),
                )
                self._failed[name] = self._open.pop(name)


@contextlib.contextmanager
def open_trackers(names: str | Sequence[str] | None, place: Place) -> Iterator[Trackers]:
    """Open a run in every tracker, and end it with the block.

    Args:
        names: keys of `TRACKERS`.
        place: where the trackers keep what they are told.

    Raises:
        DataError: before any tracker is opened, when one is unknown or its package is not
            installed.
    """
    wanted = dict.fromkeys([names] if isinstance(names, str) else names or ())
    for name in wanted:
        if name not in TRACKERS:
            raise DataError(unknown_name("tracker", name, TRACKERS))
        if not _installed(name):
            raise DataError(
                f"Logging to {name} needs the package {name}, which is not installed: "
                f"pip install 'm3router[{name}]'"
            )
    trackers = Trackers(_opened(list(wanted), place))
    failed = True
    try:
        yield trackers
        failed = False
    finally:
        trackers.close(failed=failed)


def tracked(stage: str, record: Record) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """What makes a stage, a function of a run, tell the trackers in its `log_to` what it found.

    The stage itself never sees `log_to` and `log_to_project`. Trackers are told once its files are
    written.

    Args:
        stage: its name.
        record: tells them.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> R:
            names, project = named.pop("log_to", ()), named.pop("log_to_project", None)
            run = as_run(args[0] if args else named["run"])
            with open_trackers(names, Place.of(run.root, stage, project)) as trackers:
                result = function(*args, **named)
                if trackers:
                    record(trackers, run, result)
            return result

        return call

    return decorate


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Nested settings as flat ones; what is not known is left out.

    >>> flat_settings({"seed": 0, "n": {"fit": 3}, "options": ["low", "high"], "gaps": None})
    {'seed': 0, 'n.fit': 3, 'options': 'low, high'}
    """
    found: dict[str, Setting] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat_settings(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            found[name] = value
        elif value is not None:
            found[name] = ", ".join(map(str, value))
    return found


def _installed(name: str) -> bool:
    """Whether a package is there; folders that trackers make where they run are not packages."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def _opened(names: Sequence[str], place: Place) -> dict[str, Tracker]:
    found: dict[str, Tracker] = {}
    for name in names:
        adapter = load_entry(TRACKERS, name, kind="tracker")
        try:
            with _prints_aside():
                found[name] = adapter(place)
        except Exception as error:  # such as a server that is down
            logger.warning(
                "%s cannot be opened and is told nothing (%s); the work goes on.",
                name,
                _reason(error),
            )
    return found


def _prints_aside() -> contextlib.redirect_stdout[TextIO]:
    """What trackers print belongs beside the results, not among them."""
    return contextlib.redirect_stdout(sys.stderr)


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
