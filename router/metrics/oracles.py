"""Which option suffices by a rule, and the oracle that takes it, raw and corrected for chance.

Notation for shapes: N examples, K options ordered cheapest first by name.

    scores  (N, K) in [0, 1], what each option scored; 1 is right
    costs   (N, K) what each option costs, per example; need not grow with k
    said    (N, K) codes of the answers: equal codes, equal answers
    chance  (N,)   probability in [0, 1) that a blind guess scores 1
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.router.metrics.choices import Array, Choice, Floats, taken

RULES = ("first_correct", "stable", "matches_full")
"""Sufficiency rules with an oracle of their own; the rule `reached` chooses as `first_correct`."""
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


def oracle_choice(scores: Floats, costs: Floats) -> Choice:
    """The cheapest option among those with the example's best score (raw oracle).

    For scores of 0 and 1 this is `first_correct`. Its mean score is the most that any router
    can reach on these answers, lucky guesses included.
    """
    scores = np.asarray(scores)
    return _cheapest(scores == scores.max(axis=1, keepdims=True), costs)


def repeated_answers(
    said: npt.NDArray[np.integer], costs: Floats | None = None
) -> npt.NDArray[np.bool_]:
    """Where an option (N, K) gives an answer that a cheaper one already gave.

    Args:
        said: (N, K) codes of the answers; equal codes, equal answers.
        costs: (N, K), which say what is cheaper, ties by rank; None for the rank alone.
    """
    said = np.asarray(said)
    earlier = np.tri(said.shape[1], k=-1, dtype=bool)  # (K, K): [k, j] is j < k
    if costs is not None:
        here, there = np.asarray(costs)[:, :, None], np.asarray(costs)[:, None, :]
        earlier = (there < here) | ((there == here) & earlier)
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
    `repeated_answers`) an answer that a cheaper option already gave is not a new guess, u_k = 1.
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
        costs: (N, K); "first" is the cheapest for the example, ties by rank.
        chance: (N,) in [0, 1).
        never_known: where an example that is known nowhere is answered, at the "finest" or
            the "cheapest" option; the M3 paper's raw oracle uses the cheapest.
        repeats: (N, K), where no new guess was made; None counts a guess at every option.

    Raises:
        DataError: when `chance` is outside [0, 1) or misshapen, or `never_known` is unknown.
    """
    scores, costs, g = _checked(scores, costs, chance)
    if never_known not in ("finest", "cheapest"):
        raise DataError(f"never_known must be 'finest' or 'cheapest', not {never_known!r}.")
    accuracy, weights = _knowing(
        scores, costs, g, cheapest=never_known == "cheapest", repeats=repeats
    )
    return accuracy, (weights * costs).sum(axis=1)


def _checked(scores: Floats, costs: Floats, chance: Floats) -> tuple[Array, Array, Array]:
    known: Array = np.asarray(scores, dtype=np.float64)
    paid: Array = np.asarray(costs, dtype=np.float64)
    g: Array = np.asarray(chance, dtype=np.float64)
    if g.shape != known.shape[:1] or not np.all((g >= 0) & (g < 1)):
        raise DataError(f"Chance must be {len(known)} probabilities in [0, 1), got {chance!r}.")
    return known, paid, g


def _knowing(
    scores: Floats,
    costs: Floats,
    g: Floats,
    *,
    cheapest: bool,
    repeats: npt.NDArray[np.bool_] | None,
) -> tuple[Array, Array]:
    """`corrected_oracle_rows`: accuracy (N,), and how much of each option (N, K) is taken."""
    unknown = (1 - scores) / (1 - g)[:, None]
    if repeats is not None:
        unknown = np.where(repeats, 1.0, unknown)
    order = np.argsort(costs, axis=1, kind="stable")
    unknown = np.take_along_axis(unknown, order, axis=1)
    unknown_so_far = np.cumprod(unknown, axis=1)  # (N, K): prod_{j<=k} u_j
    before = np.column_stack([np.ones(len(scores)), unknown_so_far[:, :-1]])
    never = unknown_so_far[:, -1]
    accuracy = np.minimum(1 - (1 - g) * never, scores.max(axis=1))
    weights = np.zeros_like(unknown)
    np.put_along_axis(weights, order, before * (1 - unknown), axis=1)
    guess = order[:, 0] if cheapest else np.full(len(scores), scores.shape[1] - 1)
    weights[np.arange(len(scores)), guess] += never
    return accuracy, weights


def answer_codes(answers: np.ndarray) -> Codes:
    """Equal codes for answers (N, K) that are equal when trimmed and in one case; -1 for None.

    As the rule `matches_full` compares them.
    """
    number: dict[str, int] = {}
    codes = [
        -1 if said is None else number.setdefault(said.strip().casefold(), len(number))
        for said in answers.ravel()
    ]
    return np.array(codes, dtype=np.int64).reshape(answers.shape)


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
        return matches_full(np.asarray(said, dtype=object), costs)
    if rule == "stable":
        return np.where(right[:, -1], stable(scores, costs, threshold=RIGHT), NEVER)
    return np.where(right.any(axis=1), first_correct(scores, costs, threshold=RIGHT), NEVER)


def oracle_rows(rule: str, scores: Floats, costs: Floats, said: Codes) -> tuple[Array, Array]:
    """Score (n,) and cost (n,) of the oracle that takes the smallest sufficient option.

    Where none suffices it takes the cheapest. For `first_correct` it takes the cheapest of the
    example's best scores, as the evaluation does; for scores of 0 and 1 that is the same.
    """
    choice = choice_by(rule, scores, costs, said)
    return taken(scores, choice), taken(costs, choice)


def choice_by(rule: str, scores: Floats, costs: Floats, said: Codes) -> Choice:
    """The option (n,) that `oracle_rows` takes."""
    if rule == "first_correct":
        return oracle_choice(scores, costs)
    choice = smallest_sufficient(rule, scores, costs, said)
    return np.where(choice == NEVER, np.argmin(costs, axis=1), choice)


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
    `corrected_oracle_rows`.

    None for `matches_full`, which does not look at what is right when it chooses: luck is not
    what it selects by.
    """
    found = corrected_weights(rule, scores, costs, chance, repeats=repeats)
    if found is None:
        return None
    accuracy, weights = found
    return accuracy, (weights * np.asarray(costs, dtype=np.float64)).sum(axis=1)


def corrected_weights(
    rule: str,
    scores: Floats,
    costs: Floats,
    chance: Floats,
    *,
    repeats: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Array] | None:
    """Score (n,) as `corrected_rows`, and how much of each option (n, K) is taken.

    Weights sum to 1 for each example, though a single one may be negative. Whatever options use,
    their weighted sum is what this oracle uses, unbiased.
    """
    if rule == "matches_full":
        return None
    if rule == "stable":
        return _stable(scores, costs, chance)
    scores, costs, g = _checked(scores, costs, chance)
    return _knowing(scores, costs, g, cheapest=True, repeats=repeats)


def stable_rows(scores: Floats, costs: Floats, chance: Floats) -> tuple[Array, Array]:
    """`corrected_oracle_rows` for the rule `stable`; same model.

    With u_k and z_k as there, S_k = prod_{j >= k} (1 - u_j) has E[S_k | z] = 1{knows at k and at
    all finer ones}. The oracle takes the first such option, and the cheapest, c, where it does
    not know at the finest, K. It is right when it knows at K, and else as option c is, so

        accuracy_i = 1 - (1 - g_i) u_ic u_iK        (c != K; without u_ic where c = K)
        cost_i     = sum_k (S_ik - S_i,k-1) cost_ik + (1 - S_iK) cost_ic,    S_i0 = 0.

    NOTE: for soft scores a row is never above the better score of options c and K.
    """
    accuracy, weights = _stable(scores, costs, chance)
    return accuracy, (weights * np.asarray(costs, dtype=np.float64)).sum(axis=1)


def _stable(scores: Floats, costs: Floats, chance: Floats) -> tuple[Array, Array]:
    """`stable_rows`: accuracy (n,), and how much of each option (n, K) is taken."""
    scores, costs = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    g = np.asarray(chance, dtype=np.float64)
    unknown = (1 - scores) / (1 - g)[:, None]
    onwards = np.cumprod((1 - unknown)[:, ::-1], axis=1)[:, ::-1]  # (n, K): S_k
    weights = np.diff(onwards, axis=1, prepend=0.0)
    cheapest = np.argmin(costs, axis=1)
    elsewhere = cheapest != scores.shape[1] - 1
    other = np.where(elsewhere, taken(unknown, cheapest), 1.0)
    best = np.maximum(taken(scores, cheapest), scores[:, -1])
    accuracy = np.minimum(1 - (1 - g) * other * unknown[:, -1], best)
    weights[np.arange(len(scores)), cheapest] += 1 - onwards[:, -1]
    return accuracy, weights


def _cheapest(allowed: npt.NDArray[np.bool_], costs: Floats) -> Choice:
    """The cheapest allowed option of each row; the cheapest of all where none is allowed."""
    allowed = allowed | ~allowed.any(axis=1, keepdims=True)
    choice: Choice = np.argmin(np.where(allowed, costs, np.inf), axis=1)
    return choice
