"""What a router must beat, always in the table: one literal table, imported on demand.

Every baseline is fitted on the fit and tune parts and has its knob set on the calibrate part. What
it is given has no score of the test part in it (`router.baselines.base.Known`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from data.errors import NotLearnableError
from data.registry import load_entry
from router.baselines.base import Contender, Known

BASELINES: dict[str, str] = {
    "best fixed, chosen before": "router.baselines.fixed:overall",
    "best fixed per dataset": "router.baselines.fixed:by_dataset",
    "dataset lookup": "router.baselines.lookup:by_dataset",
    "question-type lookup": "router.baselines.lookup:by_question_type",
    "nearest neighbours": "router.baselines.neighbours:fit",
    "least answer loss (AVG-LLaVA)": "router.baselines.answer_loss:fit",
    "expected resolution (CARES)": "router.baselines.expected_resolution:fit",
    "confidence cascade": "router.baselines.staged:by_confidence",
    "log-probability cascade": "router.baselines.staged:by_logprob",
    "calibrated cascade": "router.baselines.calibrated_cascade:fit",
}
"""Name -> function of `Known` that gives a `Contender`."""


def fit_baselines(known: Known) -> tuple[dict[str, Contender], dict[str, str]]:
    """Fit all baselines.

    Returns:
        Those that can be had, by name, and why the others cannot.
    """
    fitted: dict[str, Contender] = {}
    undefined: dict[str, str] = {}
    for name in BASELINES:
        fit = cast("Callable[[Known], Contender]", load_entry(BASELINES, name, kind="baseline"))
        try:
            fitted[name] = fit(known)
        except NotLearnableError as error:
            undefined[name] = str(error)
    return fitted, undefined
