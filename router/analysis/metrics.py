"""Metrics of routing as pure functions of arrays.

Notation for shapes: N examples, K options ordered cheapest first by name, P points of a curve.

    scores  (N, K) in [0, 1], what each option scored; 1 is right
    costs   (N, K) what each option costs, per example; need not grow with k
    chance  (N,)   probability in [0, 1) that a blind guess scores 1
    choice  (N,)   index of the option that was taken

Accuracies and costs of points are (P,) arrays. Functions that are undefined on some input
return NaN there, never a made-up number. Nothing here assumes that the finest option is best.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.errors import DataError

Floats = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]
Choice = npt.NDArray[np.intp]


# --- which option suffices -------------------------------------------------------------------


def first_correct(scores: Floats, costs: Floats, *, threshold: float = 0.5) -> Choice:
    """The cheapest option that answers correctly; never correct counts as the cheapest.

    The rule of the M3 paper (arXiv 2405.17430). An answer is correct when its
    score is at least `threshold`, which only matters for soft scores.
    """
    return _cheapest(np.asarray(scores) >= threshold, costs)


def stable(scores: Floats, costs: Floats, *, threshold: float = 0.5) -> Choice:
    """The cheapest option that is correct together with every finer one.

    Robust to lucky guesses. An example whose finest answer is wrong counts as the cheapest, as
    in `first_correct`: no expense makes it right for good.
    """
    right = np.asarray(scores) >= threshold
    onwards = np.logical_and.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    return _cheapest(onwards, costs)


def matches_full(answers: npt.NDArray[np.object_], costs: Floats) -> Choice:
    """The cheapest option whose answer equals the finest option's; needs no ground truth.

    Args:
        answers: (N, K) of strings.
        costs: (N, K).
    """
    answers = np.asarray(answers, dtype=object)
    return _cheapest((answers == answers[:, -1:]).astype(bool), costs)


# --- oracles ---------------------------------------------------------------------------------


def oracle_choice(scores: Floats, costs: Floats) -> Choice:
    """The cheapest option among those with the example's best score (raw oracle).

    For scores of 0 and 1 this is `first_correct`. Its mean score is the most that any router
    can reach on these answers, lucky guesses included.
    """
    scores = np.asarray(scores)
    return _cheapest(scores == scores.max(axis=1, keepdims=True), costs)


def repeated_answers(said: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Where an option (N, K) gives an answer that a cheaper one already gave.

    Args:
        said: (N, K) codes of the answers; equal codes, equal answers.
    """
    said = np.asarray(said)
    earlier = np.tri(said.shape[1], k=-1, dtype=bool)  # (K, K): [k, j] is j < k
    return np.asarray(((said[:, :, None] == said[:, None, :]) & earlier).any(axis=2))


def corrected_oracle_rows(
    scores: Floats,
    costs: Floats,
    chance: Floats,
    *,
    never_known: str = "finest",
    repeats: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """Per-example accuracy (N,) and cost (N,) of the oracle corrected for lucky guesses.

    Model: at option k the answerer either knows (z_k = 1) and is right, or does not know and
    guesses right with probability g; the guesses at different options are independent. Then
    y_k = z_k + (1 - z_k) b_k with b_k ~ Bernoulli(g), and

        u_k = (1 - y_k) / (1 - g)    has  E[u_k | z] = 1 - z_k   ("does not know at k"),
        1 - u_k = (y_k - g) / (1 - g)  has  E[1 - u_k | z] = z_k    ("knows at k").

    Given z the guesses are independent, so products over different k keep this property:
    E[prod_k u_k | z] = 1{knows at no k}. An oracle of knowledge (not of luck) takes the first
    option that knows; where none does, it guesses. It is right with probability
    1 - (1 - g) 1{knows at no k}, so that

        accuracy_i = 1 - (1 - g_i) prod_k u_ik
        cost_i     = sum_k [prod_{j<k} u_ij] (1 - u_ik) cost_ik + [prod_k u_ik] cost_guess

    are unbiased for each example; a single row may lie outside [0, 1], means do so seldom.
    At g = 0 this is the raw oracle.

    NOTE: guesses of one model at neighbouring scales are positively correlated (the same bias
    picks the same wrong or right letter). "Wrong everywhere" is then more frequent than the
    model allows for its number of unknown examples and is weighted by (1 - g)^(1 - K), so the
    correction takes away too much: read the result as a lower end. With `repeats` (see
    `repeated_answers`) an answer that a cheaper option already gave is no new guess, u_k = 1.
    That is unbiased when a guess is repeated whatever it is worth, and fresh guesses never meet by
    chance; where they do meet, as between yes and no, it takes away too little. So the truth lies
    between the two, and both below the raw oracle, provided that what is not known is guessed at
    `chance`. Where some wrong answers can be ruled out, guesses are better than that and both ends
    may lie above the truth: with four choices of which one is ruled out, ends of 0.882 and 0.951
    were found where the truth was 0.810.

    NOTE: for soft scores, where the derivation does not hold, a row is never above the
    example's best score; for scores of 0 and 1 that limit changes nothing.

    Args:
        scores: (N, K).
        costs: (N, K); "first" follows the columns, cheapest first.
        chance: (N,) in [0, 1).
        never_known: where an example that is known nowhere is answered, at the "finest" or
            the "cheapest" option; the M3 paper's raw oracle uses the cheapest.
        repeats: (N, K), where no new guess was made; None counts a guess at every option.

    Raises:
        DataError: when `chance` is outside [0, 1) or misshapen, or `never_known` is unknown.
    """
    scores, costs = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    g = np.asarray(chance, dtype=np.float64)
    if g.shape != scores.shape[:1] or not np.all((g >= 0) & (g < 1)):
        raise DataError(f"Chance must be {len(scores)} probabilities in [0, 1), got {chance!r}.")
    if never_known not in ("finest", "cheapest"):
        raise DataError(f"never_known must be 'finest' or 'cheapest', not {never_known!r}.")
    unknown = (1 - scores) / (1 - g)[:, None]
    if repeats is not None:
        unknown = np.where(repeats, 1.0, unknown)
    unknown_so_far = np.cumprod(unknown, axis=1)  # (N, K): prod_{j<=k} u_j
    before = np.column_stack([np.ones(len(scores)), unknown_so_far[:, :-1]])
    never = unknown_so_far[:, -1]
    accuracy = np.minimum(1 - (1 - g) * never, scores.max(axis=1))
    guess = costs[:, -1] if never_known == "finest" else costs.min(axis=1)
    return accuracy, (before * (1 - unknown) * costs).sum(axis=1) + never * guess


def corrected_oracle(
    scores: Floats, costs: Floats, chance: Floats, *, never_known: str = "finest"
) -> tuple[float, float]:
    """Mean accuracy and cost of `corrected_oracle_rows`, kept within what is possible.

    Where the estimate falls below the best fixed option, which an oracle may always take, that
    option's accuracy and cost are given: the correction says nothing then. Otherwise the cost
    lies between the cheapest and the dearest choice for every example.
    """
    accuracy, cost = corrected_oracle_rows(scores, costs, chance, never_known=never_known)
    best = best_fixed(scores, costs)
    floor = float(np.mean(scores, axis=0)[best])
    if accuracy.mean() < floor:
        return floor, float(np.mean(costs, axis=0)[best])
    least, most = np.min(costs, axis=1).mean(), np.max(costs, axis=1).mean()
    return float(accuracy.mean()), float(np.clip(cost.mean(), least, most))


# --- one policy or option --------------------------------------------------------------------


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


def gap_closed(accuracy: float, best_fixed_accuracy: float, oracle_accuracy: float) -> float:
    """(A_router - A_best fixed) / (A_oracle - A_best fixed).

    NaN when the oracle is not better than the best fixed option: there is no gap to close.
    """
    gap = oracle_accuracy - best_fixed_accuracy
    return float((accuracy - best_fixed_accuracy) / gap) if gap > 1e-12 else float("nan")


# --- curves ----------------------------------------------------------------------------------


def pareto_front(cost: Floats, accuracy: Floats) -> Choice:
    """Indices of the points that no other point dominates, by rising cost.

    A point dominates another when it costs no more, is at least as accurate, and differs in
    one of the two; of equal points the first is kept. O(P log P): after sorting by cost, the
    front is where the running maximum of accuracy rises.
    """
    cost, accuracy = _points(cost, accuracy)
    order = np.lexsort((-accuracy, cost))
    ranked = accuracy[order]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(ranked)[:-1]])
    return order[ranked > before]


def nondecreasing_hull(cost: Floats, accuracy: Floats) -> tuple[Array, Array]:
    """Vertices (cost, accuracy) of the non-decreasing convex hull, by rising cost.

    RouterBench (arXiv 2403.12031): two policies mixed at random reach every point
    between them, so the upper concave envelope is reachable; to the right of the most accurate
    point the hull stays flat, because a higher budget need not be spent.
    """
    front = pareto_front(cost, accuracy)
    hull: list[int] = []
    x, y = np.asarray(cost, dtype=np.float64)[front], np.asarray(accuracy, np.float64)[front]
    for i in range(len(front)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return x[hull], y[hull]


def worth_mixing(scores: Floats, costs: Floats) -> list[int]:
    """The options that the best mixtures mix, by rising mean cost: those on the hull."""
    cost, accuracy = np.mean(costs, axis=0), np.mean(scores, axis=0)
    x, y = nondecreasing_hull(cost, accuracy)
    return [
        int(np.flatnonzero((cost == a) & (accuracy == b))[0]) for a, b in zip(x, y, strict=True)
    ]


def accuracy_at_cost(cost: Floats, accuracy: Floats, at: float) -> float:
    """Accuracy of the non-decreasing hull at mean cost `at`; NaN below its first point."""
    x, y = nondecreasing_hull(cost, accuracy)
    # Means that are equal in theory may differ in their last digits.
    return float(np.interp(at, x, y)) if at >= x[0] * (1 - 1e-9) else float("nan")


def aiq(cost: Floats, accuracy: Floats, *, low: float, high: float) -> float:
    """Average improvement in quality: mean accuracy of the hull over costs in [low, high].

    RouterBench (arXiv 2403.12031), 1 / (high - low) times the integral of the
    non-decreasing convex hull. Below the hull's first point nothing can be answered: 0.

    NOTE: the published code divides by the largest cost instead of (high - low), which differs
    from the paper's formula; this is the paper's.

    Raises:
        DataError: unless low < high.
    """
    if not low < high:
        raise DataError(f"AIQ needs a range of costs, low < high; it got {low} and {high}.")
    x, y = nondecreasing_hull(cost, accuracy)
    start = max(low, x[0])
    if start >= high:
        return 0.0
    inner = x[(x > start) & (x < high)]
    grid = np.concatenate([[start], inner, [high]])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))


def saved_at(cost: Floats, accuracy: Floats, *, target: float, reference_cost: float) -> float:
    """Share of `reference_cost` that the cheapest point reaching accuracy `target` saves.

    With target = 0.99 times the best fixed option's accuracy and its cost as reference, this is
    "tokens saved at 99 % of the best fixed scale"; negative when the point costs more. NaN when
    no point reaches the target.
    """
    cost, accuracy = _points(cost, accuracy)
    reached = cost[accuracy >= target - 1e-12]
    return float(1 - reached.min() / reference_cost) if len(reached) else float("nan")


def _points(cost: Floats, accuracy: Floats) -> tuple[Array, Array]:
    x: Array = np.asarray(cost, dtype=np.float64)
    y: Array = np.asarray(accuracy, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(f"A curve needs (P,) costs and accuracies; got {x.shape} and {y.shape}.")
    if not np.all(np.isfinite(x) & np.isfinite(y)):
        raise DataError("The costs and accuracies of a curve must be finite.")
    return x, y


def _cheapest(allowed: npt.NDArray[np.bool_], costs: Floats) -> Choice:
    """The cheapest allowed option of each row; the cheapest of all where none is allowed."""
    allowed = allowed | ~allowed.any(axis=1, keepdims=True)
    choice: Choice = np.argmin(np.where(allowed, costs, np.inf), axis=1)
    return choice
