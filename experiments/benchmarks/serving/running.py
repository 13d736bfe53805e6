"""Drives the clients, level by level, and watches the servers meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

from experiments.benchmarks.serving.arms import SATURATED, Arm
from experiments.benchmarks.serving.clients import Driven, Level, Record, drive, learn
from experiments.benchmarks.serving.servers import Server
from experiments.benchmarks.serving.summary import (
    Cell,
    Truths,
    counted,
    growth,
    judge,
    percentiles,
    summarized,
)
from experiments.benchmarks.serving.workload import Question

EVERY = 2.0
"""Seconds between looks at a server's memory."""
WARM_SHARE = 0.2
"""Of the long run, left out of the growth of memory; at most `WARM_MOST` seconds."""
WARM_MOST = 120.0
_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        arms: By name.
        asked: Questions.
        truths: What is right.
        max_tokens: Longest answer.
        clients: Levels; an arm may have fewer.
        rounds: How often everything is measured, in turns.
        warm: Seconds before each level.
        seconds: That are measured of each level.
        seed: Of the workload.
    """

    arms: Mapping[str, Arm]
    asked: list[Question]
    truths: Truths
    max_tokens: int
    clients: tuple[int, ...]
    rounds: int
    warm: float
    seconds: float
    seed: int


class Bench:
    """Measures what a plan says, with a process of clients that lives as long as this is open."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._images = {one.id: one.image.name for one in plan.asked}
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=learn, initargs=(plan.asked,)
        )

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def levels(self, servers: Mapping[str, Server]) -> dict[str, list[dict[str, Any]]]:
        """All arms at all levels, in turns, every other round backwards.

        Args:
            servers: By name, started.

        Returns:
            Arm to its levels; see :func:`summarized`.
        """
        plan = self.plan
        cells: dict[tuple[str, int], list[Cell]] = {
            (name, clients): []
            for name, arm in plan.arms.items()
            for clients in plan.clients
            if clients in arm.clients
        }
        for number in range(plan.rounds):
            in_turns = sorted(cells, key=lambda one: one[1])
            for name, clients in in_turns[:: -1 if number % 2 else 1]:
                arm = plan.arms[name]
                level = self._level(arm, servers[arm.server], clients, plan.seconds, number)
                cells[name, clients].append(self._cell(level, servers[arm.server]))
                print(f"round {number + 1}: {name}, {clients} clients", file=sys.stderr)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.arms}
        for (name, clients), rounds in cells.items():
            summary = summarized(
                rounds,
                plan.truths,
                self._images,
                clients=clients,
                scales=plan.arms[name].tells_scale,
            )
            records = [record for cell in rounds for record in cell.driven.records]
            found[name].append(summary | self._bad(records, plan.arms[name]))
        return found

    def saturate(
        self, server: Server, *, minutes: float
    ) -> tuple[dict[str, Any], list[float], list[float]]:
        """The long run: `SATURATED` clients, all models.

        Returns:
            Its summary, and the server's memory: seconds and MiB.
        """
        every = tuple(dict.fromkeys(model for _, model in self.plan.truths))
        arm = Arm(server=server.name, models=every)
        level = self._level(arm, server, SATURATED, 60 * minutes - self.plan.warm, 0)
        times: list[float] = []
        mib: list[float] = []
        began, cpu = time.monotonic(), server.cpu()
        future = self._pool.submit(drive, level)
        while not wait([future], timeout=EVERY).done:
            times.append(time.monotonic() - began)
            mib.append(server.memory())
        driven: Driven = future.result()
        warm = min(WARM_MOST, WARM_SHARE * 60 * minutes)
        late = [one for one in driven.records if not one.problem and one.began >= warm]
        whole = int(minutes)
        by_minute = [sum(m <= one.ended / 60 < m + 1 for one in late) / 60 for m in range(whole)]
        summary = {
            "minutes": minutes,
            "clients": SATURATED,
            "warm_seconds": warm,
            "answers_per_second_by_minute": by_minute[int(warm // 60) + 1 :],
            "latency_ms": percentiles([one.ended - one.began for one in late]),
            "counts": counted(driven.records, self.plan.truths, scales=True),
            "cores": {
                "clients": driven.cpu / driven.wall,
                "server": (server.cpu() - cpu) / driven.wall,
            },
            "memory": growth(times, mib, warm=warm),
            "memory_mib": [
                [round(at, 1), round(size, 1)] for at, size in zip(times, mib, strict=True)
            ],
            **self._bad(driven.records, arm),
        }
        return summary, times, mib

    def _level(self, arm: Arm, server: Server, clients: int, seconds: float, number: int) -> Level:
        """The same requests for all arms of one order, up to the model's name."""
        plan = self.plan
        return Level(
            url=server.url,
            clients=clients,
            warm=plan.warm,
            seconds=seconds,
            names={model: server.names.get(model, model) for model in arm.models},
            order=arm.order,
            max_tokens=plan.max_tokens,
            seed=plan.seed + 1000 * number + clients,
        )

    def _cell(self, level: Level, server: Server) -> Cell:
        cpu = server.cpu()
        driven = self._pool.submit(drive, level).result()
        return Cell(
            warm=level.warm, seconds=level.seconds, driven=driven, server=server.cpu() - cpu
        )

    def _bad(self, records: list[Record], arm: Arm) -> dict[str, Any]:
        """The first few answers that are lost or wrong; nothing where there is none."""
        found = []
        for record in records:
            verdict = judge(record, self.plan.truths, scales=arm.tells_scale)
            if verdict != "right":
                call = record.call
                right = asdict(self.plan.truths[call.question, call.model])
                came = {"text": record.text, "scale": record.scale, "problem": record.problem}
                found.append({verdict: {**asdict(call), "came": came, "right": right}})
        return {"bad": found[:_PROBLEMS]} if found else {}
