"""Which rule a question is routed by: a scale, the server's policy, or one made on demand."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.query import Query
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from m3router.router.serve.backends.backend import BusyError
from m3router.router.training.scale_router import ScaleRouter

KEPT = 256
"""Policies made on demand that are kept."""
MOST_WAITING = 2
"""Questions that may wait while a policy is made for another one. Each has a thread, and there are
few: whoever asks for a new budget every time must not take them all."""


class Policies:
    """Makes policies for budgets and regrets that questions bring, from a run's calibration split.

    Args:
        run: Its router and, for policies on demand, its log, features and split.
        router: The router that is used.

    Raises:
        DataError: If the run has a log, features or a split, and any of these or its router is
            missing or damaged.
        MismatchError: If they do not belong together, or to the router that is used.
    """

    def __init__(self, run: Path, router: ScaleRouter) -> None:
        self._made: OrderedDict[tuple[str, object], Policy] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()  # making one takes a moment of one core
        self._waiting = 0
        self._why_not = ""
        self._data: CalibrationData | None = None
        if Run(run).published:
            self._why_not = "it was started from a router and policies without their log"
        else:
            self._data = CalibrationData.read(Run(run))
        if self._data is not None and self._data.binding.router != router.fingerprint:
            raise MismatchError(
                f"{run} holds another router than the pipeline uses. Give the run that the "
                f"pipeline was loaded from. (Routers {self._data.binding.router[:12]} and "
                f"{router.fingerprint[:12]})"
            )

    def rule(self, query: Query) -> int | Policy | None:
        """The scale or policy of a question; None for the server's own policy.

        It may have to be made, and others' are perhaps being made: never called on an event loop.

        Raises:
            DataError: If more than one is asked for, there is nothing to make a policy from, or
                none can be made.
            BusyError: If too many are to be made.
        """
        wishes = {
            name: value
            for name in ("scale", "budget", "max_regret")
            if (value := getattr(query, name)) is not None
        }
        if len(wishes) > 1:
            raise DataError(f"Give at most one of scale, budget and max_regret, not {wishes}.")
        if not wishes:
            return None
        (name, value), *_ = wishes.items()
        if name == "scale":
            return int(value)
        return self.made(budget=value) if name == "budget" else self.made(max_regret=value)

    def made(self, **knob: Unpack[Knobs]) -> Policy:
        """A policy for what is asked for, made once.

        Raises:
            DataError: If there is nothing to make one from, or none can be made.
        """
        ((name, asked),) = knob.items()
        if self._data is None:
            raise DataError(
                f"This server cannot route by {name}: {self._why_not}. Leave {name} out to route "
                "by the server's policy, or give a scale."
            )
        if (kept := self.at_hand(**knob)) is not None:
            return kept
        with self._place(), self._making:
            if (kept := self.at_hand(**knob)) is not None:  # somebody made it meanwhile
                return kept
            made = self._data.policy(**knob)
            with self._lock:
                self._made[name, asked] = made
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            return made

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        with self._lock:
            if self._waiting > MOST_WAITING:
                raise BusyError(
                    "Too many new budgets are asked for at once. Try again later.", retry_after=1.0
                )
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def at_hand(self, **knob: Unpack[Knobs]) -> Policy | None:
        """What `made` would give, where that was made before; else None."""
        (key,) = knob.items()
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            return self._made.get(key)
