"""The page and the figures of a load result."""

from __future__ import annotations

from experiments.benchmarks.serving.arms import SATURATED, arms
from experiments.benchmarks.serving.clients import Driven, Record
from experiments.benchmarks.serving.figures import LOOKS, load_figure, memory_figure
from experiments.benchmarks.serving.page import markdown
from experiments.benchmarks.serving.summary import Cell, Truth, counted, growth, summarized
from experiments.benchmarks.serving.targets import against_targets, ratios
from experiments.benchmarks.serving.workload import Call
from m3router.m3core.matryoshka.scales import M3_SCALES

TRUTHS = {("q", "m3-auto"): Truth("red", 9)}
TIMES = {"queue": 5.0, "vision": 90.0, "features": 1.0, "route": 1.0, "language": 8.0}


def measured(clients, *, times):
    call = Call(question="q", model="m3-auto", streamed=True)
    records = [
        Record(
            call=call,
            began=k / 10,
            first=k / 10 + 0.05,
            ended=k / 10 + 0.1,
            text="red",
            scale=9,
            milliseconds=times,
        )
        for k in range(10 * clients)
    ]
    driven = Driven(records=records, cpu=0.1, wall=1.0 * clients)
    cell = Cell(warm=0.0, seconds=1.0 * clients, driven=driven, server=1.5)
    return summarized([cell], TRUTHS, {"q": "q.png"}, clients=clients, scales=bool(times))


def results():
    table = arms(M3_SCALES)
    levels = {
        name: [measured(clients, times=TIMES if arm.tells_scale else {}) for clients in arm.clients]
        for name, arm in table.items()
    }
    times = [2.0 * k for k in range(300)]
    record = Record(
        call=Call(question="q", model="m3-auto", streamed=False), began=0, problem="gone"
    )
    saturation = {
        "minutes": 10.0,
        "clients": SATURATED,
        "warm_seconds": 120.0,
        "answers_per_second_by_minute": [11.0, 12.0],
        "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        "counts": counted([record], TRUTHS, scales=True),
        "memory": growth(times, [500.0 + t / 600 for t in times], warm=120),
    }
    servers = {name: arm.server for name, arm in table.items()}
    return {
        "command": "python -m something",
        "commit": "abc",
        "date": "2026-01-01",
        "machine": {
            "cores": 2,
            "processor": "x86_64",
            "threads": 2,
            "versions": {"torch": "1", "transformers": "2"},
        },
        "levels": levels,
        "saturation": saturation,
        "ratios": ratios(levels),
        "targets": against_targets(levels, servers, saturation),
    }


def test_the_page_tells_everything():
    page = markdown(results())
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    for name in arms(M3_SCALES):
        assert any(row[0] == f"| {name}" for row in rows)
    assert "1 lost, 0 wrong" in page
    assert "growth +0.100 MiB a minute" in page
    assert "| lost answers of m3router serve of" in page and "**no** |" in page
    assert "| auto | 1 | 5.00 | 90.00 | 1.00 | 1.00 | 8.00 | 2.00 % | 2.00 % |" in page
    heads = [row for row in rows if row[0] == "| clients"]
    assert all(row[1:] == ["1", "2", "4", "8", "16", "32", "64 |"] for row in heads) and heads


def test_figures_show_every_arm():
    found = results()
    assert set(LOOKS) == set(found["levels"])
    left, right = load_figure(found["levels"]).axes
    assert len(left.lines) == len(LOOKS) and len(right.lines) == 2 * len(LOOKS)
    (axes,) = memory_figure([0.0, 60.0], [500.0, 510.0], warm=30.0).axes
    assert list(axes.lines[0].get_xdata()) == [0.0, 1.0]
