"""The page of a result."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown(results: Mapping[str, Any]) -> str:
    """The page.

    Args:
        results: What the benchmark wrote.
    """
    machine = results["machine"]
    cores = ", ".join(f"{role} on {core}" for role, core in machine["roles"].items())
    parts = [
        "# What the gateway adds",
        f"Written by `{results['command']}`, commit {results['commit']}, {results['date']}. "
        f"{machine['cores']} cores ({machine['processor']}): {cores}; load of the machine before "
        f"{machine['load_before']:.1f}, {results['rounds']} rounds of {results['seconds']:g} s for "
        "each arm and level. What is measured and how: [gateway/README.md](../gateway/README.md).",
        "![Added time and throughput](gateway.png)",
        "## Targets",
        _table(
            ["target", "value", "met"],
            (
                [one["target"], f"{one['value']:.3g}", "yes" if one["met"] else "**no**"]
                for one in results["targets"]
            ),
        ),
    ]
    for group in results["groups"]:
        parts += [f"## {group['name'].capitalize()}", _levels(group["levels"])]
    return "\n\n".join(parts) + "\n"


def _levels(levels: Sequence[Mapping[str, Any]]) -> str:
    head = ["clients", "upstream takes, ms", "alone: median, p99, ms", "answers/s"]
    head += ["added at the median, ms", "at p99", "to the first byte", "throughput"]
    head += ["ms of a core for an answer: gateway", "beside it", "decided", "lost"]
    rows = []
    for level in levels:
        alone, through = level["rounds"]["alone"], level["rounds"]["through"]
        found = level["compared"]
        cores = {
            role: statistics.fmean(one["cores"].get(role, 0.0) for one in through)
            for role in ("gateway", "beside")
        }
        rate = statistics.fmean(one["per_second"] for one in through)
        asked = sum(sum(one["reasons"].values()) for one in through)
        routed = sum(one["reasons"].get("routed", 0) for one in through)
        rows.append(
            [
                str(level["clients"]),
                f"{1000 * level['upstream_seconds']:.0f}",
                f"{_mean(alone, 'median_ms'):.1f}, {_mean(alone, 'p99_ms'):.1f}",
                f"{_mean(alone, 'per_second'):.1f}",
                *(_ends(found[f"added_{name}"]) for name in ("median_ms", "p99_ms")),
                _ends(found["added_first_median_ms"]),
                _ends(found["throughput"]),
                *(f"{1000 * one / rate:.2f}" if rate else "–" for one in cores.values()),
                f"{routed / asked:.1%}" if asked else "–",
                str(sum(one["lost"] for one in [*alone, *through])),
            ]
        )
    return _table(head, rows)


def _mean(rounds: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(one[name] for one in rounds)


def _ends(found: Mapping[str, float]) -> str:
    ends = f" ({found['low']:.2f} to {found['high']:.2f})" if "low" in found else ""
    return f"{found['mean']:.2f}{ends}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
