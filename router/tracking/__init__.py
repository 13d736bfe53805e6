"""Experiment trackers: what training, tuning and evaluation found, beside a team's other runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.router.tracking.tracker import Place as Place
    from m3router.router.tracking.tracker import Tracker as Tracker
    from m3router.router.tracking.trackers import TRACKERS as TRACKERS
    from m3router.router.tracking.trackers import Trackers as Trackers
    from m3router.router.tracking.trackers import open_trackers as open_trackers

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Place": "m3router.router.tracking.tracker",
            "TRACKERS": "m3router.router.tracking.trackers",
            "Tracker": "m3router.router.tracking.tracker",
            "Trackers": "m3router.router.tracking.trackers",
            "open_trackers": "m3router.router.tracking.trackers",
        },
    )
