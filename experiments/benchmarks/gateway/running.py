"""Upstream alone and through the gateway in turns, at each number of clients."""

from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.benchmarks.gateway.clients import (
    Ask,
    Driven,
    Level,
    drive,
    learn,
    shares,
)
from experiments.benchmarks.gateway.cores import assigned, pin, pin_server
from experiments.benchmarks.gateway.summary import compared, round_of
from experiments.benchmarks.serving.servers import HOST, Server, free_port

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
FASTEST = 0.02
"""Seconds that the upstream takes at least, where it is not asked for all that it has."""
PARTS = {"no encoder": ("question", "size"), "encoder": ("image", "question")}
"""Router -> the feature groups that it reads."""
POLICY = Path("policies", "default.json")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Levels of one kind.

    Attributes:
        name: Of the group.
        router: A key of `PARTS`.
        rate: Requests a second that there are about, by how long the upstream takes; infinite
            where it answers as fast as it can.
        fresh: Whether no image comes twice.
        target: What it is held against: "added", "throughput", or "" for nothing.
        clients: How many ask at a time.
    """

    name: str
    router: str
    rate: float
    fresh: bool
    target: str = ""
    clients: tuple[int, ...] = CLIENTS


GROUPS = (
    Group(name="no encoder", router="no encoder", rate=60, fresh=True, target="added"),
    Group(
        name="encoder, images seen before",
        router="encoder",
        rate=60,
        fresh=False,
        clients=(1, 16),
    ),
    Group(name="encoder, new images", router="encoder", rate=6, fresh=True, clients=(1, 8)),
    Group(
        name="no encoder, all it has",
        router="no encoder",
        rate=math.inf,
        fresh=True,
        target="throughput",
    ),
    Group(
        name="encoder, images seen before, all it has",
        router="encoder",
        rate=math.inf,
        fresh=False,
        target="throughput",
        clients=(16,),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        work: Folder of runs and logs; what it holds is not made again.
        groups: Kinds of levels.
        clients: Of each group's numbers of clients, those that are measured.
        rounds: Of each arm at each level.
        warm: Seconds of each round that are not measured.
        seconds: Seconds that are.
        seed: Of what is asked.
    """

    work: Path
    groups: Sequence[Group]
    clients: Sequence[int]
    rounds: int
    warm: float
    seconds: float
    seed: int

    @property
    def images(self) -> Path:
        """Folder of the images that are asked about."""
        return self.work / "questions" / "images"

    def run(self, router: str) -> Path:
        """The run folder of a router."""
        return self.work / router.replace(" ", "-")


def measure(
    drive: Callable[[Level], Driven],
    alone: Level,
    through: Level,
    *,
    rounds: int,
    spent: Callable[[], dict[str, float]] = dict,
) -> dict[str, Any]:
    """Compare two servers in turns; the second round goes backwards, and so on.

    The first is asked at the options, in the shares, that the second was seen to choose, so that
    both ask the same of the upstream.

    Args:
        drive: Drives a level.
        alone: Of the upstream by itself.
        through: Of the server in between; as long, and with as many clients.
        rounds: Of both.
        spent: Processor seconds by role so far.
    """
    drive(replace(alone, clients=1, warm=0.0, seconds=0.001))  # who is asked first loads libraries
    seen = shares(drive(replace(through, seconds=through.seconds / 2)).records)
    alone = replace(alone, ask=replace(alone.ask, shares=seen))
    levels = {"alone": alone, "through": through}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in levels}
    for number in range(rounds):
        for name in list(levels) if number % 2 == 0 else reversed(levels):
            level = replace(levels[name], seed=levels[name].seed + 1000 * number)
            before, driven = spent(), drive(level)
            cores = {role: (cpu - before[role]) / driven.wall for role, cpu in spent().items()}
            found[name].append({**round_of(level, driven), "cores": cores})
    return {
        "clients": through.clients,
        "compared": compared(found["alone"], found["through"]),
        "rounds": found,
    }


class Bench:
    """Servers and clients of a plan, each on its core."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cores = assigned(sorted(os.sched_getaffinity(0)))
        self._ports = {"upstream": free_port()} | {name: free_port() for name in PARTS}

    def all(self) -> list[dict[str, Any]]:
        """Every group, at every number of clients."""
        options = self._made()
        with ExitStack() as stack:
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(
                ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(self.cores, self.plan))
            )
            needed = dict.fromkeys(group.router for group in self.plan.groups)
            with self.upstream(0.0):  # there for those that look at it when they start
                gateways = {name: stack.enter_context(self.gateway(name)) for name in needed}
            return [
                {
                    "name": group.name,
                    "target": group.target,
                    "levels": [
                        self._level(pool, group, gateways[group.router], options, clients)
                        for clients in group.clients
                        if clients in self.plan.clients
                    ],
                }
                for group in self.plan.groups
            ]

    def _level(
        self,
        pool: ProcessPoolExecutor,
        group: Group,
        gateway: Server,
        options: dict[str, dict],
        clients: int,
    ) -> dict[str, Any]:
        plan = self.plan
        takes = 0.0 if math.isinf(group.rate) else max(FASTEST, clients / group.rate)
        alone = Level(
            port=self._ports["upstream"],
            ask=Ask(model="stand-in", shares={}, bodies=options),
            clients=clients,
            warm=plan.warm + takes,
            seconds=max(plan.seconds, 3 * takes),
            fresh=group.fresh,
            seed=plan.seed,
        )
        asked = Ask(model="m3router/auto", shares={}, bodies={})
        through = replace(alone, port=self._ports[group.router], ask=asked)
        with self.upstream(takes) as upstream:
            pin_server(upstream, self.cores["upstream"], self.cores["upstream"])
            pin_server(gateway, self.cores["gateway"], self.cores["beside"])

            def spent() -> dict[str, float]:
                whole, front = gateway.cpu(), gateway.cpu(children=False)
                return {"upstream": upstream.cpu(), "gateway": front, "beside": whole - front}

            found = measure(
                lambda level: pool.submit(drive, level).result(),
                *(alone, through),
                rounds=plan.rounds,
                spent=spent,
            )
        return {**found, "upstream_seconds": takes}

    def upstream(self, seconds: float) -> Server:
        """The stand-in, not yet started."""
        command = [sys.executable, "-m", "m3router.m3core.endpoint.stand_in", "--host", HOST]
        command += ["--port", str(self._ports["upstream"]), "--seconds", f"{seconds}"]
        command += ["--trust-request-mm-kwargs", "--enable-prompt-tokens-details"]
        return Server(
            name="the stand-in",
            command=command,
            port=self._ports["upstream"],
            ready="/health",
            log=self.plan.work / "upstream.log",
        )

    def gateway(self, router: str) -> Server:
        """The gateway, not yet started."""
        port = self._ports[router]
        command = [sys.executable, "-m", "m3router", "serve", str(self.plan.run(router))]
        command += ["--upstream", f"http://{HOST}:{self._ports['upstream']}/v1"]
        command += ["--unlike", "0", "--host", HOST, "--port", str(port)]
        return Server(
            name="the gateway",
            command=command,
            port=port,
            ready="/ready",
            log=self.plan.work / f"{self.plan.run(router).name}.log",
        )

    def _made(self) -> dict[str, dict]:
        """Make the runs that are not there; options and their fields."""
        demo = Path(__file__).parents[3] / "deploy" / "demo"
        work, first = self.plan.work, self.plan.run("encoder")
        program = [sys.executable, "-m", "m3router"]
        if not all((self.plan.run(name) / POLICY).is_file() for name in PARTS):
            _call([sys.executable, str(demo / "questions.py"), str(work / "questions")])
            with self.upstream(0.0) as upstream:
                label = [*program, "label", "--out", str(first), "--endpoint", f"{upstream.url}/v1"]
                label += ["--examples", str(work / "questions" / "examples.jsonl")]
                label += ["--images", str(self.plan.images)]
                _call([*label, "--options", str(demo / "options.toml")])
        for name, parts in PARTS.items():
            run = self.plan.run(name)
            if not (run / POLICY).is_file():
                if run == first:  # the other one has copied what there was before
                    looks = [*program, "featurize", str(run), "--images", str(self.plan.images)]
                    _call([*looks, "--feature-group", "image", "--feature-group", "question"])
                train = [*program, "train", str(first), "--estimator", "logistic"]
                train += [one for part in parts for one in ("--feature-group", part)]
                _call(train + ([] if run == first else ["--out", str(run)]))
                _call([*program, "calibrate", str(run), "--budget", "150"])
        options = tomllib.loads((demo / "options.toml").read_text())["option"]
        return {one["name"]: one["body"] for one in options}


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _begin(cores: dict[str, int], plan: Plan) -> None:
    pin(os.getpid(), cores["clients"])
    learn(plan.images)
