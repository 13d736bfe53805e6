"""The contract of every backend; a new one is covered by its line in BACKENDS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.backends.ray.backend import RayBackend
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.backends.vllm.backend import VllmBackend
from m3router.router.serve.backends.vllm.client import VllmAddress
from m3router.router.serve.backends.vllm.prompt import chat_template
from m3router.router.serve.settings import EngineSettings
from tests.serve.ray_here import ray_here
from tests.serve.small_run import make_small_run
from tests.serve.vllm_stand_in import KEY, NAME, StandIn, running

QUEUE, BATCH = 12, 4


@contextlib.contextmanager
def local(settings):
    yield LocalEngine(settings)


@contextlib.contextmanager
def vllm(settings):
    with running(StandIn(template=chat_template())) as server:
        yield VllmBackend(settings, VllmAddress(url=server.url, model=NAME, key=KEY))
        assert server.wrong == []


@contextlib.contextmanager
def replicas(settings):
    with ray_here():
        yield RayBackend(settings, RaySettings(queue=QUEUE))


BACKENDS = {"local": local, "vllm": vllm, "ray": replicas}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return make_small_run(tmp_path_factory.getbasetemp() / "small_run")


@pytest.fixture(scope="module")
def settings(small_run):
    return EngineSettings(run=str(small_run.root), device="cpu", queue=QUEUE, batch=BATCH)


@pytest.fixture(scope="module")
def pipeline(small_run):
    return AutoScalePipeline.load(small_run.root, device="cpu")


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name == "ray" else ()) for name in BACKENDS
    ],
)
def backend(request, loop, settings):
    with BACKENDS[request.param](settings) as made:
        loop.run(made.start())
        yield made
        loop.run(made.stop(seconds=10))


def asks_of(small_run, count, **wishes):
    return [
        Query(id=f"ask-{number}", image=image, question=question, **wishes)
        for number, (image, question) in enumerate(small_run.asked[:count])
    ]


async def answered(backend, ask):
    """The answer's text, piece by piece, and its end."""
    *pieces, end = [event async for event in backend.ask(ask)]
    assert isinstance(end, RoutedAnswer) and all(isinstance(one, str) for one in pieces)
    return "".join(pieces), end


async def idle(backend, *, seconds=60.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        load = backend.load()
        if load["queued"] == load["running"] == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still busy: {backend.load()}")


def test_what_is_served(backend, pipeline, settings):
    served = backend.served()
    assert backend.ready()
    assert (served.model, served.revision) == (pipeline.model.name, pipeline.model.revision)
    assert served.scales == tuple(pipeline.model.grid.scales)
    assert served.router == pipeline.router.fingerprint
    assert served.policy == settings.policy
    assert served.max_tokens == pipeline.model.max_new_tokens
    load = backend.load()
    assert load.pop("retry_after", 1.0) > 0
    assert load == {"queued": 0, "running": 0, "capacity": QUEUE}


def test_answers_equal_the_pipelines_token_for_token(backend, loop, pipeline, small_run):
    """Routed and at every scale, several at a time."""
    scales = (None, *pipeline.model.grid.scales)
    asks = [
        replace(ask, scale=scales[number % len(scales)])
        for number, ask in enumerate(asks_of(small_run, 12))
    ]

    async def main():
        return await asyncio.gather(*(answered(backend, ask) for ask in asks))

    for ask, (text, end) in zip(asks, loop.run(main()), strict=True):
        (expected,) = pipeline.answer([ask.image], [ask.question], scale=ask.scale)
        found = end
        assert text == found.answer.text == expected.answer.text
        assert found.answer.answer_tokens == expected.answer.answer_tokens
        assert found.answer.visual_tokens == expected.answer.visual_tokens
        assert found.answer.text_tokens == expected.answer.text_tokens
        assert found.answer.logprob == pytest.approx(expected.answer.logprob, abs=1e-4)
        assert found.scale == expected.scale
        assert found.sufficiency == pytest.approx(expected.sufficiency, abs=1e-6)
        assert set(found.milliseconds) == {*expected.milliseconds, "queue"}
        assert end.reason == "stop" and end.fallback == expected.fallback == ""
        assert end.guarantee == expected.guarantee
        assert end.flops == pytest.approx(expected.flops)
        assert end.earlier == expected.earlier == ()
        if end.encoding is not None:  # not from another process
            tokens = end.encoding.tokens(end.scale)
            assert tokens == expected.encoding.tokens(expected.scale)


def test_a_shorter_answer_is_a_beginning(backend, loop, pipeline, small_run):
    for ask in asks_of(small_run, 3, scale=576):
        text, end = loop.run(answered(backend, replace(ask, max_tokens=1)))
        (whole,) = pipeline.answer([ask.image], [ask.question], scale=576)
        assert whole.answer.text.startswith(text)
        assert end.answer.answer_tokens == 1
        assert end.reason == ("stop" if whole.answer.answer_tokens == 1 else "length")


def test_budgets_and_regrets_of_questions(backend, loop, small_run):
    (ask,) = asks_of(small_run, 1)
    cheap = loop.run(answered(backend, replace(ask, budget=1.5)))[1].scale
    dear = loop.run(answered(backend, replace(ask, budget=560.0)))[1].scale
    assert cheap <= dear
    with pytest.raises(DataError):  # no 20 images certify so little
        loop.run(answered(backend, replace(ask, max_regret=1e-4)))


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"scale": 100}, MismatchError),
        ({"scale": 9, "budget": 50.0}, DataError),
        ({"budget": 0.01}, DataError),
        ({"question": " "}, DataError),
    ],
)
def test_check_refuses_what_could_never_be_answered(backend, small_run, wishes, error):
    (ask,) = asks_of(small_run, 1)
    with pytest.raises(error):
        backend.check(replace(ask, **wishes))


def test_a_question_that_does_not_fit_is_refused_before_the_first_piece(backend, loop, small_run):
    (ask,) = asks_of(small_run, 1, scale=576)
    with pytest.raises(DataError, match="does not fit"):
        loop.run(answered(backend, replace(ask, question="why " * 2000)))
    loop.run(idle(backend))


def test_a_full_queue_is_told_and_everybody_let_in_is_answered(backend, loop, pipeline, small_run):
    asks = asks_of(small_run, 2 * (QUEUE + BATCH), scale=36)

    async def main():
        tasks = [answered(backend, ask) for ask in asks]
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = loop.run(main())
    refused = [one for one in found if isinstance(one, BaseException)]
    assert refused and all(isinstance(one, BusyError) for one in refused)
    assert all(0 < one.retry_after < 600 for one in refused)
    let_in = [(ask, one) for ask, one in zip(asks, found, strict=True) if one not in refused]
    assert len(let_in) >= BATCH
    alone = pipeline.answer(
        [ask.image for ask, _ in let_in], [ask.question for ask, _ in let_in], scale=36
    )
    assert [text for _, (text, _) in let_in] == [one.answer.text for one in alone]
    loop.run(idle(backend))


def test_who_leaves_frees_the_place(backend, loop, small_run):
    async def main():
        for ask in asks_of(small_run, QUEUE + BATCH + 2, scale=36):
            events = backend.ask(ask)
            await anext(events)
            await events.aclose()
        gone = [asyncio.create_task(answered(backend, ask)) for ask in asks_of(small_run, 8)]
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        await idle(backend)
        return await answered(backend, asks_of(small_run, 1)[0])

    assert loop.run(main())[0]


def test_no_time_is_no_answer(backend, loop, small_run):
    (ask,) = asks_of(small_run, 1)
    with pytest.raises(OverdueError):
        loop.run(answered(backend, replace(ask, seconds=0.0)))
    loop.run(idle(backend))


def test_draining_answers_what_was_let_in(backend, loop, small_run):
    """The last test of each backend: it is stopped."""

    async def main():
        let_in = [asyncio.create_task(answered(backend, ask)) for ask in asks_of(small_run, 6)]
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(backend.stop(seconds=30))
        await asyncio.sleep(0)
        assert not backend.ready()
        with pytest.raises(UnavailableError):
            await answered(backend, asks_of(small_run, 1)[0])
        await asyncio.gather(*let_in)
        await stopping

    loop.run(main())
