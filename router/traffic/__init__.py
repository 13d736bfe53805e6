"""Served requests kept as examples, with the consent of who runs the server and who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports
from m3router.router.traffic.feedback import Feedback
from m3router.router.traffic.folder import TrafficFolder, read_feedback, read_traffic
from m3router.router.traffic.recorder import Consent, Recorder
from m3router.router.traffic.records import MadeBy, ServedRequest

__all__ = [
    "Consent",
    "Feedback",
    "MadeBy",
    "Recorder",
    "ServedRequest",
    "TrafficFolder",
    "read_feedback",
    "read_traffic",
]

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {}, also=__all__)
