"""A world whose answers say how sure they are: being right and sounding sure go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import Split, split_by_group
from m3router.router.features.table import FeatureTable

TOKENS = np.array([1.0, 9.0, 36.0, 144.0, 576.0])
DATASETS = ("easy", "plain", "hard")
QUESTIONS = ("How many shapes are there?", "What does the sign say?", "Is there a dog?")


@dataclass(frozen=True)
class Answered:
    log: OracleLog
    features: FeatureTable
    split: Split
    p: np.ndarray


def answered_world(
    n: int = 900, *, seed: int = 0, options: int = 5, news: float = 1.0, **columns: Any
) -> Answered:
    """N questions, two to an image, in three datasets.

    Args:
        n: questions.
        seed: of everything.
        options: K, the last ones of the usual grid.
        news: how much an answer's confidence says about whether it is right, 0 for nothing.
        columns: of the log, (N, K) each or one value, in place of the usual ones.
    """
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, 3))
    which = generator.integers(0, 3, n)
    need = x[:, 0] + 1.2 * generator.standard_normal(n) + 1.5 * (which - 1)
    detail = np.linspace(-2, 2.5, 5)[-options:]
    chances = 1 / (1 + np.exp(-2 * (detail - need[:, None])))
    scores = (generator.random((n, options)) < chances).astype(float)
    noise = generator.standard_normal((n, options))
    sure = 1 / (1 + np.exp(-(0.5 + 2.5 * news * (2 * scores - 1) + noise)))
    values = {"score": scores, "confidence": sure, "logprob": 1.5 * np.log(sure), **columns}
    p = 1 / (1 + np.exp(-1.2 * (detail - x[:, :1] - 1.5 * (which - 1)[:, None])))
    return Answered(*tables(values, which, x, options=options), p=p)


def tables(
    values: dict[str, Any], which: np.ndarray, x: np.ndarray, *, options: int
) -> tuple[OracleLog, FeatureTable, Split]:
    """Log, features and split of these columns."""
    n = len(which)
    names = [str(int(tokens)) for tokens in TOKENS[-options:]]
    groups = [f"g{i // 2}" for i in range(n)]
    wide = {name: np.broadcast_to(value, (n, options)).ravel() for name, value in values.items()}
    frame = pd.DataFrame(
        {
            "example_id": np.repeat([f"e{i}" for i in range(n)], options),
            "group": np.repeat(groups, options),
            "dataset": np.repeat([DATASETS[i] for i in which], options),
            "question": np.repeat([QUESTIONS[i] for i in which], options),
            "image": np.repeat([f"{group}.png" for group in groups], options),
            "scale": names * n,
            "cost": np.tile(TOKENS[-options:], n),
            "chance": 0.0,
            **wide,
        }
    )
    log = OracleLog(
        frame, options=names, cost_unit="visual tokens", metadata={"model": "simulated"}
    )
    onehot = np.eye(3)[which]
    features = FeatureTable(ids=log.ids, blocks={"image": x, "question": onehot})
    return log, features, split_by_group(log.groups, seed=0)


def with_scores(log: OracleLog, scores: np.ndarray) -> OracleLog:
    """The same log with other scores (N, K)."""
    frame = log.frame
    frame["score"] = scores.ravel()
    return OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
