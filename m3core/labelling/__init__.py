"""Ask a frozen model every example at every scale, and keep what it said."""

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
