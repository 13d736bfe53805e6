"""The oracle under each sufficiency rule: what it takes, what it scores, corrected for chance.

Notation for shapes: n complete examples, K options, cheapest first by name.

    scores  (n, K) in [0, 1]
    costs   (n, K)
    said    (n, K) codes of the answers: equal codes, equal answers
    chance  (n,) in [0, 1)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.registry import unknown_name
from router.analysis import metrics
from router.analysis.metrics import Array, Choice, Floats
from router.rules import KNOWN_FROM_FIRST_RIGHT
from router.rules import RULES as TRAINED

RULES = tuple(rule for rule in TRAINED if rule not in KNOWN_FROM_FIRST_RIGHT)
"""The others choose as `first_correct` does."""
NEVER = -1
RIGHT = 0.5
"""An answer with at least this score counts as right; it only matters for soft scores."""

Codes = npt.NDArray[np.integer]

ASSUMES = (
    "Corrected for chance: the same, were a right guess worth nothing when choosing. It assumes "
    "that what is not known is guessed at the stated chance, independently at each scale. Guesses "
    "of one model are alike, so that it takes away too much; where wrong answers can be ruled out, "
    "guesses are better than chance, and it takes away too little. Left out where it is not above "
    "the best fixed scale."
)


def check_rule(rule: str) -> str:
    """Give the rule back.

    Raises:
        DataError: There is no such rule.
    """
    if rule not in RULES:
        raise DataError(unknown_name("rule", rule, RULES))
    return rule


def smallest_sufficient(rule: str, scores: Floats, costs: Floats, said: Codes) -> Choice:
    """The cheapest option (n,) that suffices by a rule; `NEVER` where none does."""
    right = np.asarray(scores) >= RIGHT
    if rule == "matches_full":
        return metrics.matches_full(np.asarray(said, dtype=object), costs)
    if rule == "stable":
        return np.where(right[:, -1], metrics.stable(scores, costs, threshold=RIGHT), NEVER)
    return np.where(right.any(axis=1), metrics.first_correct(scores, costs, threshold=RIGHT), NEVER)


def oracle_rows(rule: str, scores: Floats, costs: Floats, said: Codes) -> tuple[Array, Array]:
    """Score (n,) and cost (n,) of the oracle that takes the smallest sufficient option.

    Where none suffices it takes the cheapest. For `first_correct` it takes the cheapest of the
    example's best scores, as the evaluation does; for scores of 0 and 1 that is the same.
    """
    if rule == "first_correct":
        choice = metrics.oracle_choice(scores, costs)
    else:
        choice = smallest_sufficient(rule, scores, costs, said)
        choice = np.where(choice == NEVER, np.argmin(costs, axis=1), choice)
    return metrics.taken(scores, choice), metrics.taken(costs, choice)


def corrected_rows(
    rule: str,
    scores: Floats,
    costs: Floats,
    chance: Floats,
    *,
    repeats: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Array] | None:
    """Score (n,) and cost (n,) of the oracle of knowledge, unbiased for each example.

    Without `repeats` a lower end; with them, for `first_correct`, the other end: see
    `router.analysis.metrics.corrected_oracle_rows`.

    None for `matches_full`, which does not look at what is right when it chooses: luck is not
    what it selects by.
    """
    if rule == "matches_full":
        return None
    if rule == "stable":
        return stable_rows(scores, costs, chance)
    return metrics.corrected_oracle_rows(
        scores, costs, chance, never_known="cheapest", repeats=repeats
    )


def stable_rows(scores: Floats, costs: Floats, chance: Floats) -> tuple[Array, Array]:
    """`router.analysis.metrics.corrected_oracle_rows` for the rule `stable`; same model.

    With u_k and z_k as there, S_k = prod_{j >= k} (1 - u_j) has E[S_k | z] = 1{knows at k and at
    all finer ones}. The oracle takes the first such option, and the cheapest, c, where it does
    not know at the finest, K. It is right when it knows at K, and else as option c is, so

        accuracy_i = 1 - (1 - g_i) u_ic u_iK        (c != K; without u_ic where c = K)
        cost_i     = sum_k (S_ik - S_i,k-1) cost_ik + (1 - S_iK) cost_ic,    S_i0 = 0.

    NOTE: for soft scores a row is never above the better score of options c and K.
    """
    scores, costs = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    g = np.asarray(chance, dtype=np.float64)
    unknown = (1 - scores) / (1 - g)[:, None]
    onwards = np.cumprod((1 - unknown)[:, ::-1], axis=1)[:, ::-1]  # (n, K): S_k
    first = np.diff(onwards, axis=1, prepend=0.0)
    cheapest = np.argmin(costs, axis=1)
    elsewhere = cheapest != scores.shape[1] - 1
    other = np.where(elsewhere, metrics.taken(unknown, cheapest), 1.0)
    best = np.maximum(metrics.taken(scores, cheapest), scores[:, -1])
    accuracy = np.minimum(1 - (1 - g) * other * unknown[:, -1], best)
    cost = (first * costs).sum(axis=1) + (1 - onwards[:, -1]) * metrics.taken(costs, cheapest)
    return accuracy, cost
