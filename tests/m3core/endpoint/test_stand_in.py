"""The stand-in speaks as the servers it imitates, counts as the real image processors do."""

from __future__ import annotations

import base64
import io
import itertools
import math

import httpx
import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from m3router.data.errors import DataError
from m3router.m3core.endpoint.stand_in import StandIn, coded_image, running
from m3router.m3core.endpoint.stand_in.__main__ import main
from m3router.m3core.endpoint.stand_in.coded_images import SIDES, read_code
from m3router.m3core.endpoint.stand_in.dialects import DIALECTS
from m3router.m3core.endpoint.stand_in.faults import FAULTS, FaultPlan
from m3router.m3core.endpoint.stand_in.seeing import family_named


def noise(width, height, seed=0):
    made = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(made)


def part(image, **more):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url, **more}}


def messages(question, *images, **more):
    text = {"type": "text", "text": question}
    return [{"role": "user", "content": [*(part(one, **more) for one in images), text]}]


def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key or "x", max_retries=0)


def ask(server, question, *images, part_fields=None, **more):
    asked = messages(question, *images, **(part_fields or {}))
    return client(server).chat.completions.create(model="stand-in", messages=asked, **more)


@pytest.fixture(scope="module")
def vllm():
    with running(StandIn(server="vllm")) as server:
        yield server


@pytest.fixture(autouse=True)
def forget(vllm):
    vllm.hits.clear()
    vllm.faults.clear()


def area(tokens):
    return {"size": {"shortest_edge": 4 * 32**2, "longest_edge": tokens * 32**2}}


# --- images and counts ---------------------------------------------------------------------------


@pytest.mark.parametrize("cells", SIDES)
def test_a_word_is_read_as_long_as_a_token_sees_no_more_than_a_cell(cells):
    word = "seven"
    image = coded_image(word, cells=cells, size=(512, 384))
    assert read_code(image, 384 // cells) == word
    assert read_code(image, 384 // cells + 1) is None
    assert read_code(noise(512, 384), 1) is None


def test_a_coded_image_refuses_what_it_cannot_hold():
    with pytest.raises(DataError, match="1 to 5 ASCII letters"):
        coded_image("eleven")
    with pytest.raises(DataError, match="no room for 64 cells"):
        coded_image("seven", cells=64, size=(60, 60))
    with pytest.raises(DataError, match=r"\(8, 16, 32, 64\) cells"):
        coded_image("seven", cells=9)


@settings(max_examples=8, deadline=None)
@given(width=st.integers(30, 400), height=st.integers(30, 400), budget=st.integers(4, 256))
def test_qwen_resizes_as_its_own_image_processor(width, height, budget):
    rows, columns = smart_resize(height, width, 32, 4 * 32**2, budget * 32**2)
    seen = family_named("qwen3-vl").see(Image.new("RGB", (width, height)), area(budget))
    assert seen.image.size == (columns, rows)
    assert seen.tokens == rows * columns // 32**2


@pytest.mark.parametrize(
    ("family", "size", "counts"),
    [  # as established by running, with Gemma 4's and InternVL's two markers
        ("qwen3-vl", (1600, 1200), {64: 54, 256: 234, 1024: 972, 2048: 1900}),
        ("gemma4", (1600, 1200), {70: 65, 140: 132, 280: 268, 560: 542, 1120: 1066}),
        ("gemma4", (300, 200), {70: 62, 280: 262}),
        ("internvl3", (1600, 1200), {1: 258, 4: 1282, 6: 1794, 12: 3330}),
    ],
)
def test_counts_are_those_of_the_family(family, size, counts):
    kinds = {"qwen3-vl": area, "gemma4": lambda n: {"max_soft_tokens": n}}
    arguments = kinds.get(family, lambda n: {"max_patches": n})
    image = Image.new("RGB", size)
    see = family_named(family).see
    assert {n: see(image, arguments(n)).tokens for n in counts} == counts


# --- the official client -------------------------------------------------------------------------


def test_resolution_decides_what_is_read_and_usage_tells_it(vllm):
    image = coded_image("seven", cells=16)
    said = {}
    for budget in (64, 256):
        found = ask(
            vllm,
            "What is written?",
            image,
            extra_body={"mm_processor_kwargs": area(budget)},
            logprobs=True,
            top_logprobs=1,
        )
        without = ask(vllm, "What is written?")
        told = found.usage.to_dict()["prompt_tokens_details"]["multimodal_tokens"]["image"]
        assert told == budget
        # the chat template writes a marker on each side
        assert found.usage.prompt_tokens - without.usage.prompt_tokens == told + 2
        said[budget] = found.choices[0]
    assert said[256].message.content == "seven" and said[64].message.content != "seven"
    first = {budget: one.logprobs.content[0].logprob for budget, one in said.items()}
    assert math.exp(first[256]) > 0.9 > math.exp(first[64])


def test_a_stream_says_the_same(vllm):
    image = noise(100, 80)
    whole = ask(vllm, "What?", image)
    chunks = list(ask(vllm, "What?", image, stream=True, stream_options={"include_usage": True}))
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    # the second time, the image was known, and only whole blocks of 16 tokens are kept
    cached = chunks[-1].usage.prompt_tokens_details.cached_tokens
    assert 0 < cached < whole.usage.prompt_tokens and cached % 16 == 0


def test_an_answer_has_the_form_that_is_asked_for(vllm):
    image = coded_image("seven", cells=8)
    schema = {"type": "object", "properties": {"word": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    assert ask(vllm, "What?", image, stop="ev").choices[0].message.content == "s"
    two = ask(vllm, "What?", image, n=2)
    assert [one.message.content for one in two.choices] == ["seven", "seven"]
    form = {"type": "json_schema", "json_schema": {"name": "seen", "schema": schema}}
    made = ask(vllm, "What?", image, response_format=form)
    assert made.choices[0].message.content == '{"word": "seven"}'
    free = ask(vllm, "What?", image, tools=[tool])
    assert free.choices[0].message.content == "seven"
    call = ask(vllm, "What?", image, tools=[tool], tool_choice="required").choices[0]
    assert call.message.tool_calls[0].function.arguments == '{"word": "seven"}'
    for wrong in ({"tool_choice": "required"}, {"n": 0}, {"extra_body": {"stop": 3}}):
        with pytest.raises(openai.BadRequestError):
            ask(vllm, "What?", image, **wrong)


def test_responses_say_what_chats_say(vllm):
    picture = part(coded_image("seven", cells=8))["image_url"]["url"]
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": picture, "detail": "auto"},
    ]
    asked = {"model": "stand-in", "input": [{"role": "user", "content": parts}]}
    whole = client(vllm).responses.create(**asked)
    assert whole.output_text == "seven" and whole.usage.input_tokens > 200
    events = list(client(vllm).responses.create(**asked, stream=True))
    assert events[-1].response.output_text == "seven"
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    assert "".join(deltas) == "seven" and len(deltas) > 1


def test_answers_follow_pixels_and_questions(vllm):
    images = [noise(64, 64, seed) for seed in (1, 2)]
    said = {
        ask(vllm, question, image).choices[0].message.content
        for image, question in itertools.product(images, ("What?", "Why?"))
    }
    assert len(said) == 4
    cut = ask(vllm, "What?", images[0], max_tokens=1)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 1


def test_a_prompt_is_counted_without_an_answer(vllm):
    body = {"model": "stand-in", "messages": messages("What?", noise(64, 64))}
    counted = httpx.post(f"{vllm.url}/tokenize", json=body).json()["count"]
    assert counted == ask(vllm, "What?", noise(64, 64)).usage.prompt_tokens
    assert httpx.get(f"{vllm.url}/version").json() == {"version": "0.32.0"}
    assert [one.id for one in client(vllm).models.list()] == ["stand-in"]
    hits = httpx.get(f"{vllm.url}/hits").json()
    assert [one["prompt_tokens"] for one in hits] == [counted]


# --- what each server ignores, refuses and tells -------------------------------------------------

OPTIONS = {
    "vllm": ({"mm_processor_kwargs": area(64)}, {}),
    "transformers-serve": ({"chat_template_kwargs": {"max_soft_tokens": 70}}, {}),
    "sglang": ({}, {"max_dynamic_patch": 1}),
    "lmdeploy": ({"mm_processor_kwargs": {"image": {"max_pixels": 64 * 28**2}}}, {}),
    "openai": ({}, {"detail": "low"}),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_each_server_has_one_way_to_spend_less_on_an_image(name):
    image = noise(900, 448)
    with running(StandIn(server=name)) as server:
        spent, refused = {}, {}
        for other, (body, fields) in {"": ({}, {}), **OPTIONS}.items():
            try:
                found = ask(server, "What?", image, extra_body=body, part_fields=fields)
                spent[other] = found.usage.prompt_tokens
            except openai.APIStatusError as error:
                refused[other] = (error.status_code, error.response.json())
        told = found.usage.to_dict().get("prompt_tokens_details")
    assert spent[name] < spent[""]
    assert {other for other, tokens in spent.items() if tokens != spent[""]} == {name}
    fields = {"vllm": "multimodal_tokens", "sglang": "image_tokens", "openai": "cached_tokens"}
    assert (told is not None) == (name in fields) and fields.get(name, "") in (told or "")
    if name == "transformers-serve":
        assert set(refused) == {"vllm", "lmdeploy"} and refused["vllm"][0] == 422
        assert "mm_processor_kwargs" in refused["vllm"][1]["detail"]
    elif name == "openai":
        assert {status for status, _ in refused.values()} == {400}


def test_start_flags_are_needed_where_vllm_needs_them():
    quiet = StandIn(trust_request_mm_kwargs=False, enable_prompt_tokens_details=False, key="sk-1")
    with running(quiet) as server:
        with pytest.raises(openai.BadRequestError, match="trust-request-mm-kwargs") as caught:
            ask(server, "What?", noise(64, 64), extra_body={"mm_processor_kwargs": area(64)})
        assert caught.value.response.json()["error"]["code"] == 400
        plain = ask(server, "What?", noise(64, 64))
        assert plain.usage.prompt_tokens_details is None
        with pytest.raises(openai.NotFoundError):
            client(server).chat.completions.create(model="another", messages=messages("What?"))
        with pytest.raises(openai.AuthenticationError):
            client(server).with_options(api_key="sk-2").models.list()


# --- faults --------------------------------------------------------------------------------------


def stream(server, question):
    with httpx.stream(
        "POST",
        f"{server.url}/v1/chat/completions",
        json={"model": "stand-in", "messages": messages(question), "stream": True},
    ) as response:
        return "".join(response.iter_text())


def test_every_fault_is_seen_by_a_client(vllm):
    vllm.slow_seconds = 0.1
    http = httpx.Client(base_url=vllm.url)
    for name in FAULTS:
        body = {"model": "stand-in", "messages": messages(f"<<{name}>>", noise(64, 64))}
        try:
            got = http.post("/v1/chat/completions", json=body)
        except httpx.RemoteProtocolError:
            assert name == "cut"
            continue
        if name.isdigit():
            assert got.status_code == int(name) and got.json()["error"]["code"] == int(name)
            assert ("retry-after" in got.headers) == (name == "429")
        elif name.startswith("html"):
            assert got.text.startswith("<html>") and got.status_code in (200, 502)
        else:
            found = got.json()
            assert found["choices"][0]["finish_reason"] == "stop"
            assert (found["model"] == "another-model") == (name == "other-model")
            assert (found["usage"] is None) == (name == "no-usage")
            assert (found["system_fingerprint"] == "fp_another") == (name == "fingerprint")
            if name == "wrong-usage":
                details = found["usage"]["prompt_tokens_details"]["multimodal_tokens"]
                assert found["usage"]["prompt_tokens"] < details["image"]
    assert [one["fault"] for one in vllm.hits] == list(FAULTS)


def test_streams_break_in_three_ways(vllm):
    assert stream(vllm, "What?").endswith("data: [DONE]\n\n")
    assert "stop" in (text := stream(vllm, "<<no-done>>")) and "[DONE]" not in text
    assert "stop" not in (text := stream(vllm, "<<unfinished>>")) and "[DONE]" not in text
    with pytest.raises(httpx.RemoteProtocolError):
        stream(vllm, "<<cut>>")


def test_faults_come_by_queue_header_question_and_number():
    plan = FaultPlan({"500": 3})
    assert [plan.next("What?", None) for _ in range(4)] == [None, None, "500", None]
    plan = FaultPlan()
    plan.queue("429", None, "html")
    assert [plan.next("<<cut>>", None) for _ in range(4)] == ["429", None, "html", "cut"]
    assert [plan.next("<<503*2>> What?", None) for _ in range(3)] == ["503", "503", None]
    assert plan.next("What?", "slow") == "slow"
    for wrong in ({"5000": 1}, {"500": 0}):
        with pytest.raises(DataError):
            FaultPlan(wrong)
    with pytest.raises(DataError, match="Did you mean 'no-usage'"):
        plan.queue("no-usag")


def test_unknown_names_give_the_nearest(capsys):
    with pytest.raises(DataError, match="Did you mean 'vllm'"):
        StandIn(server="vlm")
    with pytest.raises(DataError, match="Did you mean 'gemma4'"):
        StandIn(family="gemma")
    with pytest.raises(SystemExit):
        main(["--fault", "429"])
    assert "--fault NAME=N" in capsys.readouterr().err
