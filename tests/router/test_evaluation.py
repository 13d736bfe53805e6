from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import split_by_group
from m3router.router.evaluation.evaluate import Settings, default_budgets, evaluate
from m3router.router.evaluation.methods import budget_name
from m3router.router.metrics import choices
from m3router.router.metrics.oracle_curve import corrected_curve
from m3router.router.policies.fitting import for_budget, for_max_loss
from m3router.router.policies.policy import Binding
from m3router.router.training.fit import train_router
from tests.router.conftest import make_world

FAST = Settings(draws=50)


def estimates(world, blocks=None):
    settings = {"estimator": "lightgbm", "blocks": blocks}
    router = train_router(world.log, world.features, world.split, **settings)
    return router.predict(world.features)


@pytest.fixture(scope="module")
def p(world):
    return estimates(world)


@pytest.fixture(scope="module")
def result(world, p):
    return evaluate(
        world.log,
        p,
        split=world.split,
        gflops=2.0 * world.log.costs,
        ablations={"image-only": estimates(world, ["image"])},
        settings=FAST,
    )


@pytest.fixture(scope="module")
def large():
    """More than 100 test images, so that shares of gaps are given."""
    world = make_world(2400, seed=5)
    p = estimates(world)
    return evaluate(
        world.log,
        p,
        split=world.split,
        ablations={"image-only": estimates(world, ["image"]), "the same": p},
        settings=FAST,
    )


def rows_of(result, kind):
    return [row for row in result["rows"] if row["kind"] == kind]


def binding_of(world):
    return Binding(
        options=world.log.options,
        cost_unit="visual tokens",
        router="r",
        split=world.split.fingerprint,
    )


def test_is_json(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_rows_of_the_table(result):
    kinds = [row["kind"] for row in result["rows"]]
    assert kinds == ["fixed"] * 5 + ["router"] * 3 + ["best_fixed", "oracle", "oracle_corrected"]
    assert [row["name"] for row in rows_of(result, "fixed")] == ["1", "9", "36", "144", "576"]
    for row in result["rows"]:
        for quantity in ("accuracy", "cost", "gflops", "minus_best_fixed", "minus_reference"):
            cell = row[quantity]
            assert cell["low"] - 1e-9 <= cell["value"] <= cell["high"] + 1e-9
        assert row["gflops"]["value"] == pytest.approx(2 * row["cost"]["value"], rel=1e-6)


def test_fixed_rows_are_means_over_the_test_part(world, result):
    test = world.split.test
    for k, row in enumerate(rows_of(result, "fixed")):
        assert row["accuracy"]["value"] == pytest.approx(world.log.scores[test, k].mean())
        assert row["cost"]["value"] == pytest.approx(world.log.costs[test, k].mean())
    others = np.setdiff1d(np.arange(len(world.log)), test)
    best = choices.best_fixed(world.log.scores[others], world.log.costs[others])
    assert result["best_fixed"] == world.log.options[best]
    (row,) = rows_of(result, "best_fixed")
    assert row["minus_best_fixed"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    (oracle,) = rows_of(result, "oracle")
    assert oracle["accuracy"]["value"] == pytest.approx(world.log.scores[test].max(1).mean())


def test_router_rows_follow_their_policy(world, p, result):
    calibrate, test = world.split.calibrate, world.split.test
    budgets = default_budgets(world.log.costs[calibrate])
    assert budgets == (36.0, 144.0, 288.0)
    for budget, row in zip(budgets, rows_of(result, "router"), strict=True):
        policy = for_budget(
            p[calibrate], world.log.costs[calibrate], budget=budget, binding=binding_of(world)
        )
        choice = policy.choose(p[test], world.log.costs[test])
        expected = choices.taken(world.log.scores[test], choice).mean()
        assert row["accuracy"]["value"] == pytest.approx(expected)
        reference = np.full(len(test), world.log.options.index(result["reference"]["option"]))
        regret = choices.regret_rows(world.log.scores[test], choice, reference).mean()
        assert row["regret"]["value"] == pytest.approx(regret)
        assert row["policy"]["calibration"]["mean_cost"] <= budget
        assert sum(row["shares"].values()) == pytest.approx(1)


def test_router_is_better_than_mixing_fixed_scales_and_than_its_half(large):
    assert large["metrics"]["aiq_minus_fixed"]["low"] > 0
    assert large["ablations"]["image-only"]["metrics"]["aiq_minus_router"]["high"] < 0
    assert large["metrics"]["aiq"]["value"] == pytest.approx(
        large["metrics"]["aiq_fixed"]["value"] + large["metrics"]["aiq_minus_fixed"]["value"]
    )
    last = rows_of(large, "router")[-1]
    assert 0 < last["gap_closed"]["own_cost"]["value"] <= 1
    assert large["verdict"]["kind"] == "routing pays"


def test_the_router_itself_as_another_arm_is_no_better_and_no_worse(large):
    """Every way of choosing is looked at in the same places: alike means 0, not less."""
    same = large["ablations"]["the same"]
    assert same["metrics"]["aiq_minus_router"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert same["curve"] == large["curve"]
    for row in same["rows"]:
        assert row["minus_router"]["value"] == pytest.approx(0, abs=0.003)
        assert row["minus_router"]["low"] < 0 < row["minus_router"]["high"]


def test_few_images_are_warned_of_and_have_no_shares_of_gaps(result, large):
    assert result["n"]["test_groups"] == 60
    assert "Only 60 test images" in result["warnings"][0]
    assert large["warnings"] == []
    for gap in rows_of(result, "router")[-1]["gap_closed"].values():
        assert gap["value"] is None
        assert "too few images" in gap["reason"]


def test_curve_goes_from_dear_to_cheap(result):
    curve = result["curve"]
    assert len({len(curve[name]) for name in ("cost", "accuracy", "low", "high", "price")}) == 1
    assert np.all(np.diff(curve["cost"]) < 0)
    assert np.all(np.diff(curve["price"]) > 0)
    assert curve["cost"][-1] == pytest.approx(1.0)
    below = np.mean(np.array(curve["cost"]) < 36)
    assert below > 0.3, "the steep part from 1 to 36 tokens is looked at closely"
    assert result["fixed_curve"]["cost"] == [1.0, 9.0, 36.0, 144.0, 576.0]


def test_metrics_equal_the_pure_functions_on_the_curve(result):
    cost, accuracy = (np.array(result["curve"][name])[::-1] for name in ("cost", "accuracy"))
    found = result["metrics"]
    grid = np.unique(np.concatenate([cost, [1.0, 576.0]]))  # flat behind the most expensive point
    area = np.trapezoid(np.interp(grid, cost, accuracy), grid) / 575
    assert found["aiq"]["value"] == pytest.approx(area)
    (best,) = rows_of(result, "best_fixed")
    target = 0.99 * best["accuracy"]["value"]
    first = int(np.argmax(accuracy >= target))
    between = np.interp(target, accuracy[first - 1 : first + 1], cost[first - 1 : first + 1])
    saved = found["saved_at_99"]["hindsight"]["value"]
    assert saved == pytest.approx(1 - between / best["cost"]["value"])
    row = found["saved_at_99"]["row"]
    assert found["saved_at_99"]["calibrated"]["value"] == pytest.approx(
        1 - row["cost"]["value"] / best["cost"]["value"]
    )


def test_policies_do_not_see_the_test_part(world, p, build_log, result):
    """Poison: other answers on the test split leave every calibrated policy as it was."""
    scores = world.log.scores.copy()
    scores[world.split.test] = 1 - scores[world.split.test]
    poisoned = build_log(scores, groups=list(world.log.groups))
    other = evaluate(poisoned, p, split=world.split, settings=FAST)
    for before, after in zip(rows_of(result, "router"), rows_of(other, "router"), strict=True):
        assert before["policy"] == after["policy"]
        assert before["cost"] == after["cost"]
        assert before["accuracy"] != after["accuracy"]
    saving = "saved_at_99"
    assert result["metrics"][saving]["policy"] == other["metrics"][saving]["policy"]


def test_fit_and_tune_are_not_read(world, p, result):
    poisoned = p.copy()
    poisoned[world.split.fit] = np.nan
    poisoned[world.split.tune] = -3
    again = evaluate(
        world.log, poisoned, split=world.split, gflops=2.0 * world.log.costs, settings=FAST
    )
    assert again["rows"] == result["rows"]


def test_chance_lowers_the_corrected_oracle_only(build_world):
    world = build_world(400, chance=0.25, seed=3)
    p = np.full(world.log.scores.shape, 0.5)
    result = evaluate(world.log, p, split=world.split, settings=FAST)
    (raw,), (corrected,) = rows_of(result, "oracle"), rows_of(result, "oracle_corrected")
    (best,) = rows_of(result, "best_fixed")
    assert best["accuracy"]["value"] <= corrected["accuracy"]["value"] < raw["accuracy"]["value"]
    assert corrected["gflops"] is None


def test_without_chance_both_oracles_agree(result):
    (raw,), (corrected,) = rows_of(result, "oracle"), rows_of(result, "oracle_corrected")
    for quantity in ("accuracy", "cost", "gflops"):
        assert raw[quantity] == pytest.approx(corrected[quantity])
    less = raw["minus_best_fixed"]["value"]
    assert corrected["minus_best_fixed"]["value"] == pytest.approx(less)


def test_given_policies_get_their_own_rows(world, p):
    calibrate = world.split.calibrate
    inputs = p[calibrate], world.log.costs[calibrate]
    policies = {
        "64 tokens": for_budget(*inputs, budget=64, binding=binding_of(world)),
        "1 point": for_max_loss(
            *inputs,
            scores=world.log.scores[calibrate],
            max_loss_points=-90,
            binding=binding_of(world),
        ),
    }
    result = evaluate(world.log, p, split=world.split, policies=policies, settings=FAST)
    first, second = rows_of(result, "router")
    assert (first["name"], second["name"]) == ("64 tokens", "1 point")
    assert second["policy"]["fallback"]
    assert second["shares"]["576"] == 1
    assert first["gflops"] is None
    with_budget = evaluate(
        world.log,
        p,
        split=world.split,
        policies=policies,
        settings=replace(FAST, budgets=(100.0,)),
    )
    names = [row["name"] for row in rows_of(with_budget, "router")]
    assert names == ["64 tokens", "1 point", "budget 100"]


def test_policies_of_another_grid_or_split_are_refused(world, p):
    good = for_budget(p, world.log.costs, budget=64, binding=binding_of(world))
    for change in ({"options": ("a", "b", "c", "d", "e")}, {"split": "x" * 64}):
        last = change.get("options", world.log.options)[-1]
        policy = replace(good, binding=replace(good.binding, **change), reference=last)
        with pytest.raises(MismatchError):
            evaluate(world.log, p, split=world.split, policies={"bad": policy}, settings=FAST)


def test_arrays_of_another_log_are_refused(world, p):
    with pytest.raises(MismatchError, match=r"600 examples and 5 options.*\(599, 5\)"):
        evaluate(world.log, p[:-1], split=world.split, settings=FAST)
    with pytest.raises(MismatchError, match="gflops"):
        evaluate(world.log, p, split=world.split, gflops=p[:, :2], settings=FAST)
    with pytest.raises(MismatchError, match="'image-only'"):
        evaluate(world.log, p, split=world.split, ablations={"image-only": p[:3]}, settings=FAST)


def test_a_budget_below_the_cheapest_is_refused(world, p):
    with pytest.raises(DataError, match="at least 1 visual tokens"):
        evaluate(world.log, p, split=world.split, settings=replace(FAST, budgets=(0.5,)))


def test_gaps_are_refused_or_dropped(world, p, build_log):
    scores = world.log.scores.copy()
    gone = world.split.test[:3]
    scores[gone, 2] = np.nan
    log = build_log(scores, groups=list(world.log.groups))
    holes = p.copy()
    holes[gone] = np.nan
    with pytest.raises(DataError, match="--gaps drop"):
        evaluate(log, holes, split=world.split, settings=FAST)
    result = evaluate(log, holes, split=world.split, settings=replace(FAST, gaps="drop"))
    assert result["n"]["test"] == len(world.split.test) - 3


def test_an_empty_part_is_refused(world, p, build_log):
    scores = world.log.scores.copy()
    scores[world.split.test] = np.nan
    log = build_log(scores, groups=list(world.log.groups))
    with pytest.raises(DataError, match="'test' split"):
        evaluate(log, p, split=world.split, settings=replace(FAST, gaps="drop"))


def test_no_headroom_is_undefined_not_a_number(build_log):
    """All options answer alike: no gap to close, and no interval from a single test image."""
    scores = np.tile([[1.0], [0.0]], (20, 3))
    log = build_log(scores, groups=[f"g{i // 10}" for i in range(40)])
    split = split_by_group(log.groups)
    result = evaluate(log, np.full((40, 3), 0.5), split=split, settings=FAST)
    for row in rows_of(result, "router"):
        undefined = {"value": None, "low": None, "high": None, "reason": "there is no gap to close"}
        assert row["gap_closed"]["raw"] == undefined
        assert row["accuracy"] == {"value": 0.5, "low": None, "high": None}
    json.dumps(result, allow_nan=False)


def test_default_budgets_stay_apart_on_a_dear_grid():
    costs = np.tile([147456.0, 589824.0, 1327104.0], (4, 1))
    budgets = default_budgets(costs)
    assert 147456 < budgets[0] < budgets[1] < budgets[2] < 1327104


@pytest.mark.parametrize(
    ("costs", "count"),
    [
        ([1.0, 2.0, 3.0], 3),  # places in an order: 1/4 above the cheapest is 1/2 of the finest
        ([7.0, 7.0, 7.0], 1),
        ([0.0, 0.0, 0.0], 1),
        ([9.0, 4.0, 1.0], 1),
        ([0.0, 4.0, 16.0], 3),
        ([0.1, 0.1, 0.1], 1),
    ],
)
def test_default_budgets_differ_and_can_be_met(costs, count):
    budgets = default_budgets(np.tile(costs, (7, 1)))
    assert len(budgets) == len(set(map(budget_name, budgets))) == count
    assert list(budgets) == sorted(budgets)
    assert budgets[0] >= np.tile(costs, (7, 1)).min(axis=1).mean()


def test_equal_costs_have_reasons_in_place_of_numbers():
    world = make_world(200)
    frame = world.log.frame.assign(cost=7.0)
    log = OracleLog(frame, options=world.log.options, cost_unit="tokens")
    p = np.random.default_rng(0).random(log.scores.shape)
    result = evaluate(log, p, split=world.split, settings=FAST)
    json.dumps(result, allow_nan=False)
    found = result["metrics"]
    for name in ("aiq", "aiq_fixed", "aiq_minus_fixed", "gap_closed"):
        assert found[name]["value"] is None
        assert "every option costs the same" in found[name]["reason"]
    assert "does not cost more than" in found["apgr"]["reason"]
    assert result["verdict"]["kind"] == "no headroom"
    rows = [row for row in result["rows"] if row["kind"] == "router"]
    assert len(rows) == 1
    assert rows[0]["cost"] == {"value": 7.0, "low": 7.0, "high": 7.0}


def test_what_costs_nothing_saves_nothing():
    world = make_world(200)
    log = OracleLog(world.log.frame.assign(cost=0.0), options=world.log.options, cost_unit="tokens")
    p = np.random.default_rng(0).random(log.scores.shape)
    saved = evaluate(log, p, split=world.split, settings=FAST)["metrics"]["saved_at_99"]
    assert saved["calibrated"]["reason"].startswith("nothing can be saved: the best fixed option")


# --- mixtures, gaps at equal cost, peeks, ends -------------------------------------------------


def everything(result):
    return [
        row
        for arm in [{"rows": result["rows"]}, *result["ablations"].values()]
        + list(result["baselines"].values())
        for row in arm.get("rows", [])
    ]


def test_mixtures_lie_between_the_fixed_options_that_are_worth_it(result):
    """Which options are mixed was chosen on other parts; how well that does is measured."""
    mixed = [result["options"].index(option) for option in result["mixed"]]
    x, y = (np.array(result["fixed_curve"][name])[mixed] for name in ("cost", "accuracy"))
    rows = everything(result)
    assert len(rows) > 15
    for row in rows:
        mixing, cost = row["mixing"], min(row["cost"]["value"], x[-1])
        assert mixing["accuracy"]["value"] == pytest.approx(np.interp(cost, x, y))
        assert mixing["cost"]["value"] == pytest.approx(cost)
        assert mixing["gflops"]["value"] == pytest.approx(2 * cost)
        difference = row["accuracy"]["value"] - mixing["accuracy"]["value"]
        if row["kind"] != "oracle_corrected":
            assert row["minus_mixing"]["value"] == pytest.approx(difference, abs=1e-12)


def test_gap_closed_at_own_cost_is_its_definition(large):
    mixed = [large["options"].index(option) for option in large["mixed"]]
    fixed = [np.array(large["fixed_curve"][name])[mixed] for name in ("cost", "accuracy")]
    oracle = [np.array(large["oracle_curve"][name])[::-1] for name in ("cost", "accuracy")]
    given = 0
    for row in rows_of(large, "router"):
        own, cost = row["accuracy"]["value"], row["cost"]["value"]
        floor, ceiling = np.interp(cost, *fixed), np.interp(cost, *oracle)
        gap = row["gap_closed"]["own_cost"]
        if gap["value"] is not None:
            given += 1
            assert gap["value"] == pytest.approx((own - floor) / (ceiling - floor))
    assert given == 3
    areas = []
    for cost, accuracy in (fixed, oracle):
        grid = np.unique(np.concatenate([cost, [1.0, 576.0]]))
        areas.append(np.trapezoid(np.interp(grid, cost, accuracy), grid) / 575)
    own = large["metrics"]["aiq"]["value"]
    expected = (own - areas[0]) / (areas[1] - areas[0])
    assert large["metrics"]["gap_closed"]["value"] == pytest.approx(expected)


def test_a_peek_is_paid_for_where_it_is_thrown_away(world, p, result):
    peeking = evaluate(
        world.log,
        p,
        split=world.split,
        gflops=2.0 * world.log.costs,
        reads={"router": ["image", "peek"]},
        settings=replace(FAST, budgets=(64.0,)),
    )
    (row,) = rows_of(peeking, "router")
    shares = row["shares"]
    alone = sum(share * float(option) for option, share in shares.items())
    assert row["cost"]["value"] == pytest.approx(alone + (1 - shares["1"]) * 1.0)
    assert row["gflops"]["value"] == pytest.approx(2 * row["cost"]["value"])
    assert peeking["fixed_curve"]["cost"] == result["fixed_curve"]["cost"]


def test_saving_keeps_what_it_was_told_to_on_the_calibrate_part(world, result):
    scores = world.log.scores[world.split.calibrate]
    best = scores.mean(axis=0).max()
    for name, share in (("saved_at_99", 0.99), ("saved_at_100", 1.0)):
        policy = result["metrics"][name]["policy"]
        assert policy["fallback"] or policy["calibration"]["accuracy"] >= share * best - 1e-9
    first, second = (
        result["metrics"][name]["hindsight"]["value"] for name in ("saved_at_99", "saved_at_100")
    )
    assert second <= first


def two_models(build_log, *, weak, strong, n=800, seed=0):
    generator = np.random.default_rng(seed)
    need = generator.random(n)
    scores = np.stack([generator.random(n) < weak * 2 * (1 - need), generator.random(n) < strong])
    log = build_log(scores.T.astype(float), costs=np.tile([1.0, 2.0], (n, 1)))
    return log, np.stack([1 - need, np.full(n, 0.9)], axis=1)


def test_two_options_have_an_apgr(build_log):
    log, p = two_models(build_log, weak=0.45, strong=0.9)
    split = split_by_group(log.groups)
    found = evaluate(log, p, split=split, settings=FAST)["metrics"]
    assert 0.5 < found["apgr"]["low"] < found["apgr"]["value"] < found["apgr"]["high"] < 1
    assert 0 < found["cpt_50"]["value"] < found["cpt_80"]["value"] < 1
    ends = found["ends"]
    assert (ends["weak"], ends["strong"]) == ("1", "9")
    scores, margin = log.scores[split.test], (p[:, 1] - p[:, 0])[split.test]
    sent = margin >= np.quantile(margin, 0.5)
    at = int(np.argmin(np.abs(np.array(ends["calls"]) - sent.mean())))
    expected = np.where(sent, scores[:, 1], scores[:, 0]).mean()
    assert ends["accuracy"][at] == pytest.approx(expected)


def test_a_random_router_has_an_apgr_of_a_half(build_log):
    log, _ = two_models(build_log, weak=0.4, strong=0.9, n=4000)
    p = np.random.default_rng(1).random(log.scores.shape)
    found = evaluate(log, p, split=split_by_group(log.groups), settings=FAST)["metrics"]["apgr"]
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] < 0.2


@pytest.mark.parametrize(("weak", "strong"), [(0.45, 0.3), (0.4, 0.42)])
def test_apgr_is_undefined_unless_the_strong_end_wins(build_log, weak, strong):
    log, p = two_models(build_log, weak=weak, strong=strong)
    found = evaluate(log, p, split=split_by_group(log.groups), settings=FAST)["metrics"]
    for name in ("apgr", "cpt_50", "cpt_80"):
        assert found[name]["value"] is None
        assert found[name]["reason"].startswith("undefined: 9 is not")


def test_oracles_under_every_rule(result, world):
    assert set(result["oracles"]) == {"first_correct", "stable"}  # the log holds no answers
    raw = result["oracles"]["first_correct"]["raw"]
    assert raw["accuracy"] == rows_of(result, "oracle")[0]["accuracy"]
    stable = result["oracles"]["stable"]["raw"]["accuracy"]["value"]
    assert stable <= raw["accuracy"]["value"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_the_corrected_curve_is_that_of_knowing_where_to_look(share):
    """Simulated guesses whose knowledge is known: unbiased at every price, within 4 errors."""
    generator = np.random.default_rng(4)
    n, costs = 60_000, np.array([1.0, 9.0, 36.0, 144.0])
    first = generator.integers(0, 5, n)  # 4: knows nowhere
    knows = np.arange(4) >= first[:, None]
    chance = generator.choice([0.0, 0.25, 0.5], n)
    scores = (knows | (generator.random((n, 4)) < chance[:, None])).astype(float)
    wide = np.tile(costs, (n, 1))
    accuracy, cost = corrected_curve(scores, wide, chance, points=64)
    edges = np.unique(((1 - chance)[:, None] / (costs[1:] - 1.0)).ravel())
    at = int(share * len(edges))
    price = 0.0 if at == 0 else edges[at - 1]
    looks = np.hstack([np.ones((n, 1), bool), price * (costs[1:] - 1) < (1 - chance)[:, None]])
    known = knows & looks
    k = np.where(known.any(axis=1), np.argmax(known, axis=1), 0)
    right = np.where(known.any(axis=1), 1.0, chance)
    for found, truth in ((accuracy[:, at], right), (cost[:, at], costs[k])):
        error = (found - truth).std() / np.sqrt(n)
        assert abs(found.mean() - truth.mean()) <= 4 * error + 1e-12
