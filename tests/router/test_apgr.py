"""APGR and CPT against the published procedure, written again as a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3router.router.metrics.apgr import apgr, cpt, strong_calls, why_undefined


def published(calls, weak, strong):
    """APGR and CPT as lm-sys/RouteLLM computes them: deciles, loops and one curve at a time."""
    edges = pd.qcut(pd.Series(calls), 10, retbins=True)[1]
    shares, accuracies = [], []
    for i, edge in enumerate(edges):
        right = sent = 0.0
        for score, w, s in zip(calls, weak, strong, strict=True):
            goes = score > edge if i == len(edges) - 1 else score >= edge
            right += s if goes else w
            sent += goes
        shares.append(sent / len(calls))
        accuracies.append(right / len(calls))
    order = np.argsort(shares)
    x, y = np.array(shares)[order], np.array(accuracies)[order]
    area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))
    gap = strong.mean() - weak.mean()
    reached = [
        float(np.interp(weak.mean() + level * gap, y, x)) if np.all(np.diff(y) > 0) else None
        for level in (0.5, 0.8)
    ]
    return (area - weak.mean()) / gap, reached


def pair_of_models(n, *, seed, skill):
    """A weak and a strong model's answers, and a score that knows where the strong one helps."""
    generator = np.random.default_rng(seed)
    need = generator.standard_normal(n)
    weak = (generator.random(n) < 1 / (1 + np.exp(2 * need))).astype(float)
    strong = (generator.random(n) < 0.9).astype(float)
    return skill * need + (1 - skill) * generator.standard_normal(n), weak, strong


def measured(calls, weak, strong):
    sent = strong_calls(calls)
    curve = np.where(sent, strong[:, None], weak[:, None]).mean(axis=0)
    return sent.mean(axis=0), curve


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("skill", [0.2, 0.9])
def test_equals_the_published_procedure(seed, skill):
    calls, weak, strong = pair_of_models(400, seed=seed, skill=skill)
    expected, levels = published(calls, weak, strong)
    shares, curve = measured(calls, weak, strong)
    # ours has one more point, the single example of the highest score
    assert float(apgr(shares, curve)) == pytest.approx(expected, abs=1 / 400)
    for level, share in zip((0.5, 0.8), levels, strict=True):
        if share is not None:
            assert float(cpt(shares, curve, level=level)) == pytest.approx(share, abs=1 / 400)


def test_calling_at_random_gives_a_half():
    found = [
        float(apgr(*measured(*pair_of_models(4000, seed=seed, skill=0.0)))) for seed in range(60)
    ]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / np.sqrt(len(found))
    assert np.std(found) < 0.05


def test_ties_are_broken_at_random():
    _, weak, strong = pair_of_models(500, seed=0, skill=1.0)
    assert float(apgr(*measured(np.ones(500), weak, strong))) == pytest.approx(0.5)
    # a score of two values: knowing nothing more, the curve is straight on both sides
    calls = np.repeat([0.0, 1.0], 250)
    shares, curve = measured(calls, weak, strong)
    assert np.unique(shares).tolist() == [0.0, 0.5, 1.0]
    assert float(curve[1]) == pytest.approx((weak[:250].sum() + strong[250:].sum()) / 500)


def test_a_curve_whose_area_is_known():
    shares, curve = np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.6, 0.6])
    assert float(apgr(shares, curve)) == pytest.approx(0.75)
    assert float(cpt(shares, curve, level=0.5)) == pytest.approx(0.25)
    assert float(cpt(shares, curve, level=0.8)) == pytest.approx(0.4)
    both = apgr(np.tile(shares, (2, 1)), np.stack([curve, curve[::-1]]))
    np.testing.assert_allclose(both, [0.75, 0.25])
    assert np.isnan(cpt(shares, curve[::-1], level=0.5))
    assert np.isnan(apgr(shares, np.full(3, 0.4)))


def test_undefined_unless_the_strong_end_clearly_wins():
    assert why_undefined("7B", "70B", difference=0.1, low=0.02) is None
    assert "70B is not more accurate" in str(why_undefined("7B", "70B", difference=-0.1, low=-0.2))
    assert "not clearly" in str(why_undefined("7B", "70B", difference=0.1, low=-0.02))
    assert "not clearly" in str(why_undefined("7B", "70B", difference=0.1, low=None))
    for more in (0.0, -1.0):
        told = why_undefined("7B", "70B", difference=0.1, low=0.02, more=more)
        assert told == "undefined: 70B does not cost more than 7B"
