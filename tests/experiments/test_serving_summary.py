"""The arithmetic of the load benchmark, against references written differently."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.benchmarks.serving.clients import Driven, Record
from experiments.benchmarks.serving.summary import (
    Cell,
    Truth,
    counted,
    growth,
    judge,
    percentiles,
    routing_share,
    stages,
    summarized,
)
from experiments.benchmarks.serving.targets import against_targets, ratios
from experiments.benchmarks.serving.workload import Call

TRUTHS = {
    ("a", "m3-auto"): Truth("red", 9),
    ("b", "m3-auto"): Truth("12", 576),
}


def record(question="a", *, began=0.0, ended=1.0, **more):
    more = {"text": TRUTHS[question, "m3-auto"].text, "scale": 9, **more}
    call = Call(question=question, model="m3-auto", streamed="first" in more)
    return Record(call=call, began=began, ended=ended, **more)


def cell(*records, warm=1.0, seconds=10.0):
    driven = Driven(records=list(records), cpu=1.5, wall=12.0)
    return Cell(warm=warm, seconds=seconds, driven=driven, server=18.0)


def between_neighbours(values, share):
    """The definition of a linear percentile, by hand."""
    values = sorted(values)
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentiles_lie_between_neighbours(values):
    found = percentiles(values)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        expected = 1000 * between_neighbours(values, share)
        assert found[name] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_of_nothing_there_are_no_percentiles():
    assert percentiles([]) == {}


@pytest.mark.parametrize(
    ("more", "told", "silent"),
    [
        ({}, "right", "right"),
        ({"text": " red\n"}, "right", "right"),
        ({"text": "Red"}, "wrong", "wrong"),
        ({"text": ""}, "wrong", "wrong"),
        ({"scale": 36}, "wrong", "right"),
        ({"scale": None}, "wrong", "right"),
        ({"problem": "500: no"}, "lost", "lost"),
        ({"problem": "cut", "text": "red"}, "lost", "lost"),
    ],
)
def test_an_answer_is_right_lost_or_wrong(more, told, silent):
    one = record(**more)
    assert judge(one, TRUTHS, scales=True) == told
    assert judge(one, TRUTHS, scales=False) == silent


def test_every_request_is_counted_once():
    records = [
        record(),
        record(text="blue"),
        record(problem="gone", refused=2),
        record("b", scale=576, refused=1),
        record("b", scale=144),
    ]
    found = counted(records, TRUTHS, scales=True)
    assert found == {"asked": 5, "right": 2, "lost": 1, "wrong": 2, "refused": 3}


def test_only_what_falls_into_the_window_is_measured():
    early = record(began=0.5, ended=1.5)  # its latency is not measured, its end counts
    inside = record(began=2.0, ended=4.0)
    lost = record(began=3.0, ended=5.0, problem="gone")
    late = record(began=10.5, ended=11.5)  # its latency is measured, its end does not count
    after = record(began=11.0, ended=11.2)
    one = cell(early, inside, lost, late, after)
    assert one.measured() == [inside, late]
    assert one.throughput() == pytest.approx(2 / 10)


def test_rounds_are_pooled_and_throughput_is_their_mean():
    first = cell(*(record(began=t, ended=t + 0.5) for t in (2, 3, 4)))
    second = cell(record("b", began=2, ended=4, scale=576, first=2.5), record(problem="x"))
    found = summarized(
        [first, second], TRUTHS, {"a": "a.png", "b": "b.png"}, clients=2, scales=True
    )
    assert found["rounds"] == pytest.approx([0.3, 0.1])
    assert found["answers_per_second"] == pytest.approx(0.2)
    assert found["measured"] == 4
    assert found["latency_ms"]["p50"] == pytest.approx(500)
    assert found["first_piece_ms"] == pytest.approx({"p50": 500, "p95": 500, "p99": 500})
    assert found["counts"]["lost"] == 1
    assert found["cores"] == pytest.approx({"clients": 3 / 24, "server": 36 / 24})
    assert found["server_cpu_ms"] == pytest.approx(36_000 / 4)
    assert found["picture_repeats"]["within_the_level"] == pytest.approx((2 / 3 + 0) / 2)


def test_routing_is_a_share_of_waiting_and_of_work():
    times = {"queue": 50.0, "vision": 20.0, "features": 1.0, "route": 1.0, "language": 18.0}
    records = [record(began=0, ended=0.1, milliseconds=times), record()]  # one tells nothing
    assert routing_share(records) == pytest.approx({"of_request": 0.02, "of_work": 0.05})
    assert stages(records) == times
    assert routing_share([record()]) == {}


def test_growth_is_the_least_squares_line_through_blocks():
    draw = random.Random(3)
    times = [2.0 * k for k in range(300)]  # ten minutes
    mib = [400 + 0.5 * t / 60 + draw.gauss(0, 1) for t in times]
    found = growth(times, mib, warm=120)
    late = [(t, m) for t, m in zip(times, mib, strict=True) if t >= 120]
    blocks = [[(t, m) for t, m in late if 120 + 30 * k <= t < 150 + 30 * k] for k in range(16)]
    x, y = (np.array([np.mean([p[i] for p in b]) for b in blocks]) for i in (0, 1))
    x = x / 60
    (slope, start), cov = np.polyfit(x[:-1], y[:-1], 1, cov=True)
    margin = 2.1604 * cov[0, 0] ** 0.5  # t, 97.5 %, 13 degrees of freedom
    assert found["blocks"] == 15
    assert found["mib_per_minute"] == pytest.approx(slope)
    assert (found["low"], found["high"]) == pytest.approx(
        (slope - margin, slope + margin), abs=1e-4
    )
    assert found["low"] < 0.5 < found["high"]
    assert found["mean_mib"] == pytest.approx(y[:-1].mean())


def test_the_interval_of_growth_covers_the_truth_as_often_as_it_says():
    draw, times, covered = np.random.default_rng(0), np.arange(0, 300, 2.0), 0
    for _ in range(200):
        found = growth(times, 100 + draw.normal(size=len(times)), warm=0)
        covered += found["low"] <= 0 <= found["high"]
    assert 0.90 <= covered / 200 <= 0.99


def test_of_a_short_run_no_growth_is_told():
    assert growth([0, 40, 70], [1, 2, 3], warm=0) == {"blocks": 2}
    assert growth([0, 10], [1, 2], warm=60) == {"blocks": 0}


def level(clients, rate, *, lost=0, wrong=0, routing=0.01):
    counts = {"asked": 10, "right": 10 - lost - wrong, "lost": lost, "wrong": wrong, "refused": 0}
    return {
        "clients": clients,
        "answers_per_second": rate,
        "counts": counts,
        "routing": {"of_request": routing, "of_work": 2 * routing},
    }


def test_targets_say_what_was_reached():
    levels = {
        "auto": [level(1, 10.0, routing=0.02), level(16, 30.0, wrong=1, routing=0.001)],
        "one at a time": [level(1, 8.0), level(16, 20.0, lost=3)],
    }
    assert ratios(levels)["auto / one at a time"] == pytest.approx({"1": 1.25, "16": 1.5})
    servers = {"auto": "m3router serve", "one at a time": "one at a time"}
    memory = {"high": 1.5, "mean_mib": 500.0}
    saturation = {"counts": level(64, 1.0)["counts"], "minutes": 10, "memory": memory}
    found = {one["target"]: one for one in against_targets(levels, servers, saturation)}
    assert {name: (one["value"], one["met"]) for name, one in found.items()} == {
        "answers a second with 16 clients, auto / one at a time: at least 2": (1.5, False),
        "answers a second with 16 clients, auto / auto, one client: at least 2": (3.0, True),
        "routing of the request's time, auto, 1 clients: less than 0.02": (0.02, False),
        "routing of the request's time, auto, 16 clients: less than 0.02": (0.001, True),
        "lost answers of m3router serve of 30: 0": (0, True),
        "wrong answers of m3router serve of 30: 0": (1, False),
        "growth in 10 minutes, share of memory: at most 0.02": (0.03, False),
    }
    assert against_targets({}, {}, None) == []
