"""Which processor core each process runs on, so that what shares one is known."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.serving.servers import Server, below

ROLES = ("upstream", "gateway", "beside", "clients")
"""The server, the processes that relay, those that decide and read images, and who asks."""


def assigned(cores: Sequence[int]) -> dict[str, int]:
    """Role to core; with fewer than four, roles share.

    The upstream shares its core with nobody from two on, the gateway from three on. With two, the
    processes beside the gateway and those who ask are on the gateway's core, which costs it what
    they take.
    """
    places = {1: (0, 0, 0, 0), 2: (0, 1, 1, 1), 3: (0, 1, 2, 2)}.get(len(cores), (0, 1, 2, 3))
    return {role: cores[place] for role, place in zip(ROLES, places, strict=True)}


def pin(process: int, core: int) -> None:
    """Let a process, with all of its threads, run on one core."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def pin_server(server: Server, core: int, beside: int) -> None:
    """A server on one core, and what it started on another."""
    pin(server.process.pid, core)
    for process in below(server.process.pid):
        with contextlib.suppress(FileNotFoundError):
            pin(process, beside)
