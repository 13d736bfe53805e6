"""What stands behind the headline numbers: per dataset, per lost question, per prediction.

Notation for shapes: n test examples, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3router.data.log.oracle_log import OracleLog
from m3router.router.estimators.base import Floats
from m3router.router.metrics.calibration_error import expected_calibration_error
from m3router.router.metrics.choices import Choice, regret_rows, taken
from m3router.router.metrics.oracles import oracle_choice
from m3router.router.metrics.paired_bootstrap import SHARE, Columns
from m3router.router.text.expected import expected_text

SHOWN = 24
BINS = 8


def by_dataset(
    log: OracleLog,
    choices: Mapping[str, Choice],
    *,
    costs: Floats,
    best: str,
    reference: str,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Fixed options and policies on every dataset by itself, largest dataset first.

    Args:
        log: the complete test examples only.
        choices: policy name -> option index (n,).
        costs: (n, K) behind the router that the policies belong to; see
            `m3router.router.policies.costs`.
        best: the best fixed option, the same everywhere.
        reference: name of the option that accuracies are compared with.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        Per dataset: "dataset", "n", "groups", "fixed" (option -> estimate), "best_fixed",
        "oracle" with "oracle_cost", and "policies" (name -> "accuracy", "minus_reference",
        "cost", "shares").
    """
    routed = np.asarray(costs)
    datasets, counts = np.unique(log.datasets.astype(str), return_counts=True)
    ordered = [name for _, name in sorted(zip(-counts, datasets, strict=True))]
    return [
        _dataset(
            log,
            str(name),
            choices,
            routed,
            best=best,
            reference=reference,
            draws=draws,
            seed=seed,
        )
        for name in ordered
    ]


def _dataset(
    log: OracleLog,
    name: str,
    choices: Mapping[str, Choice],
    routed: Floats,
    *,
    best: str,
    reference: str,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    rows = np.flatnonzero(log.datasets.astype(str) == name)
    scores, costs, groups = log.scores[rows], log.costs[rows], log.groups[rows].astype(str)
    columns = Columns(groups, draws=draws, seed=seed)
    for k, option in enumerate(log.options):
        columns.add(f"fixed/{option}", scores[:, k], bounds=SHARE)
    oracle = oracle_choice(scores, costs)
    columns.add("oracle", taken(scores, oracle), bounds=SHARE)
    for policy, choice in choices.items():
        columns.add(f"policy/{policy}", taken(scores, choice[rows]), bounds=SHARE)
    against = f"fixed/{reference}"
    return {
        "dataset": name,
        "n": len(rows),
        "groups": len(np.unique(groups)),
        "fixed": {o: columns.estimate(f"fixed/{o}").to_dict() for o in log.options},
        "best_fixed": best,
        "oracle": columns.estimate("oracle").to_dict(),
        "oracle_cost": float(taken(costs, oracle).mean()),
        "policies": {
            policy: {
                "accuracy": columns.estimate(f"policy/{policy}").to_dict(),
                "minus_reference": columns.estimate(f"policy/{policy}", minus=against).to_dict(),
                "cost": float(taken(routed[rows], choice[rows]).mean()),
                "shares": shares(choice[rows], log.options),
            }
            for policy, choice in choices.items()
        },
    }


def shares(choice: Choice, options: Sequence[str]) -> dict[str, float]:
    """How often each option was chosen, in [0, 1]; `choice` is (n,)."""
    counts = np.bincount(choice, minlength=len(options)) / max(len(choice), 1)
    return dict(zip(options, counts.tolist(), strict=True))


def lost_questions(
    log: OracleLog, choice: Choice, p: Floats, *, reference: Choice, limit: int = SHOWN
) -> dict[str, Any]:
    """Which questions routing lost against the reference option, and which it won.

    Args:
        log: the complete test examples only.
        choice: option index (n,).
        p: the router's probabilities (n, K).
        reference: option index (n,) of the reference, as a policy's cap allows it.
        limit: most examples listed; those the router was surest of come first, and every option
            has the same right to be listed.

    Returns:
        "n", "lost" and "won" (counts), "by_dataset" (lost, by name), "where" (per dataset and
        option that was chosen there: "chosen", "lost", "won") and "examples".
    """
    regret = regret_rows(log.scores, choice, reference)
    gain = taken(log.scores, choice) - taken(log.scores, reference)
    lost = np.flatnonzero(regret > 0)
    sure = taken(np.asarray(p), choice)[lost]
    listed = _fairly(lost[np.lexsort((lost, -sure, -regret[lost]))], choice, limit)
    names, counts = np.unique(log.datasets[lost].astype(str), return_counts=True)
    return {
        "n": len(log),
        "lost": int(len(lost)),
        "won": int((gain > 0).sum()),
        "by_dataset": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "where": _where(log, choice, regret > 0, gain > 0),
        "examples": _examples(log, listed, choice, np.asarray(p), reference),
    }


def _fairly(ranked: Choice, choice: Choice, limit: int) -> Choice:
    """At most `limit` of the ranked rows, taking turns between options; ranks stay in order."""
    turn = np.zeros(len(ranked), dtype=np.intp)
    for option in np.unique(choice[ranked]):
        inside = choice[ranked] == option
        turn[inside] = np.arange(inside.sum())
    kept = np.sort(np.argsort(turn, kind="stable")[:limit])
    return ranked[kept]


def _where(
    log: OracleLog, choice: Choice, lost: np.ndarray, won: np.ndarray
) -> list[dict[str, Any]]:
    """How many questions of each dataset were answered, lost and won at each chosen option."""
    datasets = log.datasets.astype(str)
    rows = []
    for name in np.unique(datasets):
        for k in np.unique(choice[datasets == name]):
            there = (datasets == name) & (choice == k)
            counts = {"chosen": there, "lost": there & lost, "won": there & won}
            rows.append(
                {
                    "dataset": str(name),
                    "option": log.options[k],
                    **{key: int(mask.sum()) for key, mask in counts.items()},
                }
            )
    return rows


def _examples(
    log: OracleLog, rows: Choice, choice: Choice, p: Floats, reference: Choice
) -> list[dict[str, Any]]:
    frame = log.select(rows).frame.set_index(["example_id", "scale"]) if len(rows) else None
    listed = []
    for row in rows:
        name, option, against = log.ids[row], log.options[choice[row]], log.options[reference[row]]
        references = log.references[row]
        answers = {} if frame is None else {o: frame.loc[(name, o), "answer"] for o in log.options}
        listed.append(
            {
                "id": name,
                "dataset": str(log.datasets[row]),
                "question": str(log.questions[row]),
                "image": str(log.images[row]),
                "references": None if references is None else list(references),
                "metric": log.metrics[row],
                "expected": expected_text(references),
                "chosen": option,
                "reference": against,
                "sufficiency": float(p[row, choice[row]]),
                "sufficiency_reference": float(p[row, reference[row]]),
                "answer": answers[option],
                "answer_reference": answers[against],
                "score": float(log.scores[row, choice[row]]),
                "score_reference": float(log.scores[row, reference[row]]),
            }
        )
    return listed


def reliability(
    p: Floats, scores: Floats, options: Sequence[str], *, bins: int = BINS
) -> dict[str, Any]:
    """Whether predicted sufficiency comes true (calibration).

    Args:
        p: probabilities (n, K).
        scores: (n, K) in [0, 1].
        options: their names.
        bins: most bins; they hold equally many examples.

    Returns:
        "options": name -> "brier" (mean squared error), "ece" (see
        `m3router.router.metrics.calibration_error`, whose bins are finer) and "bins" to draw
        ("low", "high", "n", "predicted", "observed"); "all": the same over all options together.

        NOTE: Guo et al. (ICML 2017) draw bins of equal width; bins of equal size (Nguyen and
        O'Connor, EMNLP 2015) leave none with a handful of examples.
    """
    p, scores = np.asarray(p, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    each = {
        option: _reliability(p[:, k], scores[:, k], bins=bins) for k, option in enumerate(options)
    }
    return {"options": each, "all": _reliability(p.ravel(), scores.ravel(), bins=bins)}


def _reliability(p: Floats, scores: Floats, *, bins: int) -> dict[str, Any]:
    filled = []
    for inside in np.array_split(np.argsort(p, kind="stable"), bins):
        if len(inside):
            filled.append(
                {
                    "low": float(p[inside].min()),
                    "high": float(p[inside].max()),
                    "n": len(inside),
                    "predicted": float(p[inside].mean()),
                    "observed": float(scores[inside].mean()),
                }
            )
    return {
        "brier": float(np.mean((p - scores) ** 2)),
        "ece": expected_calibration_error(p, scores),
        "bins": filled,
    }
