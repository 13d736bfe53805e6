"""What was to be reached, beside what was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmarks.serving.arms import OURS

TIMES, AT = 2.0, 16
"""So many times the throughput of one request at a time, with so many clients."""
ROUTING = 0.02
"""Most that routing may take of a request's time."""
FLAT = 0.01
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
    )
    found = {}
    for above, below in pairs:
        ours, theirs = rates(levels, above), rates(levels, below)
        found[f"{above} / {below}"] = {
            str(clients): ours[clients] / theirs[clients] for clients in ours if theirs.get(clients)
        }
    alone = rates(levels, "auto").get(1)
    if alone:
        found["auto / auto with one client"] = {
            str(clients): rate / alone for clients, rate in rates(levels, "auto").items()
        }
    return found


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
    for other in ("auto with one client", "one at a time"):
        value = ratios(levels).get(f"auto / {other}", {}).get(str(AT))
        if value is not None:
            text = f"answers a second with {AT} clients, over {other}: at least {TIMES:g}"
            found.append({"target": text, "value": value, "met": value >= TIMES})
    for level in levels.get("auto", []):
        for part, share in level["routing"].items():
            text = f"routing, share {part}, {level['clients']} clients: less than {ROUTING:g}"
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
