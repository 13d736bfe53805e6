"""From requests to figures: what is added, with its interval over rounds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.benchmarks.gateway.clients import Driven, Level, Record, shares

ADDED_MS = 3.0
"""Most that the gateway without an encoder may add at the median."""
LOST = 0.05
"""Most of the upstream's throughput that may be lost."""


def measured(level: Level, driven: Driven) -> list[Record]:
    """Whole answers to requests that began while it was measured."""
    end = level.warm + level.seconds
    return [one for one in driven.records if level.warm <= one.began < end and not one.problem]


def round_of(level: Level, driven: Driven) -> dict[str, Any]:
    """One round of one arm: milliseconds, answers a second, and what went otherwise."""
    records = measured(level, driven)
    end = level.warm + level.seconds
    whole = [one for one in driven.records if level.warm <= one.ended < end and not one.problem]
    times = [1000 * (one.ended - one.began) for one in records] or [math.nan]
    firsts = [1000 * (one.first - one.began) for one in records] or [math.nan]
    problems = Counter(one.problem[:100] for one in driven.records if one.problem)
    return {
        "asked": len(driven.records),
        "median_ms": float(np.median(times)),
        "p99_ms": float(np.percentile(times, 99)),
        "first_median_ms": float(np.median(firsts)),
        "per_second": len(whole) / level.seconds,
        "clients_cpu_ms": 1000 * driven.cpu / max(1, len(driven.records)),
        "options": shares(records),
        "reasons": dict(Counter(one.reason for one in records if one.reason)),
        "problems": dict(problems.most_common(3)),
        "lost": sum(problems.values()),
    }


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and its 95 % interval by Student's t; without an interval for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean}
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def compared(alone: Sequence[dict[str, Any]], through: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a server in between adds, round by round.

    Args:
        alone: Rounds of the upstream by itself.
        through: Rounds beside these, through the server.

    Returns:
        Added milliseconds (at the median and the 99th percentile of each round, to the last byte;
        at the median to the first), and the share of the upstream's answers a second.
    """
    pairs = list(zip(alone, through, strict=True))
    return {
        f"added_{name}": interval([b[name] - a[name] for a, b in pairs])
        for name in ("median_ms", "p99_ms", "first_median_ms")
    } | {
        "throughput": interval([b["per_second"] / (a["per_second"] or math.nan) for a, b in pairs])
    }


def against_targets(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target at each number of clients, and whether it is met at the mean."""
    found = []
    for group in groups:
        for level in group["levels"]:
            where = f"{group['name']}, {level['clients']} clients"
            if group["target"] == "added":
                value = level["compared"]["added_median_ms"]["mean"]
                told = f"adds under {ADDED_MS:g} ms at the median: {where}"
                found.append({"target": told, "value": value, "met": value < ADDED_MS})
            elif group["target"] == "throughput":
                value = level["compared"]["throughput"]["mean"]
                told = f"at least {1 - LOST:.0%} of the upstream's throughput: {where}"
                found.append({"target": told, "value": value, "met": value >= 1 - LOST})
    return found
