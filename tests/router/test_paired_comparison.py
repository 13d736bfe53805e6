from __future__ import annotations

import itertools

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.evaluation.paired_comparison import Questions, Side, compare_routers
from m3router.router.metrics import hull
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.price_sweep import sweep
from m3router.router.runs.run import Run
from m3router.router.stages.comparing import compare_runs
from m3router.router.stages.learning import calibrate_stage, train_stage

COSTS = np.array([1.0, 9.0, 36.0])


def asked(n: int = 120, *, per_group: int = 3, seed: int = 0) -> tuple[Questions, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.sort(generator.random((n, 3)), axis=1)
    questions = Questions(
        scores=(generator.random((n, 3)) < truth).astype(float),
        costs=np.tile(COSTS, (n, 1)),
        groups=np.repeat([f"g{i}" for i in range(n // per_group)], per_group),
        cost_unit="tokens",
    )
    return questions, truth


def found(a, b, questions, **options):
    sides = (Side(p=p, costs=questions.costs) for p in (a, b))
    results = compare_routers(*sides, questions, budgets=(9.0,), draws=200, **options)
    return {one.name: one for one in results}


def test_a_router_against_itself_differs_in_nothing():
    questions, truth = asked()
    for one in found(truth, truth, questions).values():
        assert one.a == one.b
        assert (one.difference, one.low, one.high, one.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_exchanging_the_sides_turns_every_number_around():
    questions, truth = asked()
    noise = np.random.default_rng(1).random(truth.shape)
    there, back = found(truth, noise, questions), found(noise, truth, questions)
    for name, one in there.items():
        other = back[name]
        assert (one.a, one.b, one.p_value) == (other.b, other.a, other.p_value), name
        if one.difference is None:
            assert name == "saved at 99 % of best fixed"  # noise does not reach it
            continue
        assert one.difference == pytest.approx(-other.difference)
        # a quantile of B draws is one of them, so ends may be a rank apart
        assert one.low == pytest.approx(-other.high, abs=0.01)


def test_areas_are_those_of_the_whole_curves_up_to_its_points():
    questions, truth = asked(600)
    noise = np.random.default_rng(1).random(truth.shape)
    area = found(truth, noise, questions)["AIQ"]
    for value, p in ((area.a, truth), (area.b, noise)):
        steps = sweep(p, questions.costs, scores=questions.scores)
        whole = hull.aiq(steps.cost, steps.accuracy, low=1.0, high=36.0)
        assert value == pytest.approx(whole, abs=0.01)
    assert area.low > 0
    assert area.p_value == pytest.approx(1 / 201)


def test_the_p_value_is_that_of_all_exchanges_of_whole_images():
    """Eight images: all 256 exchanges can be counted."""
    generator = np.random.default_rng(5)
    groups = np.repeat([f"g{i}" for i in range(8)], [1, 2, 3, 1, 2, 4, 2, 1])
    n = len(groups)
    questions = Questions(
        scores=(generator.random((n, 2)) < 0.5).astype(float),
        costs=np.tile([1.0, 9.0], (n, 1)),
        groups=groups,
        cost_unit="tokens",
    )
    a, b = (np.stack([first, 1 - first], axis=1) for first in (generator.random((2, n)) < 0.5))
    a, b = a.astype(float), b.astype(float)
    binding = Binding(options=("1", "9"), cost_unit="tokens", router="", split="")
    policy = Policy(binding=binding, kind="price", lam=0.0, cost_scale=9.0)
    sides = (Side(p=p, costs=questions.costs) for p in (a, b))
    results = compare_routers(
        *sides, questions, budgets=(), policies={"x": (policy, policy)}, draws=4000
    )
    one = next(r for r in results if r.name == "accuracy with policy x")
    right = [questions.scores[np.arange(n), policy.choose(p, questions.costs)] for p in (a, b)]
    gaps = np.array([(right[0] - right[1])[groups == g].sum() for g in np.unique(groups)]) / n
    exchanged = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(exchanged) >= abs(gaps.sum()) - 1e-12)
    assert one.difference == pytest.approx(gaps.sum())
    assert one.p_value == pytest.approx(exact, abs=0.03)


def test_alike_routers_are_seldom_called_different():
    """Two routers with the same error: p below 5 % in about 5 % of worlds, images intact."""
    generator = np.random.default_rng(9)
    low = 0
    for world in range(40):
        questions, truth = asked(90, seed=world)
        shared = generator.standard_normal((30, 3)).repeat(3, axis=0)  # errors by image
        a = 1 / (1 + np.exp(-(truth + shared)))
        b = 1 / (1 + np.exp(-(truth + generator.standard_normal((30, 3)).repeat(3, axis=0))))
        sides = (Side(p=p, costs=questions.costs) for p in (a, b))
        results = compare_routers(*sides, questions, budgets=(), draws=99, seed=world)
        low += next(one for one in results if one.name == "AIQ").p_value <= 0.05
    assert low <= 6  # P(Binomial(40, 0.05) > 6) < 0.01


def test_a_peek_is_paid_for():
    """The same probabilities, once behind a peek: as accurate, at a higher cost."""
    questions, truth = asked(300)
    a = Side(p=truth, costs=routed_costs(questions.costs, ["image", "peek"]))
    b = Side(p=truth, costs=questions.costs)
    policy = Policy(
        binding=Binding(options=("1", "9", "36"), cost_unit="tokens", router="", split=""),
        kind="fixed",
        lam=0.0,
        cost_scale=36.0,
    )
    pair = {"finest": (policy, policy)}
    results = compare_routers(a, b, questions, budgets=(), policies=pair, draws=50)
    one = {result.name: result for result in results}
    assert one["mean cost with policy finest"].difference == pytest.approx(1.0)
    assert one["accuracy with policy finest"].difference == 0.0
    assert one["AIQ"].difference < 0


def test_a_single_image_has_no_interval_but_costs_and_values():
    questions, truth = asked(3)
    one = found(truth, 1 - truth, questions)["AIQ"]
    assert one.a is not None
    assert (one.low, one.high) == (None, None)


@pytest.fixture(scope="module")
def two_runs(world, tmp_path_factory):
    a = Run(tmp_path_factory.mktemp("versus") / "a")
    world.log.write(a.log_folder)
    world.features.write(a.features_folder)
    b = a.copy_data(a.root.parent / "b")
    train_stage(a, ablations=False)
    train_stage(b, estimator="lightgbm", ablations=False)
    for run in (a, b):
        calibrate_stage(run, name="default", budget=36)
    calibrate_stage(b, name="other", budget=200)
    return a, b


def test_runs_are_compared_with_the_policies_that_both_have(two_runs):
    a, b = two_runs
    versus = compare_runs(a, b, draws=50)
    names = [one.name for one in versus.differences]
    assert names[0] == "AIQ"
    assert [n for n in names if n.startswith("accuracy at")] == [
        f"accuracy at {budget} visual tokens" for budget in (36, 144, 288)
    ]
    assert [n for n in names if "policy" in n] == [
        "accuracy with policy default",
        "mean cost with policy default",
    ]
    assert versus.to_dict()["n"] == {"test": versus.n, "test_groups": versus.n_groups}
    with pytest.raises(DataError, match=r"Unknown policy 'other'.*Known: default"):
        compare_runs(a, b, policies=["other"], draws=5)


def test_policies_told_otherwise_are_not_compared(two_runs, tmp_path):
    a, b = two_runs
    calibrate_stage(b, name="default", budget=50)
    try:
        versus = compare_runs(a, b, draws=5)
        assert not [one for one in versus.differences if "policy" in one.name]
        with pytest.raises(MismatchError, match=r"'default' was told \{'budget': 36.*50"):
            compare_runs(a, b, policies=["default"], draws=5)
    finally:
        calibrate_stage(b, name="default", budget=36)


def test_runs_of_other_splits_or_logs_are_refused(two_runs, build_world, tmp_path):
    a, _ = two_runs
    c = a.copy_data(tmp_path / "c")
    train_stage(c, seed=1, ablations=False)
    with pytest.raises(MismatchError, match="seed 0.*seed 1"):
        compare_runs(a, c, draws=5)
    d = Run(tmp_path / "d")
    other = build_world(200, seed=3)
    other.log.write(d.log_folder)
    other.features.write(d.features_folder)
    train_stage(d, ablations=False)
    with pytest.raises(MismatchError, match=f"{a.root} and {d.root} have different logs"):
        compare_runs(a, d, draws=5)


def test_a_router_that_saves_nothing_saves_0_not_less():
    questions, truth = asked()
    worst = 1 - truth  # prefers what is wrong, so that it reaches the accuracy late or never
    one = found(truth, worst, questions)["saved at 99 % of best fixed"]
    assert one.b == 0.0 and one.a >= 0.0 and one.difference == one.a
    free = Questions(
        scores=questions.scores,
        costs=np.zeros_like(questions.costs),
        groups=questions.groups,
        cost_unit="tokens",
    )
    results = found(truth, worst, free)
    assert results["saved at 99 % of best fixed"].a is None
    assert results["AIQ"].a is None


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), -1.0])
def test_budgets_that_are_no_costs_are_refused(tmp_path, budget):
    with pytest.raises(DataError, match="A budget must be finite and at least 0"):
        compare_runs(Run(tmp_path), Run(tmp_path), budgets=[budget])
