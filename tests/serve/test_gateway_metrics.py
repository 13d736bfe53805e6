"""The gateway's page of metrics, read as Prometheus reads it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from m3router.router.inference.decision import Decision
from m3router.router.serve.gateway.metrics import LOADS, MOST_NAMES, GatewayMetrics, share

OPTIONS = ("small", "large")
PREFIX = "m3router_gateway_"


def samples(page: bytes) -> dict[tuple, float]:
    return {
        (one.name.removeprefix(PREFIX), *sorted(one.labels.values())): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


def names(page: bytes) -> set[str]:
    """Of all samples on a page."""
    families = text_string_to_metric_families(page.decode())
    return {one.name for family in families for one in family.samples}


def judged(option: str = "small", estimate: float = 0.5, familiarity: float | None = 0.75):
    decision = Decision(
        option=option,
        estimates={option: estimate},
        costs={},
        cost_unit="tokens",
        reason="",
        familiarity=familiarity,
        milliseconds={"vision": 2.0},
    )
    return SimpleNamespace(decision=decision)


def some_traffic(metrics: GatewayMetrics) -> None:
    metrics.decided(judged(estimate=0.9), 0.001)
    metrics.decided(judged("large", estimate=0.6, familiarity=0.005), 0.002)
    metrics.request(200, "small", "routed", 0.2, 0.1)
    metrics.request(429, "large", "unlike", 0.3, None)
    metrics.upstream("gpu-1", 200)
    metrics.upstream("gpu-1", "timeout")
    metrics.usage("small", 100, 7, 60, 40, 0.5)
    metrics.usage("large", 150, 7, 110, -10, None)
    metrics.escalated()


def test_everything_an_operator_wants_is_on_the_page():
    load = {"waiting": 2.0, "cached": 5.0, "image_bytes": 1e6, "of another kind": 1.0}
    metrics = GatewayMetrics(options=OPTIONS, unlike=0.01, load=lambda: load)
    some_traffic(metrics)
    page = samples(metrics.page())
    expected = {
        ("requests_total", "200", "small"): 1,
        ("requests_total", "200", "large"): 0,
        ("requests_total", "429", "large"): 1,
        ("reasons_total", "unlike"): 1,
        ("request_seconds_count",): 2,
        ("first_byte_seconds_sum",): 0.1,
        ("decision_seconds_bucket", "0.001"): 1,
        ("stage_seconds_total", "vision"): 0.004,
        ("estimated_accuracy_sum",): 1.5,
        ("estimated_accuracy_count",): 2,
        ("estimated_accuracy_recent",): 0.75,
        ("unlike_total",): 1,
        ("familiarity_bucket", "0.01"): 1,
        ("drift_score",): 0.5 - 0.01,
        ("drift_images",): 2,
        ("escalations_total",): 1,
        ("upstream_answers_total", "gpu-1", "timeout"): 1,
        ("tokens_total", "image", "large"): 110,
        ("tokens_saved_total",): 40,
        ("tokens_overspent_total",): 10,
        ("money_saved_total",): 0.5,
        ("waiting",): 2,
        ("cached",): 5,
        ("image_bytes",): 1e6,
    }
    assert {name: page[name] for name in expected} == pytest.approx(expected)


def test_nothing_a_client_or_an_upstream_writes_becomes_a_label_or_breaks_a_counter():
    metrics = GatewayMetrics(options=OPTIONS)
    for number in range(1000):
        metrics.request(number, f"made up {number}", f"reason {number}", 0.0, None)
        metrics.upstream(f"server {number}", "what\never" if number % 2 else number)
    for value in (float("nan"), float("inf"), -float("inf"), 1e300, -5.0):
        metrics.usage("small", value, value, value, value, value)
        metrics.decided(judged(estimate=value, familiarity=None), 0.0)
    page = samples(metrics.page())
    assert len([name for name in page if name[0] == "reasons_total"]) == MOST_NAMES + 1
    assert {name[2] for name in page if name[0] == "requests_total"} == {"other", *OPTIONS}
    assert page[("tokens_total", "prompt", "small")] == 0.0
    assert page[("tokens_overspent_total",)] == 5.0


def test_drift_is_the_distance_from_a_uniform_distribution_over_the_last_images():
    metrics = GatewayMetrics()
    for number in range(2000):
        metrics.decided(judged(familiarity=0.0005), 0.0)
        assert number or samples(metrics.page())[("drift_score",)] == pytest.approx(0.999)
    for number in range(1000):
        metrics.decided(judged(familiarity=(number + 1) / 1000), 0.0)
    page = samples(metrics.page())
    assert page[("drift_images",)] == 1000
    assert page[("drift_score",)] == pytest.approx(0, abs=1e-9)


def _process(folder: Path, number: int, page: multiprocessing.Queue) -> None:
    share(folder, number)
    metrics = GatewayMetrics(options=OPTIONS, load=lambda: {"waiting": 3.0}, folder=folder)
    some_traffic(metrics)
    page.put(metrics.page())


def test_the_page_of_several_processes_is_their_sum_and_survives_deaths(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    alone = GatewayMetrics(options=OPTIONS, load=lambda: {"waiting": 3.0})
    some_traffic(alone)
    for number in (0, 1, 1):  # the second 1 takes a dead one's place
        process = context.Process(target=_process, args=(tmp_path, number, queue))
        process.start()
        page = samples(queue.get(timeout=60))
        process.join()
    means = {"drift_score", "estimated_accuracy_recent"}
    gauges = {*LOADS, "drift_images"}
    gauges |= {"estimated_accuracy_decisions"}
    expected = {
        name: value * (1 if name[0] in means else 2 if name[0] in gauges else 3)
        for name, value in samples(alone.page()).items()
        if not name[0].endswith("_created")
    }
    assert page == pytest.approx(expected)
    assert {name: page[name] for name in page if name[0] == "requests_total"}
    assert len(list(tmp_path.glob("*.db"))) == 2 * 4  # files do not pile up
