"""The engine behind its queue: right at any concurrency, fair to who waits, rid of who left."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import replace

import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.cascade.rule import STEPS, Cascade, Rule, cascade_path
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.inference.session import Encoder, Session
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.backends.job_queue import Job, JobQueue
from m3router.router.serve.backends.worker import Cores, Worker
from m3router.router.serve.settings import EngineSettings


def settings_of(run, **changes) -> EngineSettings:
    return replace(EngineSettings(run=str(run), device="cpu"), **changes)


def asks_of(small_run, count, *, seed=0, scales=(None, None, 1, 9, 36, 144, 576)) -> list[Query]:
    rng = random.Random(seed)
    return [
        Query(
            id=f"ask-{number}",
            image=image,
            digest=str(id(image)) if rng.random() < 0.5 else "",
            question=question,
            scale=rng.choice(scales),
        )
        for number, (image, question) in enumerate(rng.choices(small_run.asked[:8], k=count))
    ]


async def answered(engine, ask) -> RoutedAnswer:
    text = ""
    async for event in engine.ask(ask):
        if isinstance(event, RoutedAnswer):
            assert text == event.answer.text
            return event
        assert isinstance(event, str) and event
        text += event
    raise AssertionError("no end came")


async def settled(engine) -> None:
    for _ in range(6000):
        if not engine.load()["queued"] and not engine.load()["running"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"places are still taken: {engine.load()}")


def with_engine(settings, pipeline, work):
    async def main():
        engine = LocalEngine(settings, pipeline=pipeline)
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.stop(seconds=20)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def pipeline(small_run):
    return AutoScalePipeline.load(small_run.root, device="cpu")


EXPECTED: dict[tuple[int, int, str, int | None], tuple[AutoScalePipeline, RoutedAnswer]] = {}
"""What a pipeline, which is kept so that its id stays its own, answers to an image's question."""


def expected(pipeline, ask) -> RoutedAnswer:
    key = id(pipeline), id(ask.image), ask.question, ask.scale
    if key not in EXPECTED:
        (wanted,) = pipeline.answer([ask.image], [ask.question], scale=ask.scale)
        EXPECTED[key] = pipeline, wanted
    return EXPECTED[key][1]


def check_equal(pipeline, ask, routed):
    wanted = expected(pipeline, ask)
    assert (routed.answer.text, routed.scale) == (wanted.answer.text, wanted.scale)
    assert routed.answer.answer_tokens == wanted.answer.answer_tokens
    assert routed.answer.visual_tokens == wanted.answer.visual_tokens
    assert [one.text for one in routed.earlier] == [one.text for one in wanted.earlier]
    assert routed.sufficiency == pytest.approx(wanted.sufficiency, abs=1e-4)
    assert routed.flops == pytest.approx(wanted.flops)


@pytest.mark.parametrize(
    "changes", [{"workers": 3}, {"batch": 3, "encode_batch_size": 2, "image_cache_size": 2}]
)
def test_answers_are_those_of_the_pipeline_at_any_concurrency(small_run, pipeline, changes):
    asks = asks_of(small_run, 24)

    async def work(engine):
        found = await asyncio.gather(*(answered(engine, ask) for ask in asks))
        assert engine.load()["queued"] == engine.load()["running"] == 0
        return found

    found = with_engine(settings_of(small_run.root, **changes), pipeline, work)
    assert len({one.scale for one in found}) >= 4
    for ask, one in zip(asks, found, strict=True):
        check_equal(pipeline, ask, one)
        assert one.reason == "stop" and one.fallback == ""
        assert all(spent >= 0 for spent in one.milliseconds.values())


def test_what_is_certified_is_told_with_every_answer_that_is_routed_so(small_run, pipeline):
    kept = {"max_regret": 0.02, "confidence": 0.95, "pictures": 8, "questions": 16, "most": 2}
    policy = replace(pipeline.policy, guarantee=kept)
    sure = AutoScalePipeline(model=pipeline.model, router=pipeline.router, policy=policy)
    image, question = small_run.asked[0]
    one = Query(id="a", image=image, question=question)

    async def work(engine):
        sentence = engine.served().guarantee
        assert f"right at the reference option, {policy.reference}, and" in sentence
        assert (await answered(engine, one)).guarantee == sentence
        for other in (replace(one, scale=9), replace(one, budget=60.0)):
            assert (await answered(engine, other)).guarantee == ""

    with_engine(settings_of(small_run.root), sure, work)


def test_what_decided_is_what_is_told_of(small_run, pipeline):
    policy = pipeline.policy
    fell = replace(policy, kind="fixed", fallback=True, reason="nothing would do")
    k = len(policy.binding.options)
    cascade = Cascade(
        binding=policy.binding,
        rule=Rule(beliefs=(((0.0,) * ((k + 3) * k),) * k), start=()),
        price=0.0,
        guarantee={"sentence": "As the cascade says."},
    )

    def told_of(rule, *, policy, cascade):
        one = AutoScalePipeline(
            model=pipeline.model, router=pipeline.router, policy=policy, cascade=cascade
        )
        image, question = small_run.asked[0]
        (routed,) = one.run([Session(image=image, question=question, rule=rule)])
        return routed.fallback, routed.guarantee

    assert told_of(None, policy=fell, cascade=None) == ("nothing would do", "")
    assert told_of(None, policy=fell, cascade=cascade) == ("", "As the cascade says.")
    assert told_of(fell, policy=policy, cascade=cascade) == ("nothing would do", "")
    assert told_of(9, policy=fell, cascade=cascade) == ("", "")
    assert told_of(None, policy=policy, cascade=None) == ("", "")


def test_budgets_and_regrets_are_made_on_demand(small_run, pipeline):
    image, question = small_run.asked[0]
    one = Query(id="a", image=image, question=question)

    async def work(engine):
        cheap = await answered(engine, replace(one, budget=1.0))
        assert cheap.scale == 1
        dear = await answered(engine, replace(one, budget=1e6))
        with pytest.raises(DataError, match="budget must be at least 1"):
            engine.check(replace(one, budget=0.01))
        with pytest.raises(DataError, match="too small for a regret"):
            engine.check(replace(one, max_regret=1e-4))
        with pytest.raises(DataError, match="at most one"):
            engine.check(replace(one, budget=9.0, scale=9))
        with pytest.raises(MismatchError, match="not in this model's grid"):
            engine.check(replace(one, scale=10))
        with pytest.raises(DataError, match="does not fit"):
            engine.check(replace(one, question="why " * 3000))
        return dear

    dear = with_engine(settings_of(small_run.root), pipeline, work)
    assert dear.scale == max(
        pipeline.model.grid.scales, key=lambda scale: (dear.sufficiency[scale], -scale)
    )


def test_a_full_queue_says_so_and_those_let_in_are_answered(small_run, pipeline):
    asks = asks_of(small_run, 14, seed=1)

    async def work(engine):
        return await asyncio.gather(
            *(answered(engine, ask) for ask in asks), return_exceptions=True
        )

    settings = settings_of(small_run.root, queue=4, batch=2)
    found = with_engine(settings, pipeline, work)
    busy = [one for one in found if isinstance(one, BusyError)]
    assert 1 <= len(busy) <= 10 and all(one.retry_after >= 1 for one in busy)
    for ask, one in zip(asks, found, strict=True):
        if not isinstance(one, BusyError):
            check_equal(pipeline, ask, one)


def test_who_leaves_at_any_moment_frees_the_place(small_run, pipeline):
    asks = asks_of(small_run, 32, seed=2)
    rng = random.Random(3)

    async def leaves(engine, ask):
        task = asyncio.ensure_future(answered(engine, ask))
        await asyncio.sleep(rng.random() * 0.4)
        task.cancel()

    async def work(engine):
        staying = [answered(engine, ask) for ask in asks[::2]]
        leaving = [leaves(engine, ask) for ask in asks[1::2]]
        found = await asyncio.gather(*staying, *leaving)
        await settled(engine)
        return found[: len(staying)]

    found = with_engine(settings_of(small_run.root, batch=8, workers=2), pipeline, work)
    for ask, one in zip(asks[::2], found, strict=True):
        check_equal(pipeline, ask, one)


def test_time_that_is_over_is_told(small_run, pipeline):
    asks = asks_of(small_run, 4, seed=4)

    async def work(engine):
        with pytest.raises(OverdueError, match="not answered within 1e-06 s"):
            await answered(engine, replace(asks[0], seconds=1e-6))
        await answered(engine, asks[1])
        await settled(engine)

    with_engine(settings_of(small_run.root), pipeline, work)


def test_a_question_that_breaks_the_model_takes_no_other_with_it(small_run, pipeline):
    asks = asks_of(small_run, 6, seed=5)
    broken = replace(asks[0], image="no image", digest="")

    async def work(engine):
        given = [broken, *asks[1:]]
        return await asyncio.gather(
            *(answered(engine, ask) for ask in given), return_exceptions=True
        )

    found = with_engine(settings_of(small_run.root), pipeline, work)
    assert isinstance(found[0], UnavailableError) and "no image" not in str(found[0])
    for ask, one in zip(asks[1:], found[1:], strict=True):
        check_equal(pipeline, ask, one)


def test_stopping_answers_what_was_let_in(small_run, pipeline):
    asks = asks_of(small_run, 12, seed=6)

    async def main():
        engine = LocalEngine(settings_of(small_run.root), pipeline=pipeline)
        with pytest.raises(UnavailableError, match="starting"):
            engine.check(asks[0])
        await engine.start()
        tasks = [asyncio.ensure_future(answered(engine, ask)) for ask in asks]
        await asyncio.sleep(0)
        await engine.stop(seconds=30)
        assert not engine.ready()
        with pytest.raises(UnavailableError, match="stopping"):
            await answered(engine, asks[0])
        return await asyncio.gather(*tasks)

    for ask, one in zip(asks, asyncio.run(main()), strict=True):
        check_equal(pipeline, ask, one)


def test_an_answer_is_cut_at_its_own_longest_length(small_run, pipeline):
    image, _ = small_run.asked[0]
    ask = Query(id="a", image=image, question="How many shapes are there?", scale=576)

    async def work(engine):
        return [await answered(engine, replace(ask, max_tokens=most)) for most in (1, None)]

    short, long = with_engine(settings_of(small_run.root), pipeline, work)
    assert short.reason == "length" and short.answer.answer_tokens == 1
    assert long.reason == "stop" and long.answer.text.startswith(short.answer.text)


def test_a_cascade_asks_again_as_the_pipeline_does(small_run, pipeline, tmp_path):
    """One that believes in no answer but the finest: STEPS more are asked, nothing is streamed."""
    router, k = pipeline.router, len(pipeline.model.grid.scales)
    row = [0.0] * ((k + 2) * k)
    doubting = tuple(
        tuple(row + [-5.0 + 2.0 * (option - at) for option in range(k)]) for at in range(k)
    )
    start = tuple([(0.0,) * k] * (2 * k) + [tuple(0.5 - 0.1 * one for one in range(k))])
    cascade = Cascade(
        binding=pipeline.policy.binding, rule=Rule(beliefs=doubting, start=start), price=1e-9
    )
    cascade.check_fits(options=router.options, router=router.fingerprint)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("router", "policies", "log", "features", "split.json"):
        (run / name).symlink_to(small_run.root / name)
    cascade.write(cascade_path(run, "default"))
    asks = asks_of(small_run, 12, seed=7, scales=(None, None, 9))

    async def work(engine):
        return await asyncio.gather(*(answered(engine, ask) for ask in asks))

    found = with_engine(settings_of(run), None, work)
    escalating = AutoScalePipeline.load(run, model=pipeline.model)
    for ask, one in zip(asks, found, strict=True):
        check_equal(escalating, ask, one)
        assert len(one.earlier) == (0 if ask.scale else 1)
    assert STEPS >= 1


def test_a_worker_that_breaks_down_leaves_nobody_waiting(small_run, pipeline):
    image, question = small_run.asked[0]
    one = Query(id="a", image=image, question=question, scale=9, seconds=1.0)

    async def work(engine):
        breaking = replace(one, question=7)  # `check` would refuse it
        found = await asyncio.wait_for(
            asyncio.gather(
                *(answered(engine, ask) for ask in (breaking, one, one)), return_exceptions=True
            ),
            10,
        )
        assert not engine.ready()
        with pytest.raises(UnavailableError):
            await answered(engine, one)
        return found

    found = with_engine(settings_of(small_run.root, workers=1, encode_batch_size=2), pipeline, work)
    assert [type(error) for error in found] == [UnavailableError, UnavailableError, OverdueError]


def test_what_fails_together_is_not_taken_in_twice(small_run, pipeline):
    """Given scales are decided before the routed question fails, and again on their own."""
    image, question = small_run.asked[0]
    fixed = Query(id="a", image=image, question=question, scale=9)
    asks = [fixed, replace(fixed, scale=None, question=7), replace(fixed, scale=36)]
    told = []
    waiting = JobQueue(1)
    for ask in asks:
        waiting.put(Job.of(ask, rule=ask.scale, tell=told.append))
    worker = Worker(
        pipeline,
        waiting=waiting,
        cores=Cores(1),
        encoder=Encoder(pipeline.model),
        batch=8,
        encode_batch_size=8,
    )
    worker.turn()
    assert worker.answering() == 2
    while worker.answering():
        worker.turn()
    assert [type(event) for event in told if not isinstance(event, str)] == [
        UnavailableError,
        RoutedAnswer,
        RoutedAnswer,
    ]


def test_making_a_policy_for_one_stops_nobody_else(small_run, pipeline, monkeypatch):
    image, question = small_run.asked[0]
    one = Query(id="a", image=image, question=question, budget=40.0)
    making, begun, may_end = CalibrationData.policy, threading.Event(), threading.Event()

    def held_up(self, **wishes):
        begun.set()
        assert may_end.wait(60)
        return making(self, **wishes)

    async def work(engine):
        await answered(engine, one)
        monkeypatch.setattr(CalibrationData, "policy", held_up)
        other = asyncio.create_task(asyncio.to_thread(engine.check, replace(one, budget=50.0)))
        assert await asyncio.to_thread(begun.wait, 60)
        await asyncio.wait_for(answered(engine, one), 30)
        assert not other.done()
        may_end.set()
        await other

    with_engine(settings_of(small_run.root), pipeline, work)
