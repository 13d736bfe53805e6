"""The vLLM backend against a stand-in that checks the protocol and really answers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.checkpoints import convert, load_model
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.prompts import get_template
from m3router.router.cascade.rule import Cascade, Rule, cascade_path
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query
from m3router.router.inference.result import RoutedAnswer
from m3router.router.policies.policy import Policy
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.vllm.backend import VllmBackend
from m3router.router.serve.backends.vllm.client import VllmAddress
from m3router.router.serve.backends.vllm.prompt import PLACEHOLDER, ServerPrompt, chat_template
from m3router.router.serve.backends.vllm.protocol import (
    BrokenError,
    heard_event,
    heard_whole,
    packed,
)
from m3router.router.serve.backends.vllm.shape_gate import ShapeGate
from m3router.router.serve.settings import EngineSettings
from tests.m3core import layouts
from tests.serve.vllm_stand_in import KEY, NAME, StandIn, running


@pytest.fixture(scope="module")
def server():
    with running(StandIn(template=chat_template())) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def forget(server):
    server.faults.clear()
    server.wrong.clear()
    server.bodies.clear()
    server.cancelled = server.most = 0
    server.pause = 0.0


@pytest.fixture(scope="module")
def pipeline(small_run):
    return AutoScalePipeline.load(small_run.root, device="cpu")


def address(server, **changes):
    return replace(VllmAddress(url=server.url, model=NAME, key=KEY), **changes)


@contextlib.asynccontextmanager
async def started(server, small_run, *, run=None, queue=64, batch=8, **changes):
    settings = EngineSettings(
        run=str(run or small_run.root), device="cpu", queue=queue, batch=batch
    )
    backend = VllmBackend(settings, address(server, **changes))
    await backend.start()
    server.bodies.clear()  # the first was to try the server out
    try:
        yield backend
    finally:
        await backend.stop(seconds=5)


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def backend(loop, server, small_run):
    """Started once for the tests that do not stop it."""
    made = started(server, small_run)
    yield loop.run(made.__aenter__())
    loop.run(made.__aexit__(None, None, None))


def an_ask(image, question, number=0, **wishes):
    return Query(id=f"ask-{number}", image=image, question=question, **wishes)


async def answered(backend, ask):
    """The pieces and the end of an answer."""
    *pieces, end = [event async for event in backend.ask(ask)]
    assert all(isinstance(one, str) for one in pieces) and isinstance(end, RoutedAnswer)
    return pieces, end


def same(routed, expected):
    assert routed.answer.text == expected.answer.text
    assert routed.scale == expected.scale
    for name in ("answer_tokens", "visual_tokens", "text_tokens"):
        assert getattr(routed.answer, name) == getattr(expected.answer, name)
    assert routed.answer.logprob == pytest.approx(expected.answer.logprob, abs=1e-4)
    assert routed.answer.confidence == pytest.approx(expected.answer.confidence, abs=1e-4)
    assert routed.sufficiency == pytest.approx(expected.sufficiency, abs=1e-6)
    assert routed.flops == pytest.approx(expected.flops)
    assert len(routed.earlier) == len(expected.earlier)


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_answers_are_those_of_the_pipeline_at_every_scale_at_once(
    server, small_run, pipeline, stream
):
    wishes = [{}, {}, *({"scale": scale} for scale in pipeline.model.grid.scales)]
    asked = small_run.asked[: len(wishes)]
    asks = [an_ask(*asked[number], number, **wish) for number, wish in enumerate(wishes)]
    server.pause = 0.005

    async def main():
        async with started(server, small_run, stream=stream) as backend:
            return await asyncio.gather(*(answered(backend, ask) for ask in asks))

    found = asyncio.run(main())
    for ask, (texts, end) in zip(asks, found, strict=True):
        (expected,) = pipeline.answer([ask.image], [ask.question], scale=ask.scale)
        same(end, expected)
        assert "".join(texts) == expected.answer.text
        assert end.reason == "stop"
    assert server.wrong == []
    assert server.most > 1
    assert {body["stream"] for body in server.bodies} == {stream}
    assert len(server.bodies) == len(asks)
    if stream:
        assert any(len(texts) > 1 for texts, _ in found)


def test_a_shorter_answer_is_asked_for_and_cut(loop, backend, server, small_run, pipeline):
    image, question = next(
        one
        for one in small_run.asked
        if pipeline.answer([one[0]], [one[1]])[0].answer.answer_tokens > 2
    )

    async def main():
        return await answered(backend, an_ask(image, question, max_tokens=1))

    texts, end = loop.run(main())
    assert end.reason == "length"
    assert end.answer.answer_tokens == 1
    whole = pipeline.answer([image], [question])[0].answer.text
    assert whole.startswith("".join(texts)) and whole != "".join(texts)
    assert server.bodies[0]["max_tokens"] == 1


def test_budgets_make_policies(loop, backend, server, small_run, pipeline):
    async def main():
        asks = [
            an_ask(*small_run.asked[number], number, budget=budget)
            for number in range(4)
            for budget in (2.0, 500.0)
        ]
        return [(await answered(backend, ask))[1].scale for ask in asks]

    scales = loop.run(main())
    assert np.mean(scales[::2]) < np.mean(scales[1::2])


def doubting(policy: Policy, *, bias: float) -> Cascade:
    """A cascade that asks the router's choice first and then doubts all answers by a bias."""
    k = len(policy.binding.options)
    beliefs = np.zeros((k, k + 3, k))
    beliefs[:, :k] = np.eye(k)
    beliefs[:, -1] = 1.0
    for at in range(k):
        beliefs[at, :, at] = [*np.zeros(k), 0.3, 0.0, -bias]
    start = [*np.zeros((k, k)), *np.eye(k), np.zeros(k)]
    return Cascade(
        binding=policy.binding,
        rule=Rule(
            beliefs=tuple(tuple(map(float, one.ravel())) for one in beliefs),
            start=tuple(tuple(map(float, row)) for row in start),
        ),
        price=1e-3,
    )


def test_a_cascade_asks_again_and_tells_only_the_last_answer(server, small_run, pipeline, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run.root, run)
    doubting(pipeline.policy, bias=-0.5).write(cascade_path(run, "default"))
    escalating = AutoScalePipeline.load(run, device="cpu")
    asked = small_run.asked[:8]

    async def main():
        async with started(server, small_run, run=run) as backend:
            return await asyncio.gather(
                *(answered(backend, an_ask(*one, number)) for number, one in enumerate(asked))
            )

    found = asyncio.run(main())
    expected = escalating.answer(*map(list, zip(*asked, strict=True)))
    for (texts, end), one in zip(found, expected, strict=True):
        same(end, one)
        assert "".join(texts) == one.answer.text
    again = [len(one.earlier) for one in expected]
    assert any(again) and not all(again)
    assert len(server.bodies) == len(asked) + sum(again)
    assert server.wrong == []


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        ("400", DataError, "refused the question"),
        ("413", DataError, "refused the question"),
        ("429", BusyError, "full"),
        ("404", UnavailableError, "404"),
        ("drop after one", UnavailableError, "broke off"),
        ("end after one", UnavailableError, "broke off"),
        ("another prompt", UnavailableError, "chat template"),
    ],
)
def test_errors_that_are_told_at_once(loop, backend, server, small_run, fault, error, match):
    async def main():
        server.faults.append(fault)
        with pytest.raises(error, match=match) as caught:
            await answered(backend, an_ask(*small_run.asked[0], scale=36))
        assert backend.load()["running"] == backend.load()["queued"] == 0
        assert len(server.bodies) == 1
        await answered(backend, an_ask(*small_run.asked[0], scale=144))  # the gate is open
        return caught.value

    told = loop.run(main())
    if fault == "429":
        assert told.retry_after == 7.0


@pytest.mark.parametrize("fault", ["500", "503", "drop", "error"])
def test_what_broke_off_before_the_first_token_is_asked_again(
    loop, backend, server, small_run, pipeline, fault
):
    image, question = small_run.asked[1]

    async def main():
        server.faults += [fault, fault]
        return await answered(backend, an_ask(image, question))

    _, end = loop.run(main())
    same(end, pipeline.answer([image], [question])[0])
    assert len(server.bodies) == 3


def test_a_server_that_keeps_breaking_off_is_given_up(loop, backend, server, small_run):
    async def main():
        server.faults += ["503"] * 3
        with pytest.raises(UnavailableError, match="broke off"):
            await answered(backend, an_ask(*small_run.asked[1]))

    loop.run(main())


def test_a_question_that_takes_too_long_is_given_up(loop, backend, server, small_run):
    async def main():
        server.faults.append("stall")
        begun = time.monotonic()
        with pytest.raises(OverdueError, match="not answered in time"):
            await answered(backend, an_ask(*small_run.asked[1], seconds=0.5))
        assert time.monotonic() - begun < 30  # the stand-in stalls for a minute
        await eventually(lambda: server.cancelled == 1)

    loop.run(main())


def test_a_client_that_leaves_closes_the_upstream_request(loop, backend, server, small_run):
    server.pause = 0.2

    async def main():
        events = backend.ask(an_ask(*small_run.asked[1]))
        await anext(events)
        assert backend.load()["running"] == 1
        await events.aclose()
        assert backend.load()["running"] == 0
        await eventually(lambda: server.cancelled == 1 and server.open == 0)

    loop.run(main())


def test_stopping_answers_what_was_let_in_and_breaks_off_the_rest(server, small_run):
    async def main():
        async with started(server, small_run) as backend:
            server.pause = 0.05
            first = asyncio.create_task(answered(backend, an_ask(*small_run.asked[0])))
            await eventually(lambda: server.open == 1)
            stopping = asyncio.create_task(backend.stop(seconds=10))
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError):
                await answered(backend, an_ask(*small_run.asked[1]))
            await asyncio.gather(first, stopping)
        async with started(server, small_run) as backend:
            server.faults.append("stall")
            left = asyncio.create_task(answered(backend, an_ask(*small_run.asked[0])))
            await eventually(lambda: server.open == 1)
            await backend.stop(seconds=0.1)
            with pytest.raises(UnavailableError, match="broke off"):
                await left

    asyncio.run(main())


async def eventually(holds, *, seconds=30.0):
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert holds()


# --- starting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"key": "sk-wrong"}, UnavailableError, "401"),
        ({"model": "another"}, ModelError, "another"),
        ({"url": "http://127.0.0.1:9"}, UnavailableError, "no vLLM server answers"),
    ],
)
def test_a_server_that_does_not_fit_is_refused(server, small_run, changes, error, match):
    async def main():
        async with started(server, small_run, **changes):
            pass

    with pytest.raises(error, match=match):
        asyncio.run(main())


def test_a_server_with_another_template_or_without_the_flag_is_refused(server, small_run):
    async def main():
        async with started(server, small_run):
            pass

    server.template = "{{ bos_token }}<image>USER: {{ messages[0]['content'][-1]['text'] }}"
    try:
        with pytest.raises(UnavailableError, match="prompt tokens"):
            asyncio.run(main())
    finally:
        server.template = chat_template()
    server.faults.append("400")
    with pytest.raises(ModelError, match="--enable-mm-embeds"):
        asyncio.run(main())


def test_keys_are_not_shown():
    assert "sk-secret" not in repr(VllmAddress(url="http://x", model="m", key="sk-secret"))


# --- prompts -----------------------------------------------------------------------------------


def test_the_template_gives_the_models_own_prompt(server, pipeline):
    """Also for a template with text before the image, as Vicuna's."""
    tokenizer, model = server.tokenizer, load_model("embedded", device="cpu")
    for name in ("scenes-1", "vicuna-1"):
        model.template = get_template(name)
        prompt = ServerPrompt(model)
        (message,) = prompt.messages("  What is 7 {{ x }}? ", "AAAA")
        parts = [
            {"type": "image"} if part["type"] == "image_embeds" else part
            for part in message["content"]
        ]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=chat_template(),
            tokenize=False,
            add_generation_prompt=True,
        )
        template = model.template
        after = template.text_after("What is 7 {{ x }}?")
        assert text == f"<s>{template.before}{PLACEHOLDER}{after}"
        assert text == prompt.text("What is 7 {{ x }}?")


@pytest.mark.parametrize(("form", "glue"), [("today", ""), ("converted before", " ")])
def test_llamas_tokenizer_reads_the_prompt_as_it_was_trained(tmp_path, form, glue):
    """A checkpoint of M3's own layout, converted for vLLM.

    Folders that were converted before put no blank behind special tokens: one is sent.
    """
    layouts.write(tmp_path / "original", *layouts.published("llava"))
    convert(str(tmp_path / "original"), tmp_path / "converted")
    if form == "converted before":
        layouts.blank_at_the_beginning_alone(tmp_path / "converted")
    model = load_model(str(tmp_path / "converted"), device="cpu")
    prompt, tokenizer = ServerPrompt(model), model.tokenizer
    for question in ("What is it?", "  two\nlines ", "7 x 8?", "é"):
        prompt.check(question)
        text = prompt.text(question)
        assert text.startswith(f"<s>{glue}A chat") and f"USER: <image>{glue}\n" in text
        template = model.template
        apart = [
            tokenizer.bos_token_id,
            *tokenizer(template.before, add_special_tokens=False)["input_ids"],
            tokenizer.convert_tokens_to_ids(PLACEHOLDER),
            *tokenizer(template.text_after(question), add_special_tokens=False)["input_ids"],
        ]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == apart
        visual = model.grid.finest
        assert model.prompt_length(question, visual) == len(apart) - 1 + visual
    with pytest.raises(DataError, match="special token"):
        prompt.check("is it </s>?")


@pytest.mark.parametrize("question", ["what <image> is it?", "is it </s>?", "<s> what?"])
def test_questions_that_spell_special_tokens_are_refused(pipeline, question):
    with pytest.raises(DataError, match="special token"):
        ServerPrompt(pipeline.model).check(question)


def test_questions_are_checked_in_many_threads(pipeline):
    """A tokenizer keeps in its state whether special tokens are text; the model's is used too."""
    prompt = ServerPrompt(pipeline.model)

    def refused(number):
        text = "what <image> is it?" if number % 3 == 0 else f"what is number {number}?"
        pipeline.model.prompt_length(text, 9)
        try:
            prompt.check(text)
        except DataError:
            return True
        return False

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(refused, range(600)))
    assert found == [number % 3 == 0 for number in range(600)]


def test_a_model_without_a_prompt_is_refused():
    with pytest.raises(MismatchError, match="fake"):
        ServerPrompt(FakeModel())


# --- the protocol ------------------------------------------------------------------------------


def test_a_part_of_a_tensor_is_sent_alone_and_bad_numbers_never():
    whole = torch.arange(60_000, dtype=torch.float32).reshape(1000, 60)
    assert len(packed(whole[3:4])) < 4096
    whole[5, 5] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        packed(whole)


@pytest.mark.parametrize(
    "line",
    [
        "event: x",
        "data: {",
        "data: 7",
        "data: []",
        'data: {"choices": 3}',
        'data: {"choices": [{}]}',
        'data: {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{}]}}]}',
        'data: {"error": {"message": "dead"}}',
    ],
)
def test_events_that_are_none_break_off(line):
    with pytest.raises(BrokenError):
        heard_event(line)


def test_marks_between_events_say_nothing():
    assert heard_event("") is heard_event(": ping") is heard_event("data: [DONE]") is None
    with pytest.raises(BrokenError):
        heard_whole(b"<html>")


# --- one length at a time ----------------------------------------------------------------------


def test_only_one_length_is_read_at_a_time_and_all_get_their_turn():
    rng = np.random.default_rng(0)

    async def main():
        gate, reading, together = ShapeGate(), [], []

        async def read(length):
            await asyncio.sleep(rng.uniform(0, 0.05))
            await gate.enter(length)
            reading.append(length)
            together.append(list(reading))
            try:
                await asyncio.sleep(rng.uniform(0, 0.003))
            finally:
                reading.remove(length)
                gate.leave()

        tasks = [asyncio.create_task(read(int(rng.choice([1, 9, 576])))) for _ in range(200)]
        await asyncio.sleep(0.02)
        for task in tasks[::7]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        await asyncio.wait_for(gate.enter(5), 1)  # nobody is left inside
        return together

    together = asyncio.run(main())
    assert all(len(set(one)) == 1 for one in together)
    assert max(map(len, together)) > 1


def test_a_length_that_waits_is_not_passed_by(server):
    async def main():
        gate = ShapeGate()
        await gate.enter(1)
        other = asyncio.create_task(gate.enter(9))
        await asyncio.sleep(0)
        late = asyncio.create_task(gate.enter(1))
        await asyncio.sleep(0)
        assert not other.done() and not late.done()
        gate.leave()
        await asyncio.sleep(0)
        assert other.done() and not late.done()
        gate.leave()
        await asyncio.wait_for(late, 1)

    asyncio.run(main())


def test_grey_images_are_answered(loop, backend, server, small_run, pipeline):
    """An image that shows nothing, in every mode that tests elsewhere do not cover."""
    image = Image.new("RGB", (7, 300), "black")

    async def main():
        return await answered(backend, an_ask(image, "What color is it?"))

    _, end = loop.run(main())
    same(end, pipeline.answer([image], ["What color is it?"])[0])
