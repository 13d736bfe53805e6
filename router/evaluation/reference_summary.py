"""What the reference option is, in numbers and in words: on the calibration split, with intervals.

Notation for shapes: N questions of the calibration split, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3router.router.estimators.base import Floats
from m3router.router.metrics.choices import best_fixed
from m3router.router.metrics.paired_bootstrap import SHARE, Columns
from m3router.router.policies.references import index_of, under_cap
from m3router.router.text.numbers import interval, percent, plain
from m3router.router.text.words import Words

Summary = Mapping[str, Any]
SAME = 1e-9  # relative: costs nearer than this are one cost, rounding apart


def reference_summary(
    scores: Floats,
    costs: Floats,
    groups: np.ndarray,
    *,
    options: Sequence[str],
    named: str | None = None,
    cap: float | None = None,
) -> dict[str, Any]:
    """Which option is the reference, and how it compares with the others.

    Args:
        scores: (N, K) in [0, 1] of the calibration split.
        costs: (N, K).
        groups: (N,) image of each.
        options: their names.
        named: the option that was named as reference; None for the best.
        cap: most cost of any single answer; what stands for an option is then measured.

    Returns:
        JSON-able: "option", "named" (whether it was), "cap", "n", "groups", "options" (how many),
        "accuracy" of the reference with its 95 % interval, "best" and "most_expensive": "option",
        "accuracy" and "cost"; the latter with "share" (the best one's cost as a share of its own)
        and "minus_best" (the difference in accuracy with its interval), and None where all
        options cost the same.

    Raises:
        DataError: for an unknown name, or a cap below the cheapest option of an example.
    """
    scores, costs = under_cap(scores, costs, cap=cap), under_cap(costs, costs, cap=cap)
    best = best_fixed(scores, costs)
    reference = best if named is None else index_of(named, options)
    columns = Columns(groups, draws=200)
    for k in range(len(options)):
        columns.add(str(k), scores[:, k], bounds=SHARE)
    mean = costs.mean(axis=0)

    def told(k: int) -> dict[str, Any]:
        return {
            "option": options[k],
            "accuracy": float(columns.mean(str(k))),
            "cost": float(mean[k]),
        }

    last = int(np.flatnonzero(mean >= mean.max() * (1 - SAME))[-1])
    expensive = None
    if mean.max() - mean.min() > SAME * mean.max():
        expensive = {
            **told(last),
            "share": float(mean[best] / mean[last]),
            "minus_best": columns.estimate(str(last), minus=str(best)).to_dict(),
        }
    return {
        "option": options[reference],
        "named": named is not None,
        "cap": cap,
        "n": len(scores),
        "groups": columns.images,
        "options": len(options),
        "accuracy": columns.estimate(str(reference)).to_dict(),
        "best": told(best),
        "most_expensive": expensive,
    }


def not_the_best(summary: Summary) -> list[str]:
    """A warning, one sentence, where the most expensive option is not the best; else none."""
    best, last = summary["best"], summary["most_expensive"]
    if last is None or last["option"] == best["option"] or last["share"] > 1 - SAME:
        return []
    by, name = last["minus_best"], best["option"]
    within = "" if summary["cap"] is None else f" within the cap of {plain(summary['cap'])}"
    where = f"on the calibration split{within}"
    cost = f"{percent(last['share'], digits=0)} % of its cost"
    right = percent(best["accuracy"])
    if abs(by["value"]) < 1e-12:
        found = f"is no better than {name} {where}: both have {right} % right, {name} at {cost}"
    else:
        spread = f", {interval(by, signed=True)}" if by["low"] is not None else ""
        found = (
            f"is not the best {where}: it has {percent(last['accuracy'])} % right and {name} "
            f"{right} % ({percent(by['value'], signed=True)} points{spread}) at {cost}"
        )
    return [
        f"The most expensive option, {last['option']}, {found}; {summary['option']} is the "
        "reference of losses, regrets and fallbacks, and --reference NAME names another."
    ]


def reference_sentence(summary: Summary, words: Words | None = None) -> str:
    """What the reference option is, why, and how often it is right on the calibration split."""
    asked = (words or Words()).asked(summary["n"], summary["groups"])
    within = "" if summary["cap"] is None else f" within the cap of {plain(summary['cap'])}"
    found = summary["accuracy"]
    spread = f", {interval(found)}" if found["low"] is not None else ""
    if summary["options"] == 1:
        why = "the only one"
    elif summary["named"]:
        why = "as asked"
    else:
        why = f"the best of the calibration split{within}"
        if summary["most_expensive"] is None:
            why += ", where all options cost the same"
    return (
        f"Reference option: {summary['option']}, {why}; {percent(found['value'])} % right{spread} "
        f"on its {summary['n']:,} questions{asked and ' '}{asked}."
    )
