"""From what became of requests to figures: throughput, latency, lost and wrong, growth."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from experiments.benchmarks.serving.clients import Driven, Record
from experiments.benchmarks.serving.workload import repeats

ROUTING = ("features", "route")
QUEUE = "queue"
BLOCK = 30.0
"""Seconds that are averaged before growth is estimated: neighbours are not independent."""
NEAR = 100
"""Requests within which the return of an image is counted as a repeat."""
Verdict = Literal["right", "lost", "wrong"]


@dataclass(frozen=True)
class Truth:
    """What the offline pipeline says.

    Attributes:
        text: The answer.
        scale: At which it was given.
    """

    text: str
    scale: int


Truths = Mapping[tuple[str, str], Truth]
"""By id of the question and model."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One level on one server.

    Attributes:
        warm: Seconds before anything is measured.
        seconds: That are measured.
        driven: What came of it.
        server: Seconds of processor time that the server took meanwhile.
    """

    warm: float
    seconds: float
    driven: Driven
    server: float

    def measured(self) -> list[Record]:
        """Whole answers to requests that began while it was measured."""
        end = self.warm + self.seconds
        records = self.driven.records
        return [one for one in records if self.warm <= one.began < end and not one.problem]

    def throughput(self) -> float:
        """Whole answers a second that came while it was measured."""
        end = self.warm + self.seconds
        came = [one for one in self.driven.records if self.warm <= one.ended < end]
        return sum(not one.problem for one in came) / self.seconds


def judge(record: Record, truths: Truths, *, scales: bool) -> Verdict:
    """Whether an answer is the offline pipeline's.

    Args:
        record: The request.
        truths: What is right.
        scales: Whether the scale must be right too: it must if the server tells it.
    """
    if record.problem:
        return "lost"
    truth = truths[record.call.question, record.call.model]
    same = record.text.strip() == truth.text and (not scales or record.scale == truth.scale)
    return "right" if same else "wrong"


def counted(records: Iterable[Record], truths: Truths, *, scales: bool) -> dict[str, int]:
    """How many requests there were, and what became of them; "refused" counts 429 answers."""
    records = list(records)
    verdicts = [judge(record, truths, scales=scales) for record in records]
    return {
        "asked": len(records),
        **{name: verdicts.count(name) for name in ("right", "lost", "wrong")},
        "refused": sum(record.refused for record in records),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at the 50th, 95th and 99th percentile, linear between neighbours."""
    if not seconds:
        return {}
    found = np.percentile(seconds, [50, 95, 99]) * 1000
    return dict(zip(("p50", "p95", "p99"), map(float, found), strict=True))


def summarized(
    cells: Sequence[Cell],
    truths: Truths,
    images: Mapping[str, str],
    *,
    clients: int,
    scales: bool,
) -> dict[str, Any]:
    """All rounds of one strength on one server.

    Args:
        cells: The rounds.
        truths: What is right.
        images: Id of a question to its image.
        clients: How many asked at a time.
        scales: As for :func:`judge`.

    Returns:
        ``answers_per_second`` is the mean over rounds; latencies are milliseconds, over the
        requests of all rounds, waiting after a 429 included; ``cores`` are processor seconds a
        second, and ``server_cpu_ms`` the server's processor time for one answer, which other work
        on the machine hardly changes.
    """
    measured = [record for cell in cells for record in cell.measured()]
    wall = sum(cell.driven.wall for cell in cells)
    asked = [[images[one.call.question] for one in cell.driven.records] for cell in cells]
    rounds = [cell.throughput() for cell in cells]
    records = [record for cell in cells for record in cell.driven.records]
    answered = sum(not record.problem for record in records)
    return {
        "clients": clients,
        "measured": len(measured),
        "answers_per_second": statistics.fmean(rounds),
        "rounds": rounds,
        "latency_ms": percentiles([one.ended - one.began for one in measured]),
        "first_piece_ms": percentiles(
            [one.first - one.began for one in measured if one.first is not None]
        ),
        "counts": counted(records, truths, scales=scales),
        "cores": {
            "clients": sum(cell.driven.cpu for cell in cells) / wall,
            "server": sum(cell.server for cell in cells) / wall,
        },
        "server_cpu_ms": 1000 * sum(cell.server for cell in cells) / max(1, answered),
        "picture_repeats": {
            f"within_{NEAR}": statistics.fmean(repeats(one, within=NEAR) for one in asked),
            "within_the_level": statistics.fmean(repeats(one) for one in asked),
        },
        "server_says_ms": stages(measured),
        "routing": routing_share(measured),
    }


def stages(records: Iterable[Record]) -> dict[str, float]:
    """Mean milliseconds of each stage, as the server says."""
    told = [one.milliseconds for one in records if one.milliseconds]
    names = dict.fromkeys(name for one in told for name in one)
    return {name: statistics.fmean(one.get(name, 0.0) for one in told) for name in names}


def routing_share(records: Iterable[Record]) -> dict[str, float]:
    """Features and decision as a share of the time of requests.

    Returns:
        ``of_request``: of the time that clients waited. ``of_work``: of the time that the server
        tells, without waiting in its queue, which is the larger share. Empty where it tells none.
    """
    told = [one for one in records if one.milliseconds]
    if not told:
        return {}
    routing = sum(one.milliseconds.get(name, 0.0) for one in told for name in ROUTING)
    work = sum(ms for one in told for name, ms in one.milliseconds.items() if name != QUEUE)
    waited = sum(1000 * (one.ended - one.began) for one in told)
    return {"of_request": routing / waited, "of_work": routing / work}


def growth(times: Sequence[float], mib: Sequence[float], *, warm: float) -> dict[str, float]:
    """How fast memory grows after a warm-up: a line through means over blocks of `BLOCK` seconds.

    Args:
        times: Seconds.
        mib: Memory at these times.
        warm: Seconds that are left out.

    Returns:
        MiB a minute with its 95 % interval (t distribution), and mean, first and last block in
        MiB. Only the number of ``blocks`` where there are fewer than three.
    """
    at, size = np.asarray(times), np.asarray(mib)
    late = at >= warm
    at, size = at[late], size[late]
    block = ((at - warm) // BLOCK).astype(int)
    kept = [number for number in np.unique(block) if number < (at[-1] - warm) // BLOCK]
    if len(kept) < 3:
        return {"blocks": len(kept)}
    x = np.array([at[block == number].mean() for number in kept]) / 60
    y = np.array([size[block == number].mean() for number in kept])
    line = stats.linregress(x, y)
    margin = stats.t.ppf(0.975, len(kept) - 2) * line.stderr
    return {
        "blocks": len(kept),
        "mib_per_minute": float(line.slope),
        "low": float(line.slope - margin),
        "high": float(line.slope + margin),
        "mean_mib": float(y.mean()),
        "first_mib": float(y[0]),
        "last_mib": float(y[-1]),
    }
