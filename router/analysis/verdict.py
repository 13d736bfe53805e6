"""The result of an evaluation in plain sentences."""

from __future__ import annotations

from router.analysis import tables
from router.analysis.comparison import KEPT
from router.analysis.tables import Document


def verdict(document: Document) -> list[str]:
    """The result in plain sentences, honest where nothing was gained."""
    rows = {row["kind"]: row for row in document["rows"]}
    best, oracle = rows["best_fixed"], rows["oracle_corrected"]
    unit = document["cost_unit"]
    saved = document["metrics"]["saved_at_99"]
    goal, share = saved["row"], saved["calibrated"]
    sentences = []
    if saved["policy"]["fallback"]:
        sentences.append(
            "No policy kept 99 % of the best fixed accuracy on the calibrate part, so that policy "
            "falls back to the finest option."
        )
    elif share["value"] is not None:
        sentences.append(
            f"Told to keep 99 % of the best fixed option's accuracy, the router answers "
            f"{tables.percent(goal['accuracy']['value'])} % right "
            f"({tables.percent(goal['minus_best_fixed']['value'], signed=True)} points, 95 % "
            f"interval {tables.interval(goal['minus_best_fixed'], signed=True)}) with "
            f"{tables.number(goal['cost']['value'])} {unit} per answer instead of "
            f"{tables.number(best['cost']['value'])}: {tables.percent(share['value'])} % saved "
            f"({tables.interval(share)})."
        )
        if goal["accuracy"]["value"] < KEPT * best["accuracy"]["value"]:
            sentences.append("That is less accuracy than it was told to keep.")
    gap = oracle["minus_best_fixed"]["value"]
    if gap is not None and gap <= 0.005:
        sentences.append(
            "By the chance-corrected oracle, which is a lower end, choosing perfectly would gain "
            "nothing over the best fixed option in accuracy here: what is left to win is cost."
        )
    gain = document["metrics"]["aiq_minus_fixed"]
    if gain["low"] is not None and gain["high"] is not None and gain["low"] <= 0 <= gain["high"]:
        sentences.append(
            "Over all budgets together, the router's curve is not clearly better than mixing "
            f"fixed options (difference {tables.percent(gain['value'], signed=True)} points, "
            f"{tables.interval(gain, signed=True)})."
        )
    return sentences
