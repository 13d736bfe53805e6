"""What trackers are told of an evaluation: the verdict, numbers with intervals, and a figure."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from m3router.router.runs.run import Run
from m3router.router.tracking.trackers import Trackers

ENDS = ("low", "high")
"""Of an interval."""


def log_evaluation(trackers: Trackers, run: Run, document: Mapping[str, Any]) -> None:
    """Tell the verdict, the numbers of every row with their intervals, and draw the trade-off."""
    from m3router.router.reports.figures import png, still  # matplotlib is slow to import
    from m3router.router.reports.plots import pareto

    told = document["provenance"]
    trackers.settings(
        {
            "options": document["options"],
            "cost_unit": document["cost_unit"],
            "reference": document["reference"]["option"],
            "best_fixed": document["best_fixed"],
            "model": told["log"].get("model"),
            "estimator": told["router"].get("estimator"),
            "examples": document["n"],
            "bootstrap": document["bootstrap"],
            "versions": told["versions"],
        }
    )
    trackers.text("verdict", document["verdict"]["text"])
    for row in document["rows"]:
        trackers.metrics(dict(estimates(f"{row['kind']}/{row['name']}", row)))
    trackers.metrics(dict(estimates("curve", document["metrics"])))
    trackers.metrics({"curve/ece": document["metrics"]["ece"]})
    with Image.open(io.BytesIO(png(still(pareto(document))))) as figure:
        trackers.figure("trade-off", figure.convert("RGB"))


def estimates(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Name and value of every estimate in a mapping, and of the ends of its interval.

    >>> dict(estimates("row", {"cost": {"value": 2.0, "low": 1.0, "high": 3.0}, "name": "a"}))
    {'row/cost': 2.0, 'row/cost/low': 1.0, 'row/cost/high': 3.0}
    """
    for name, one in values.items():
        if isinstance(one, Mapping) and "value" in one:
            yield f"{prefix}/{name}", one["value"]
            for end in ENDS:
                yield f"{prefix}/{name}/{end}", one.get(end)
