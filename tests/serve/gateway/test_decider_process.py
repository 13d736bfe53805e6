"""The process that decides: the same as in this process, whatever happens around it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.router import Router
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.gateway.decider_process import ProcessDecider
from m3router.router.serve.gateway.deciding import Asked, Wish
from tests.router.inference.conftest import imported, opened, tiny_clip  # noqa: F401
from tests.router.inference.world import QUESTIONS


def untimed(decision):
    return replace(decision, milliseconds={})


@pytest.fixture(scope="module")
def router(imported):  # noqa: F811
    return Router.load(imported.run.root)


@pytest.fixture(scope="module")
def decider(imported):  # noqa: F811
    """A started one, and the loop that it runs in."""
    loop, one = asyncio.new_event_loop(), ProcessDecider(imported.run.root, threads=1)
    facts = loop.run_until_complete(one.start())
    yield loop, one, facts
    loop.run_until_complete(one.stop())
    loop.close()


def ask(decider, *asked):
    """Decide for all of them at once; errors are results."""
    loop, one, _ = decider

    async def all_of_them():
        return await asyncio.gather(*(one.decide(a) for a in asked), return_exceptions=True)

    return loop.run_until_complete(asyncio.wait_for(all_of_them(), 60))


def test_decisions_are_exactly_the_routers_own(decider, router, imported, opened):  # noqa: F811
    images = {n: opened(n) for n in range(12)}
    wishes = [Wish(), Wish(option="low"), Wish(budget=70.0), Wish(policy="default")]
    asked = [
        Asked(question=QUESTIONS[n % 2], image=image, digest=f"d{n % 7}" if n < 7 else "", wish=w)
        for n, image in images.items()
        for w in wishes
    ]
    data = CalibrationData.read(imported.run)
    rules = {
        Wish(): {},
        Wish(option="low"): {"option": "low"},
        Wish(budget=70.0): {"policy": data.policy(budget=70.0)},
        Wish(policy="default"): {"policy": "default"},
    }
    judged = ask(decider, *asked)
    for one, found in zip(asked, judged, strict=True):
        own = router.decide(one.image, one.question, **rules[one.wish])
        assert untimed(found.decision) == untimed(own)
    assert decider[1].load() == {"waiting": 0, "cached": 7}
    facts = decider[2]
    assert facts.options == router.options and facts.router == router.router.fingerprint
    assert facts.needs_image and facts.needs_pixels
