"""What is said of degenerate logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.importers.table import read_table
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import log_warnings
from tests.router.logs import random_log

EXAMPLES = 60
OPTIONS = ("small", "medium", "large")


def log_of(
    scores: Any,
    costs: Any = (1, 4, 16),
    *,
    datasets: list[str] | None = None,
    groups: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> OracleLog:
    """A log of scores (N, K), NaN for a failed answer, and of costs that broadcast to them."""
    scores = np.asarray(scores, dtype=float)
    costs = np.broadcast_to(np.asarray(costs, dtype=float), scores.shape)
    rows = [
        {
            "example_id": f"e{n}",
            "group": groups[n] if groups else f"g{n}",
            "dataset": datasets[n] if datasets else "world",
            "question": f"What of {n}?",
            "image": "",
            "scale": OPTIONS[k],
            "cost": costs[n, k],
            "score": scores[n, k],
            "chance": 0.0,
            "error": "failed" if np.isnan(scores[n, k]) else None,
        }
        for n in range(scores.shape[0])
        for k in range(scores.shape[1])
    ]
    return OracleLog(
        pd.DataFrame(rows),
        options=OPTIONS[: scores.shape[1]],
        cost_unit="tokens",
        metadata=metadata,
    )


def mixed(options: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (EXAMPLES, options)).astype(float)


def told(log: OracleLog) -> str:
    return " ".join(log_warnings(log))


def test_a_sound_log_is_told_nothing():
    assert log_warnings(log_of(mixed())) == []


def test_one_option():
    assert log_warnings(log_of(mixed(1), 3)) == [
        "There is one option, small, so there is nothing to choose between: add the answers of "
        "another one."
    ]


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ((7, 7, 7), "Every answer costs 7, whatever the option"),
        ((0, 0, 0), "Answers cost nothing, whatever the option"),
        ((1, 9, 9), "The options medium, large cost the same on every question"),
        ((9, 1, 9), "The options small, large cost the same on every question"),
    ],
)
def test_equal_costs(costs, said):
    (sentence,) = log_warnings(log_of(mixed(), costs))
    assert said in sentence


@pytest.mark.parametrize("option", range(3))
@pytest.mark.parametrize(
    ("score", "said"),
    [(0, "is not right on any"), (1, "is right on all"), (0.5, "scores 0.5 on all")],
)
def test_an_option_of_one_score(option, score, said):
    scores = mixed()
    scores[:, option] = score
    (sentence,) = log_warnings(log_of(scores))
    assert sentence.startswith(f"Option {OPTIONS[option]} {said} of its {EXAMPLES} questions")


def test_all_options_of_one_score():
    assert "No option is right" in told(log_of(np.zeros((EXAMPLES, 3))))
    assert "Every option is right" in told(log_of(np.ones((EXAMPLES, 3))))
    assert "All options have the same score" in told(log_of(np.tile(mixed(1), 3)))
    assert "All options have the same score" in told(log_of(np.full((EXAMPLES, 3), 0.5)))


def test_by_agreement_the_finest_option_is_right_by_definition():
    scores = mixed()
    scores[:, -1] = 1
    assert log_warnings(log_of(scores, metadata={"asked": "agreement"})) == []


def test_few_groups_and_rare_datasets():
    assert "There are 3 groups of questions, too few for a split" in told(
        log_of(mixed(), groups=[f"g{n % 3}" for n in range(EXAMPLES)])
    )
    assert "There is 1 group of questions" in told(log_of(mixed(), groups=["g"] * EXAMPLES))
    assert "There are 30 groups of questions, of which about 6 will be tested on" in told(
        log_of(mixed(), groups=[f"g{n % 30}" for n in range(EXAMPLES)])
    )
    rare = ["rare", *["common"] * (EXAMPLES - 1)]
    assert "Of 2 datasets, 1 has fewer than 4 groups (rare 1)" in told(
        log_of(mixed(), datasets=rare)
    )


def test_missing_results():
    scores = mixed()
    scores[:, 2] = np.nan
    assert "Option large has no score on any of the 60 questions" in told(log_of(scores))
    scores = mixed()
    scores[np.arange(EXAMPLES), np.arange(EXAMPLES) % 3] = np.nan
    assert "(of 60: small 40, medium 40, large 40)" in told(log_of(scores))
    scores = mixed()
    scores[30:, 0] = np.nan
    assert "No question of the dataset b has a result at every option" in told(
        log_of(scores, datasets=["a"] * 30 + ["b"] * 30)
    )


def test_an_empty_log():
    empty = log_of(mixed()).select([])
    assert "has no questions" in told(empty)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_log_is_told_in_sentences(seed):
    for sentence in log_warnings(random_log(seed)):
        assert sentence[0].isupper() and sentence.endswith((".", "?"))
        assert "nan" not in sentence.split()


@pytest.mark.parametrize("cost", ["1e31", "1e300", "1e-31", "5e-324"])
def test_costs_beyond_reach(tmp_path, cost):
    path = tmp_path / "t.csv"
    path.write_text(f"id,question,option,correct,cost\n1,q,s,1,1\n1,q,l,1,{cost}\n")
    with pytest.raises(DataError, match="'cost' is beyond reach in 1 rows, first .* in row 2"):
        read_table(path)
    with pytest.raises(DataError, match="a cost beyond reach"):
        log_of(mixed(), (1, 4, float(cost)))
    log_of(mixed(), (0, 1e-30, 1e30))


def test_a_ladder_out_of_order():
    expected = f"{OPTIONS[2]} costs 4 and {OPTIONS[1]}, which stands before it, 16"
    assert expected in told(log_of(mixed(), costs=(1, 16, 4)))
    assert "order" not in told(log_of(mixed(), costs=(1, 4, 16)))
