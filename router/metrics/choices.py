"""What choosing options scores and loses: the entries taken, the best fixed option, regret.

Notation for shapes: N examples, K options ordered cheapest first by name.

    scores  (N, K) in [0, 1], what each option scored; 1 is right
    costs   (N, K) what each option costs, per example; need not grow with k
    choice  (N,)   index of the option that was taken

Nothing here assumes that the finest option is best.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]
Choice = npt.NDArray[np.intp]


def taken(values: Floats, choice: Choice) -> Array:
    """The entries (N,) of `values` (N, K) at the chosen options."""
    return np.asarray(values, dtype=np.float64)[np.arange(len(choice)), choice]


def best_fixed(scores: Floats, costs: Floats) -> int:
    """Index of the single option with the highest mean score; ties go to the cheaper one."""
    # sums of the same scores in another order differ by rounding: a tie all the same
    accuracy, cost = np.round(np.mean(scores, axis=0), 12), np.mean(costs, axis=0)
    return int(np.lexsort((cost, -accuracy))[0])


def regret_rows(scores: Floats, choice: Choice, reference: Choice) -> Array:
    """(N,): how much better the reference option (N,) scored than the chosen one, at least 0.

    For scores of 0 and 1 its mean is P(right at the reference option and wrong as routed).
    """
    return np.maximum(taken(scores, reference) - taken(scores, choice), 0.0)
