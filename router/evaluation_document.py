"""An evaluation as it is kept: a JSON document that can be read as a table and as a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from m3router.data.cards import Html, card, soft, strong, table
from m3router.data.registry import load
from m3router.router.text.numbers import interval, number, percent

_DRAWN_BY = "m3router.router.reports.notebook:accuracy_against_cost"
"""Reports know evaluations; evaluations do not know reports, and so ask for one by its name."""
_NAMES, _ENDS = ("method", "kind"), ("_low", "_high")
_KNOWN_KINDS = ("fixed", "best_fixed", "router", "oracle", "oracle_corrected")


class Evaluation(dict[str, Any]):
    """What a router and its policies reach on the test split, beside what they must beat.

    A dictionary, as :func:`m3router.evaluate` describes it, with what is read of it most.

    >>> Evaluation({"verdict": {"kind": "routing pays", "text": "Routing pays."}}).pays
    True
    """

    @property
    def verdict(self) -> str:
        """Whether routing pays here, or why not, in a sentence or two with the numbers."""
        return str(self.get("verdict", {}).get("text", ""))

    @property
    def pays(self) -> bool:
        """Whether the verdict is that routing pays."""
        return bool(self.get("verdict", {}).get("kind") == "routing pays")

    def to_frame(self) -> pd.DataFrame:
        """Every method as a row of numbers.

        A method that is measured at several budgets or policies has a row for each.

        Returns:
            Columns ``method`` (such as ``"fixed 144"``, ``"router, budget 36"``,
            ``"nearest neighbours, budget 36"``), ``kind`` (``fixed``, ``router``, ``best_fixed``,
            ``oracle``, ``ablation``, ``escalation``, ``baseline``), then each metric, such as
            ``accuracy`` and ``cost``, with the ends of its interval as ``accuracy_low`` and
            ``accuracy_high``: floats, NaN where unknown. Accuracies and their differences are
            shares in [0, 1], costs are in :attr:`cost_unit`.
        """
        rows = [{"method": name, "kind": kind, **_numbers(row)} for name, kind, row in self._rows()]
        found = dict.fromkeys(name for row in rows for name in row)
        first = [f"{name}{end}" for name in ("accuracy", "cost") for end in ("", *_ENDS)]
        numbers = dict.fromkeys([*first, *(one for one in found if one not in _NAMES)])
        frame = pd.DataFrame(rows, columns=[*_NAMES, *numbers])
        return frame.astype(dict.fromkeys(numbers, "float64"))

    @property
    def cost_unit(self) -> str:
        """What costs count."""
        return str(self.get("cost_unit", ""))

    def _rows(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for row in self.get("rows", ()):
            name, kind = str(row["name"]), str(row["kind"])
            told = f"{kind}, {name}" if kind == "router" else name
            yield (f"fixed {name}" if kind == "fixed" else told), kind, row
        for name, method in self.get("ablations", {}).items():
            yield from _method(f"router, {name}", "ablation", method)
        yield from _method("router + escalation", "escalation", self.get("escalation", {}))
        for name, method in self.get("baselines", {}).items():
            yield from _method(name, "baseline", method)

    def __repr__(self) -> str:
        """The verdict, and how much was compared."""
        return f"Evaluation({self.verdict!r}, {sum(1 for _ in self._rows())} rows)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the main rows, and accuracy against cost."""
        rows = [
            [
                strong(name) if kind == "router" else name,
                percent(row["accuracy"]["value"]),
                interval(row["accuracy"]),
                number(row["cost"]["value"]),
            ]
            for name, kind, row in self._rows()
            if kind in _KNOWN_KINDS and row.get("accuracy") and row.get("cost")
        ]
        asked = self.get("n", {}).get("test")
        return card(
            "Evaluation",
            strong(self.verdict),
            *self.get("warnings", ()),
            table(["", "accuracy %", "interval", f"mean {self.cost_unit}"], rows),
            Html(load(_DRAWN_BY)(self)),
            soft(f"{asked:,} held-out questions; .to_frame() has all methods") if asked else "",
        )


def _method(name: str, kind: str, method: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The rows of a method that has several, or one as it is."""
    rows = method.get("rows") or ()
    for row in rows:
        yield (f"{name}, {row['name']}" if method.get("metrics") else name), kind, row


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, estimate in row.items():
        if isinstance(estimate, Mapping) and {"value", "low", "high"} <= set(estimate):
            found[name] = estimate["value"]
            found |= {f"{name}{end}": estimate[end[1:]] for end in _ENDS}
    return found
