"""What a router learns from: how much its curve loses when features are mixed up.

Permutation importance (Breiman, Machine Learning 45, 2001; model-agnostic as in Fisher, Rudin and
Dominici, JMLR 20, 2019): a block's values are exchanged between examples, all else stays, and
the drop in AIQ is what the router took from them. Values that all questions about an image
share are exchanged between whole images, so that no image looks different to its own
questions. What two blocks both know counts for neither: a drop near 0 does not say that a block
is useless.

Notation for shapes: n examples, K options, D features, P prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics.curves import curves
from m3router.router.metrics.paired_bootstrap import Columns, Pair

REPEATS = 5
PLACES = 64
"""Places of each curve: fewer than an evaluation looks at, as there are many curves."""

Predict = Callable[[Floats], npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The examples on which importance is measured: not the test split.

    Attributes:
        X: (n, D) features.
        scores: (n, K) in [0, 1].
        costs: (n, K) of the options by themselves.
        behind: (n, K) of the options behind the router, as choices go by; more after a peek.
        groups: (n,) image of each.
        paid: (n, K) what is paid behind it, where that is something else; None where it is not.
    """

    X: Floats
    scores: Floats
    costs: Floats
    behind: Floats
    groups: npt.NDArray[Any]
    paid: Floats | None = None


def permuted_rows(
    values: Floats, groups: npt.NDArray[Any], generator: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Rows (n,) to take `values` (n, d) from: a permutation of images, or of examples.

    Whole images change places when all examples of each image have the same values.
    """
    first, member = _images(groups)
    if by_image(values, groups):
        return first[generator.permutation(len(first))[member]]
    return generator.permutation(len(values))


def by_image(values: Floats, groups: npt.NDArray[Any]) -> bool:
    """Whether all examples of each image have the same `values` (n, d)."""
    first, member = _images(groups)
    return bool(np.array_equal(values, values[first[member]]))


def importance(
    predict: Predict,
    examples: Examples,
    parts: Mapping[str, npt.NDArray[np.intp]],
    *,
    repeats: int = REPEATS,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Drop in AIQ when each set of columns is mixed up.

    Args:
        predict: X (n, D) -> probabilities (n, K).
        examples: where to measure.
        parts: name -> columns of X, exchanged together.
        repeats: permutations per part; their mean drop counts.
        draws: bootstrap draws of whole images.
        seed: of permutations and draws.

    Returns:
        "aiq" (estimate, untouched) and "parts": name -> "drop" (estimate, in [0, 1] as AIQ is),
        "by_picture" (whether whole images changed places) and "columns" (how many).
    """
    columns = Columns(examples.groups, draws=draws, seed=seed)

    def add(name: str, p: Floats) -> str:
        prices = curve_prices(p, examples.behind, points=PLACES)
        cost, accuracy = curve_rows(p, examples.scores, examples.behind, prices, paid=examples.paid)
        columns.add(f"cost/{name}", cost)
        columns.add(f"accuracy/{name}", accuracy)
        return name

    whole = add("untouched", predict(examples.X))
    names: dict[str, list[str]] = {}
    for number, (name, taken) in enumerate(parts.items()):
        generator = np.random.default_rng([seed, number])
        names[name] = []
        for repeat in range(repeats):
            mixed = examples.X.copy()
            rows = permuted_rows(examples.X[:, taken], examples.groups, generator)
            mixed[:, taken] = examples.X[rows][:, taken]
            names[name].append(add(f"{name}/{repeat}", predict(mixed)))
    means = examples.costs.mean(axis=0)
    low, high = float(means.min()), float(means.max())

    def area(name: str) -> Pair:
        cost, accuracy = columns.pair(f"cost/{name}"), columns.pair(f"accuracy/{name}")
        return cost.then(lambda x, y: curves(x, y).area(low, high), accuracy)

    untouched = area(whole)

    def drop(name: str) -> Pair:
        mixed = [area(one) for one in names[name]]
        return untouched.then(lambda known, *lost: known - sum(lost) / len(lost), *mixed)

    return {
        "aiq": columns.estimated(untouched).to_dict(),
        "parts": {
            name: {
                "drop": columns.estimated(drop(name)).to_dict(),
                "by_picture": by_image(examples.X[:, taken], examples.groups),
                "columns": len(taken),
            }
            for name, taken in parts.items()
        },
    }


def strongest(weights: Floats, *, count: int) -> npt.NDArray[np.intp]:
    """The `count` features with the largest positive weights (D,), largest first."""
    order = np.argsort(-np.asarray(weights), kind="stable")[:count]
    return order[np.asarray(weights)[order] > 0]


def _images(groups: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The first row (G,) of each image, and each row's image (n,) among them."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    return first, member.reshape(-1)
