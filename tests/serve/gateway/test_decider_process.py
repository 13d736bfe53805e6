"""The process that decides: the same as in this process, whatever happens around it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.router import Router
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.serve.deciding.decider import Asked, Wish
from m3router.router.serve.deciding.process import ProcessDecider
from m3router.router.serve.errors import ApiError
from m3router.router.stages.learning import calibrate_stage, train_stage
from tests.router.inference.conftest import imported, opened, tiny_clip  # noqa: F401
from tests.router.inference.world import QUESTIONS
from tests.serve.gateway.gateway_server import asked_image


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
        Asked(
            question=QUESTIONS[n % 2],
            image=asked_image(image, f"d{n % 7}" if n < 7 else ""),
            wish=w,
        )
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
    for n, (one, found) in enumerate(zip(asked, judged, strict=True)):
        own = router.decide(images[n // len(wishes)], one.question, **rules[one.wish])
        assert untimed(found.decision) == untimed(own)
    assert decider[1].load() == {"waiting": 0, "cached": 7}
    facts = decider[2]
    assert facts.options == router.options and facts.router == router.router.fingerprint
    assert facts.needs_image and facts.needs_pixels


def test_what_is_known_of_an_image_needs_no_pixels_again(decider, opened):  # noqa: F811
    seen = Asked(question=QUESTIONS[0], image=asked_image(opened(3), "the same"))

    async def never():
        raise ApiError(400, "It was decoded.")

    other = replace(seen, image=replace(seen.image, pixels=never))
    (first,) = ask(decider, seen)
    (second,) = ask(decider, other)
    assert untimed(first.decision) == untimed(second.decision)
    (anew,) = ask(decider, replace(other, image=replace(other.image, digest="another")))
    assert isinstance(anew, ApiError)


def test_an_image_may_be_smaller_than_its_header_says(decider, router, opened):  # noqa: F811
    image = opened(3)
    wide = replace(asked_image(image), size=(image.width + 300, image.height + 1))
    (found,) = ask(decider, Asked(question=QUESTIONS[0], image=wide))
    assert untimed(found.decision) == untimed(router.decide(image, QUESTIONS[0]))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"question": " "}, DataError, "empty"),
        ({"question": "\ud800"}, DataError, "no Unicode"),
        ({"question": "x" * 100_000}, DataError, "up to 65536"),
        ({"image": None}, DataError, "no image"),
        ({"wish": Wish(option="lo")}, MismatchError, "Did you mean 'low'"),
        ({"wish": Wish(policy="../default")}, MismatchError, "Unknown policy"),
        ({"wish": Wish(budget=-1.0)}, DataError, "at least"),
        ({"wish": Wish(budget=float("nan"))}, DataError, "must be a number"),
        ({"wish": Wish(max_loss=1e-9)}, DataError, "too small"),
        ({"wish": Wish(budget=9.0, option="low")}, DataError, "at most one"),
    ],
)
def test_what_cannot_be_decided_is_told_to_who_asked_only(
    decider,
    opened,  # noqa: F811
    change,
    error,
    told,
):
    good = Asked(question=QUESTIONS[0], image=asked_image(opened(5), "five"))
    before, failed, after = ask(decider, good, replace(good, **change), good)
    assert isinstance(failed, error) and told in str(failed)
    assert untimed(before.decision) == untimed(after.decision)


def test_an_image_that_cannot_be_sent_harms_nobody_else(decider, opened):  # noqa: F811
    closed = opened(6)
    good = Asked(question=QUESTIONS[0], image=asked_image(opened(6), "six"))
    lost = replace(good, image=asked_image(closed, "six"))
    size = closed.size
    closed.close()
    closed._size = size
    failed, found = ask(decider, lost, good)
    assert isinstance(failed, DataError) and found.decision.option


def test_a_question_that_is_given_up_frees_its_place(decider, opened):  # noqa: F811
    loop, one, _ = decider

    async def give_up():
        image = Image.new("RGB", (3000, 3000))
        asked = Asked(question=QUESTIONS[0], image=asked_image(image, "large"))
        tasks = [asyncio.create_task(one.decide(asked)) for _ in range(4)]
        await asyncio.sleep(0.01)
        for task in tasks[:3]:
            task.cancel()
        assert one.load()["waiting"] == 4
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, True, False]
        assert one.load()["waiting"] == 0
        return tasks[3].result()

    assert loop.run_until_complete(give_up()).decision.option


PARENT = """
import asyncio, os, sys
from pathlib import Path
from m3router.data.errors import DataError
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.deciding.process import ProcessDecider
from m3router.router.serve.deciding.decider import Asked, AskedImage, Wish

async def main():
    nothing, decider = ProcessDecider(Path("nowhere")), ProcessDecider(Path(sys.argv[1]))
    failed, facts = await asyncio.gather(nothing.start(), decider.start(), return_exceptions=True)
    assert isinstance(failed, DataError) and "nowhere" in str(failed), failed
    assert not facts.needs_pixels and facts.needs_image
    image = AskedImage(size=(300, 200), pixels=lambda: 1 / 0)
    asked = Asked(question="what is it?", image=image)
    first = await decider.decide(asked)
    os.kill(decider._child.process.pid, 9)
    try:
        await decider.decide(asked)
    except UnavailableError:
        print("told", flush=True)
    while True:
        try:
            second = await decider.decide(asked)
            break
        except UnavailableError:
            await asyncio.sleep(0.05)
    assert first.decision.estimates == second.decision.estimates
    assert "torch" not in sys.modules
    print(decider._child.process.pid, flush=True)
    os._exit(9)

asyncio.run(main())
"""


def test_a_process_that_dies_is_started_again_and_none_outlives_its_parent(
    imported,  # noqa: F811
    tmp_path,
):
    """Of a router that reads sizes alone, which loads no encoder."""
    run = imported.run.copy_data(tmp_path / "run").opened()
    train_stage(run, estimator="logistic", feature_groups=["question", "size"], ablations=False)
    calibrate_stage(run, budget=80)
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(run.root)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 9, done.stderr
    told, pid = done.stdout.split()
    assert told == "told"
    until = time.monotonic() + 10
    while alive(int(pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(pid))


def alive(pid):
    """Whether a process runs: one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
