"""What was to be reached, beside what was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmarks.serving.arms import OURS

TIMES, AT = 2.0, 16
"""So many times the throughput of one request at a time, with so many clients."""
ROUTING = 0.02
"""Most that routing may take of a request's time."""
FLAT = 0.02
"""Most that memory may grow in the long run, as a share of itself, at the interval's upper end."""

Levels = Mapping[str, list[dict[str, Any]]]
"""Arm -> what was measured for each number of clients."""


def rates(levels: Levels, arm: str) -> dict[int, float]:
    """Number of clients to answers a second."""
    return {one["clients"]: one["answers_per_second"] for one in levels.get(arm, [])}


def ratios(levels: Levels) -> dict[str, dict[str, float]]:
    """Throughput of one arm over another's, by number of clients."""
    pairs = (
        ("auto", "finest"),
        ("auto", "transformers"),
        ("finest", "transformers"),
        ("auto", "one at a time"),
        ("auto, together", "one at a time, together"),
    )
    found = {}
    for above, below in pairs:
        ours, theirs = rates(levels, above), rates(levels, below)
        found[f"{above} / {below}"] = {
            str(clients): ours[clients] / theirs[clients] for clients in ours if theirs.get(clients)
        }
    for arm in ("auto", "auto, together"):
        own = rates(levels, arm)
        found[f"{arm} / {arm}, one client"] = {
            str(clients): rate / own[1] for clients, rate in own.items() if own.get(1)
        }
    return {name: one for name, one in found.items() if one}


def against_targets(
    levels: Levels, servers: Mapping[str, str], saturation: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Each target with its value and whether it is met; only of what was measured.

    Args:
        levels: See `Levels`.
        servers: Arm to its server.
        saturation: The long run, if there was one.
    """
    found = []
    for name, by_clients in ratios(levels).items():
        if str(AT) in by_clients and ("one client" in name or "one at a time" in name):
            value = by_clients[str(AT)]
            text = f"answers a second with {AT} clients, {name}: at least {TIMES:g}"
            found.append({"target": text, "value": value, "met": value >= TIMES})
    for arm in ("auto", "auto, together"):
        for level in levels.get(arm, []):
            share = level["routing"].get("of_request")
            if share is not None:
                text = f"routing of the request's time, {arm}, {level['clients']} clients: "
                text += f"less than {ROUTING:g}"
                found.append({"target": text, "value": share, "met": share < ROUTING})
    counts = [
        level["counts"] for arm in levels if servers[arm] == OURS for level in levels[arm]
    ] + ([saturation["counts"]] if saturation else [])
    for name in ("lost", "wrong"):
        if counts:
            value = sum(one[name] for one in counts)
            asked = sum(one["asked"] for one in counts)
            text = f"{name} answers of {OURS} of {asked}: 0"
            found.append({"target": text, "value": value, "met": value == 0})
    if saturation and "high" in saturation["memory"]:
        memory = saturation["memory"]
        value = memory["high"] * saturation["minutes"] / memory["mean_mib"]
        text = f"growth in {saturation['minutes']:g} minutes, share of memory: at most {FLAT:g}"
        found.append({"target": text, "value": value, "met": value <= FLAT})
    return found
