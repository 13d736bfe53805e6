"""What a router must beat, always in the table: one literal table, imported on demand.

Every baseline is fitted on the fit and tune splits and has its knob set on the calibration split.
What it is given has no score of the test split in it (`m3router.router.evaluation.methods.Known`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from m3router.data.errors import NotLearnableError
from m3router.data.registry import exports, load_entry
from m3router.router.evaluation.methods import Known, Method

BASELINES: dict[str, str] = {
    "best fixed, chosen before": "m3router.router.evaluation.baselines.fixed:overall",
    "best fixed per dataset": "m3router.router.evaluation.baselines.fixed:by_dataset",
    "dataset lookup": "m3router.router.evaluation.baselines.lookup:by_dataset",
    "question-type lookup": "m3router.router.evaluation.baselines.lookup:by_question_type",
    "nearest neighbours": "m3router.router.evaluation.baselines.neighbours:fit",
    "least answer loss (AVG-LLaVA)": "m3router.router.evaluation.baselines.answer_loss:fit",
    "expected resolution (CARES)": "m3router.router.evaluation.baselines.expected_resolution:fit",
    "confidence cascade": "m3router.router.evaluation.baselines.staged:by_confidence",
    "log-probability cascade": "m3router.router.evaluation.baselines.staged:by_logprob",
    "calibrated cascade": "m3router.router.evaluation.baselines.calibrated_cascade:fit",
}
"""Name -> function of `Known` that gives a `Method`."""


def fit_baselines(known: Known) -> tuple[dict[str, Method], dict[str, str]]:
    """Fit all baselines.

    Returns:
        Those that are available, by name, and why the others are not.
    """
    fitted: dict[str, Method] = {}
    undefined: dict[str, str] = {}
    for name in BASELINES:
        fit = cast("Callable[[Known], Method]", load_entry(BASELINES, name, kind="baseline"))
        try:
            fitted[name] = fit(known)
        except NotLearnableError as error:
            undefined[name] = str(error)
    return fitted, undefined


if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {}, also=["BASELINES", "fit_baselines"])
