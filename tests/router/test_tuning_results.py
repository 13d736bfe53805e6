"""Choice and importances on studies that are made up."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from m3router.router.tuning.plots import front_figure, importance_figure
from m3router.router.tuning.results import document
from m3router.router.tuning.search import SEAL, seal_of

NAMES = ["logistic", "lightgbm"]
BLOCKS = ["image+question", "image", "question"]


def made_up(values, *, losses=None):
    """A study in which trial i has these values (low, high)."""
    generator = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize"] * 2, study_name="made up")
    for number, pair in enumerate(values):
        params = {
            "estimator": "lightgbm",
            "blocks": BLOCKS[number % 3 // 2],
            "lightgbm.learning_rate": float(generator.uniform(0.02, 0.3)),
            "lightgbm.num_leaves": int(generator.integers(3, 63)),
        }
        low, high = pair(params) if callable(pair) else pair
        kept = {
            "log_loss": 0.5 if losses is None else losses[number],
            "curve": [2 * low, 0.0, 2 * high],  # its halves have the means low and high, exactly
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={
                    "estimator": CategoricalDistribution(NAMES),
                    "blocks": CategoricalDistribution(BLOCKS),
                    "lightgbm.learning_rate": FloatDistribution(0.02, 0.3),
                    "lightgbm.num_leaves": IntDistribution(3, 63),
                },
                values=[low, high],
                user_attrs={**kept, SEAL: seal_of(params, kept)},
            )
        )
    return study


def found(study):
    return document(study, made_from={"estimators": NAMES}, unit="tokens", at=[1.0, 2.0, 3.0])


def test_the_choice_is_the_largest_mean_on_the_front():
    result = found(made_up([(0.1, 0.9), (0.4, 0.7), (0.5, 0.5), (0.3, 0.65)]))
    assert result["pareto"] == [0, 1, 2]
    assert result["chosen"] == 1


def test_ties_go_to_the_smaller_loss_and_then_to_the_earlier_trial():
    same = [(0.5, 0.5)] * 4
    assert found(made_up(same, losses=[0.4, 0.3, 0.2, 0.2]))["chosen"] == 2


def test_importance_finds_what_the_values_depend_on():
    def by_rate(params):
        rate = params["lightgbm.learning_rate"]
        return 0.5 + rate, 0.6 + rate - (0.5 if params["blocks"] == "image" else 0.0)

    shares = found(made_up([by_rate] * 60))["importance"]
    assert shares["all trials"]["blocks"] == pytest.approx(1.0)
    alike = shares["lightgbm on image+question"]
    assert set(alike) == {"lightgbm.learning_rate", "lightgbm.num_leaves"}
    assert alike["lightgbm.learning_rate"] > 0.9


def test_few_trials_have_no_importance():
    assert found(made_up([(0.5, 0.5)] * 9))["importance"] == {}


def test_figures_say_what_they_show():
    result = found(made_up([(0.1 * i, 1 - 0.1 * i) for i in range(9)]))
    axes = front_figure(result).axes[0]
    assert axes.get_title(loc="left") == "9 trials judged in full, 0 pruned or failed"
    assert [axes.get_xlabel(), axes.get_ylabel()] == result["objectives"]
    (line,) = axes.lines
    assert len(line.get_xdata()) == len(result["pareto"]) == 9
    bars = importance_figure({"all trials": {"blocks": 0.25, "estimator": 0.75}}).axes[0]
    assert [patch.get_width() for patch in bars.patches] == [0.75, 0.25]
