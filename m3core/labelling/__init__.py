"""Ask a frozen model every example at every scale, and keep what it said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports
from m3router.m3core.labelling.progress import LabelProgress
from m3router.m3core.labelling.rows import COST_UNIT, LabelMode, log_metadata
from m3router.m3core.labelling.run import Encoded, LabelOptions, Stopped, label
from m3router.m3core.labelling.verification import verify

__all__ = [
    "COST_UNIT",
    "LabelMode",
    "Encoded",
    "LabelOptions",
    "LabelProgress",
    "Stopped",
    "label",
    "log_metadata",
    "verify",
]

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {}, also=__all__)
