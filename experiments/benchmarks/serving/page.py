"""The page of a result: what was reached, at every level, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Level = Mapping[str, Any]
_STAGES = ("picture", "queue", "vision", "features", "peek", "route", "language")


def markdown(results: Mapping[str, Any]) -> str:
    """The page.

    Args:
        results: What the benchmark wrote.
    """
    levels = results["levels"]
    parts = [
        "# Load on the server",
        f"Written by `{results['command']}`, commit {results['commit']}, {results['date']}. "
        f"{_machine(results['machine'])} What is measured and how: "
        "[serving/README.md](../serving/README.md).",
        "![Throughput and latency](serving.png)",
        "## Targets",
        _table(
            ["target", "value", "met"],
            (
                [one["target"], f"{one['value']:.4g}", _yes(one["met"])]
                for one in results["targets"]
            ),
        ),
        "## Answers a second",
        _by_clients(levels, lambda one: f"{one['answers_per_second']:.1f}"),
        "Each round: "
        + "; ".join(
            f"{arm} {one['clients']}: " + ", ".join(f"{rate:.1f}" for rate in one["rounds"])
            for arm, found in levels.items()
            for one in found
            if one["clients"] in (1, 16, 64)
        )
        + ".",
        "## Latency, ms: median, 95th and 99th percentile",
        _by_clients(levels, lambda one: _spread(one["latency_ms"])),
        "## Time to the first piece of a streamed answer, ms",
        _by_clients(levels, lambda one: _spread(one["first_piece_ms"])),
        "## Ratios of answers a second",
        _ratios(results["ratios"]),
        "## Where the time goes, ms, as the server says; routing's share",
        _stages(levels),
        "## Requests, and who used the processor",
        _counts(levels),
    ]
    if "saturation" in results:
        parts += ["## At saturation", *_saturation(results["saturation"])]
    return "\n\n".join(parts) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = machine["versions"]
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['threads']} threads, "
        f"torch {versions['torch']}, transformers {versions['transformers']}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def _spread(found: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.0f}" for value in found.values()) or "–"


def _by_clients(levels: Mapping[str, list[Level]], show: Any) -> str:
    """One row for each arm, one column for each number of clients."""
    clients = sorted({one["clients"] for found in levels.values() for one in found})
    rows = []
    for arm, found in levels.items():
        cells = {one["clients"]: show(one) for one in found}
        rows.append([arm, *(cells.get(number, "") for number in clients)])
    return _table(["clients", *map(str, clients)], rows)


def _ratios(ratios: Mapping[str, Mapping[str, float]]) -> str:
    clients = sorted({int(one) for found in ratios.values() for one in found})
    rows = [
        [name, *(f"{found[str(one)]:.2f}" if str(one) in found else "" for one in clients)]
        for name, found in ratios.items()
        if found
    ]
    return _table(["clients", *map(str, clients)], rows)


def _stages(levels: Mapping[str, list[Level]]) -> str:
    told = [one["server_says_ms"] for found in levels.values() for one in found]
    names = [name for name in _STAGES if any(one.get(name) for one in told)]
    rows = []
    for arm, found in levels.items():
        for one in found:
            if one["server_says_ms"]:
                times = [f"{one['server_says_ms'].get(name, 0.0):.2f}" for name in names]
                shares = [f"{100 * share:.2f} %" for share in one["routing"].values()]
                rows.append([arm, str(one["clients"]), *times, *shares])
    return _table(["arm", "clients", *names, "of requests", "of work"], rows)


def _counts(levels: Mapping[str, list[Level]]) -> str:
    names = ["asked", "right", "lost", "wrong", "refused"]
    rows = []
    for arm, found in levels.items():
        for one in found:
            counts = [str(one["counts"][name]) for name in names]
            near, level = (f"{100 * share:.0f} %" for share in one["picture_repeats"].values())
            cores = [f"{one['cores'][name]:.2f}" for name in ("server", "clients")]
            spent = f"{one['server_cpu_ms']:.1f}"
            rows.append([arm, str(one["clients"]), *counts, near, level, *cores, spent])
    head = ["arm", "clients", *names, "image came within 100 requests", "within the level"]
    return _table([*head, "cores: server", "clients", "server's ms of a core for an answer"], rows)


def _saturation(found: Mapping[str, Any]) -> list[str]:
    memory, counts = found["memory"], found["counts"]
    rates = ", ".join(f"{rate:.1f}" for rate in found["answers_per_second_by_minute"])
    parts = [
        "![Memory](serving-memory.png)",
        f"{found['clients']} clients, all scales mixed, {found['minutes']:g} minutes: "
        f"{counts['asked']} requests, {counts['lost']} lost, {counts['wrong']} wrong, "
        f"{counts['refused']} refused for a while. Latency {_spread(found['latency_ms'])} ms "
        "(median, 95th, 99th percentile). Answers a second by minute after the warm-up: "
        f"{rates or '–'}.",
    ]
    if "high" in memory:
        parts.append(
            f"Memory after {found['warm_seconds']:g} s: {memory['first_mib']:.1f} MiB, at the end "
            f"{memory['last_mib']:.1f} MiB; growth {memory['mib_per_minute']:+.3f} MiB a minute "
            f"({memory['low']:+.3f} to {memory['high']:+.3f})."
        )
    return parts
