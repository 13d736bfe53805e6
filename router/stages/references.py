"""The stage that says which option is the reference: nothing is made, nothing is written."""

from __future__ import annotations

from typing import Any

from m3router.data.errors import DataError
from m3router.data.log.parts import part_rows
from m3router.router.evaluation.reference_summary import reference_summary
from m3router.router.policies.costs import routed_costs
from m3router.router.runs.run import AnyRun, as_run


def reference_stage(
    run: AnyRun, *, reference: str | None = None, cap: float | None = None
) -> dict[str, Any]:
    """Which option losses, regrets and fallbacks are against, and how good it is.

    Args:
        run: must hold a trained router.
        reference: name of the option; None for the best of the calibration split.
        cap: most cost of any single answer.

    Returns:
        See `m3router.router.evaluation.reference_summary.reference_summary`.

    Raises:
        DataError: when something is missing or damaged, the calibration split is empty, the option
            unknown, or the cap below the cheapest option of an example.
        MismatchError: when router, log and split do not belong together.
    """
    run = as_run(run).opened()
    router, log = run.router(), run.log()
    rows = part_rows(log, run.split(log), "calibrate", gaps=router.metadata["gaps"])
    if not len(rows):
        raise DataError("The calibration split has no complete example. Label more questions.")
    return reference_summary(
        log.scores[rows],
        routed_costs(log.costs[rows], router.blocks),
        log.groups[rows],
        options=log.options,
        named=reference,
        cap=cap,
    )
