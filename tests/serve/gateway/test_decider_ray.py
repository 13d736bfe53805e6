"""Replicas that decide, under a real Ray: the router's own decisions, whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.router import Router
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.deciding.decider import Asked, Wish
from m3router.router.serve.deciding.process import ProcessDecider
from m3router.router.serve.deciding.ray import RayDecider
from tests.router.inference.conftest import imported, opened, tiny_clip  # noqa: F401
from tests.router.inference.world import QUESTIONS
from tests.serve.gateway.gateway_server import asked_image
from tests.serve.ray_here import ray_here


def untimed(decision):
    return replace(decision, milliseconds={})


async def processes(decider, *, count, besides=frozenset(), seconds=90.0):
    """Ids of so many replicas' processes."""
    found: set[int] = set()
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        loads = await asyncio.gather(*(decider.loads() for _ in range(8)), return_exceptions=True)
        found |= {int(one["process"]) for one in loads if isinstance(one, dict)} - set(besides)
        await asyncio.sleep(0.05)
    assert len(found) == count, found
    return found


@pytest.mark.slow  # a minute on two idle cores, most of it imports in the replicas
def test_replicas_decide_as_the_router_does_and_one_that_dies_loses_nothing(imported, opened):  # noqa: F811
    router = Router.load(imported.run.root)
    images = [opened(n) for n in range(12)]
    wishes = [Wish(), Wish(option="low"), Wish(policy="default")]
    asked = [
        Asked(question=QUESTIONS[n % 2], image=asked_image(image, f"d{n}"), wish=wish)
        for n, image in enumerate(images)
        for wish in wishes
    ]
    wrong = [
        (Asked(question=" ", image=asked_image(images[0])), DataError),
        (
            Asked(question="x?", image=asked_image(images[0]), wish=Wish(option="none")),
            MismatchError,
        ),
    ]

    async def main():
        make = partial(ProcessDecider, imported.run.root, threads=1)
        decider = RayDecider(make, RaySettings(replicas=2, cpus=0.5, health_seconds=1.0))
        facts = await decider.start()
        try:
            alive = await processes(decider, count=2)
            tasks = [asyncio.create_task(decider.decide(one)) for one in asked]
            os.kill(min(alive), signal.SIGKILL)
            told = await asyncio.gather(*tasks)
            refused = await asyncio.gather(
                *(decider.decide(one) for one, _ in wrong), return_exceptions=True
            )
            given_up = asyncio.create_task(decider.decide(asked[0]))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            assert decider.load() == {"waiting": 0}
            await processes(decider, count=1, besides=alive)
        finally:
            await decider.stop()
        return facts, told, refused

    with ray_here(cpus=None):
        facts, told, refused = asyncio.run(main())
    assert facts.options == router.options
    for n, (one, judged) in enumerate(zip(asked, told, strict=True)):
        image, wish = images[n // len(wishes)], one.wish
        wanted = router.decide(image, one.question, option=wish.option, policy=wish.policy)
        assert untimed(judged.decision) == untimed(wanted)
    assert [type(error) for error in refused] == [kind for _, kind in wrong]
