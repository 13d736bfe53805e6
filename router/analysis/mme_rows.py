"""MME's published scores as rows of a table, to be read and in full precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.scoring.mme import COGNITION, PERCEPTION
from router.analysis.inspected import MmeScore
from router.analysis.tables import MISSING


def mme_rows(scores: Sequence[MmeScore]) -> list[list[str]]:
    """Subtasks down and last their sums, options across; none where there is no score."""
    sums = [one.sums for one in scores]
    rows = [
        [name, *(_shown(one.subtasks.get(name)) for one in sums)]
        for name in (*PERCEPTION, *COGNITION)
        if any(name in one.subtasks for one in sums)
    ]
    for name, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        there = max((len(set(names) & set(one.subtasks)) for one in sums), default=0)
        if there:
            label = f"{name}, {there} of {len(names)}"
            rows.append([label, *(_shown(getattr(one, name)) for one in sums)])
    if any(one.left_out for one in sums):
        rows.append(["images left out", *(f"{one.left_out:,}" for one in sums)])
    return rows


def mme_records(scores: Sequence[MmeScore]) -> list[dict[str, Any]]:
    """One record per option and score."""
    return [
        {"scale": one.scale, "score": name, "value": value}
        for one in scores
        for name, value in (
            *one.sums.subtasks.items(),
            ("perception", one.sums.perception),
            ("cognition", one.sums.cognition),
        )
        if value is not None
    ]


def _shown(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"
