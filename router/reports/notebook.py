"""What notebooks show of an evaluation beside its numbers."""

from __future__ import annotations

import hashlib

from m3router.router.evaluation.documents import Document
from m3router.router.reports.figures import inlined, still, svg
from m3router.router.reports.plots import pareto

WIDTH = "34em"


def accuracy_against_cost(document: Document) -> str:
    """The report's first plot as an SVG element; "" where there is nothing to draw."""
    if not document.get("rows"):
        return ""
    name = hashlib.sha256(str(document["rows"]).encode()).hexdigest()[:8]
    drawn = inlined(svg(still(pareto(document)), name=name), label="accuracy against cost")
    return f"<div style='max-width:{WIDTH}'>{drawn}</div>"
