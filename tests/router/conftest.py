"""A small world whose truth is known: who needs detail depends on the image and the question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import Split, split_by_group
from m3router.router.features.table import FeatureTable

# Reproducible, and without a deadline that a busy machine would miss.
settings.register_profile("router", derandomize=True, deadline=None)
settings.load_profile("router")

TOKENS = (1.0, 9.0, 36.0, 144.0, 576.0)


@dataclass(frozen=True)
class World:
    log: OracleLog
    features: FeatureTable
    split: Split


def log_of(
    scores: np.ndarray,
    *,
    groups: list[str] | None = None,
    costs: np.ndarray | None = None,
    chance: float = 0.0,
) -> OracleLog:
    """An oracle log from scores (N, K); NaN becomes an error record."""
    n, k = scores.shape
    names = [str(int(tokens)) for tokens in TOKENS[:k]]
    costs = np.tile(TOKENS[:k], (n, 1)) if costs is None else costs
    groups = groups or [f"g{i}" for i in range(n)]
    failed = np.isnan(scores).ravel()
    frame = pd.DataFrame(
        {
            "example_id": np.repeat([f"e{i}" for i in range(n)], k),
            "group": np.repeat(groups, k),
            "dataset": "world",
            "question": "how many?",
            "image": np.repeat([f"{group}.png" for group in groups], k),
            "scale": names * n,
            "cost": costs.ravel(),
            "score": scores.ravel(),
            "chance": chance,
            "error": np.where(failed, "out of memory", None),
        }
    )
    return OracleLog(
        frame, options=names, cost_unit="visual tokens", metadata={"model": "simulated"}
    )


def make_world(
    n: int = 600, *, width: int = 6, seed: int = 0, chance: float = 0.0, per_group: int = 2
) -> World:
    """N questions on N / per_group images; both decide how much detail is needed.

    On some images fine detail distracts, so that no fixed scale is as good as the oracle.
    """
    generator = np.random.default_rng(seed)
    member = np.repeat(np.arange(n // per_group), per_group)
    image = generator.standard_normal((n // per_group, width))[member]
    question = generator.standard_normal((n, width))
    need = 1.5 * image[:, 0] + 1.5 * question[:, 0]
    detail = np.linspace(-2.5, 2.5, len(TOKENS))
    knows = generator.random((n, len(TOKENS))) < 1 / (1 + np.exp(-4 * (detail - need[:, None])))
    knows[image[:, 1] > 1, 3:] = False
    lucky = generator.random(knows.shape) < chance
    log = log_of((knows | lucky).astype(float), groups=[f"g{g}" for g in member], chance=chance)
    features = FeatureTable(
        ids=log.ids,
        blocks={"image": image, "question": question},
        metadata={"source": "simulated"},
    )
    return World(log, features, split_by_group(log.groups, seed=seed))


@pytest.fixture
def build_log() -> Callable[..., OracleLog]:
    return log_of


@pytest.fixture
def build_world() -> Callable[..., World]:
    return make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()
