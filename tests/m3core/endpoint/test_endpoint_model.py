"""A model behind an endpoint, against a small real server: from a file of options to answers."""

from __future__ import annotations

import json
import threading

import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.endpoint import (
    Key,
    RequestLimitError,
    RetryPolicy,
    connect,
    from_spec,
    parse_options,
    read_options,
)
from m3router.m3core.options import Answer, Failure, Request, StreamingOptionModel
from tests.m3core.endpoint.scripted import Said, completion, events, honest, usage

SIZES = {
    "model": "m",
    "option": [{"name": "small", "longest_side": 64}, {"name": "large", "longest_side": 640}],
}
FILE = """
model = "m"
[price]
input = 1.0
output = 10.0
[[option]]
name = "small"
longest_side = 64
[[option]]
name = "large"
max_pixels = 307_200
encoding = "jpeg:95"
"""


def at_once(**more):
    """Retries without waiting."""
    return RetryPolicy(first=0.0, **more)


def asking(server, content=SIZES, *, probe=False, **more):
    more.setdefault("retry", at_once())
    return connect(server.url, parse_options(content), probe=probe, **more)


def requests(options=("small", "large"), images=1, questions=("what?",)):
    made = [Image.new("RGB", (1280, 960), (place, 0, 0)) for place in range(images)]
    return [
        Request(image=image, question=question, option=option)
        for image in made
        for option in options
        for question in questions
    ]


def test_from_a_file_of_options_to_answers(server, tmp_path):
    (tmp_path / "options.toml").write_text(FILE)
    options = read_options(tmp_path / "options.toml")
    with connect(server.url, options, key=Key("sk-secret")) as model:
        assert isinstance(model, StreamingOptionModel)
        assert [one.name for one in model.options] == ["small", "large"]
        assert model.cost_unit == "price"
        small, large = model.answer(requests())
    assert (small.text, large.text) == ("64 x 48", "640 x 480")
    assert (small.usage.image_tokens, large.usage.image_tokens) == (2, 300)
    assert small.usage.image_tokens_from == "derived"
    assert large.usage.cost == large.usage.price == pytest.approx((310 * 1 + 2 * 10) / 1e6)
    assert small.usage.pixels == 64 * 48 and small.usage.attempts == 1
    assert small.cut is False and small.confidence is None
    reading = model.meter
    assert reading.requests == len(server.heard) == 2 + 1 + 2 + 1  # probes, answers, texts
    assert all(one.headers["Authorization"] == "Bearer sk-secret" for one in server.heard)
    assert "sk-secret" not in repr(model) + json.dumps([model.spec, model.provenance])


def test_the_same_model_again_from_its_spec_asks_nothing(server):
    first = asking(server, probe=True)
    before = len(server.heard)
    second = from_spec(json.loads(json.dumps(first.spec)))
    assert len(server.heard) == before
    assert (second.revision, second.spec) == (first.revision, first.spec)
    assert second.answer(requests())[1].text == "640 x 480"


def test_the_revision_knows_the_model_but_not_the_address(server):
    other = {**SIZES, "model": "other"}
    assert asking(server).revision != asking(server, other).revision
    by_name = connect(
        server.url.replace("127.0.0.1", "localhost"), parse_options(SIZES), probe=False
    )
    assert by_name.revision == asking(server).revision
    patched = {**SIZES, "body": {"seed": 1}}
    assert asking(server, patched).revision != asking(server).revision


def test_requests_are_taken_only_when_there_is_room(server):
    together, taken = threading.Barrier(3), []
    ordered = requests(["small"], images=3, questions=["together"]) + requests(images=4)

    def script(heard):
        if heard.question == "together" and heard.image:
            together.wait(5)  # breaks, and with it the test, where fewer are in flight
            assert len(taken) == 3
        return honest(heard)

    server.script = script

    def source():
        for one in ordered:
            taken.append(one)
            yield one

    answers = list(asking(server, in_flight=3).answer_each(source()))
    assert len(answers) == len(taken) == 11 and server.most_at_once == 3
    assert {id(request) for request, _ in answers} == {id(one) for one in taken}


def test_ending_the_iterable_gives_what_is_in_flight(server):
    stop = threading.Event()

    def source():
        for one in requests(images=50):
            if stop.is_set():
                return
            yield one

    found = []
    for pair in asking(server, in_flight=4).answer_each(source()):
        found.append(pair)
        stop.set()
    assert 1 <= len(found) <= 5 and all(isinstance(one, Answer) for _, one in found)


def test_patches_reach_the_body_and_the_part(server):
    content = {
        "model": "m",
        "body": {"mm_processor_kwargs": {"a": 1}, "seed": 3},
        "image": {"detail": "low"},
        "option": [
            {"name": "a"},
            {
                "name": "b",
                "model": "n",
                "body": {"mm_processor_kwargs": {"b": 2}},
                "remove": ["seed", "temperature"],
                "image": {"detail": "high"},
                "length_field": "max_completion_tokens",
            },
        ],
    }
    model = asking(server, content, cost_unit="pixels", max_new_tokens=5)
    model.answer(requests(["a", "b"]))
    by_model = {one.body["model"]: one for one in server.heard if one.image}
    first, second = by_model["m"].body, by_model["n"].body
    assert first["mm_processor_kwargs"] == {"a": 1} and first["max_tokens"] == 5
    assert second["mm_processor_kwargs"] == {"a": 1, "b": 2} and "seed" not in second
    assert second["max_completion_tokens"] == 5 and "max_tokens" not in second
    assert "temperature" not in second and first["temperature"] == 0
    assert [by_model[one].content[0]["image_url"]["detail"] for one in "mn"] == ["low", "high"]


def test_what_is_sent_is_upright_rgb_without_metadata(server):
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    image.info["icc_profile"] = b"profile"
    request = Request(image=image, question="?", option="small")
    asking(server).answer([request])
    sent = next(one.image for one in server.heard if one.image)
    assert sent.mode == "RGB" and sent.size == (40, 30) and sent.getpixel((0, 0)) == (255,) * 3
    assert not sent.info and not sent.getexif()


def test_a_429_is_waited_for_as_long_as_it_says(server):
    waits, said = [], [Said({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"})]
    said.append(Said(b"<html>bad gateway</html>", 502, kind="text/html"))
    server.script = lambda heard: said.pop(0) if said else honest(heard)
    retry = RetryPolicy(first=1.0, draw=lambda: 0.5, wait=waits.append)
    answer = asking(server, retry=retry, cost_unit="pixels").answer(requests(["small"]))[0]
    assert waits[0] == 7.5 and waits[1] > 0
    assert answer.usage.attempts == 3 and answer.text == "64 x 48"


@pytest.mark.parametrize(
    "said",
    [
        Said({"error": {"message": "boom"}}, 500),
        Said(b'{"choices": [{"mess', 200),
        Said(completion(finish_reason=None)),
        Said(b"x" * 100, 200, kind="text/plain"),
        Said({"error": {"message": "inside"}}),
    ],
)
def test_what_passes_is_tried_again_and_then_a_failure(server, said):
    server.script = lambda heard: said
    model = asking(server, retry=at_once(attempts=3))
    (failure,) = model.answer(requests(["small"]))
    assert isinstance(failure, Failure) and failure.usage.attempts == 3 == len(server.heard)
    assert "after 3 attempts" in failure.message
    assert model.meter.failures == 1 and model.meter.retries == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_is_the_end_of_one_request_only(server, status):
    def script(heard):
        if heard.question == "bad":
            return Said({"detail": "no thanks"}, status)
        return honest(heard)

    server.script = script
    good, bad = asking(server).answer(requests(["small"], questions=["good", "bad"]))
    assert isinstance(good, Answer) and isinstance(bad, Failure)
    assert f"status {status}: no thanks" in bad.message
    assert sum(one.question == "bad" for one in server.heard) == 1


def test_first_requests_that_all_fail_alike_stop_the_run(server):
    def script(heard):
        if heard.image and heard.image.width == 640:
            text = "mm_processor_kwargs needs --trust-request-mm-kwargs"
            return Said({"error": {"message": text, "code": 400}}, 400)
        return honest(heard)

    server.script = script
    given = []
    with pytest.raises(ModelError, match="option 'large'.*start vLLM with --trust-request-mm-kw"):
        for pair in asking(server, in_flight=1).answer_each(requests(images=9)):
            given.append(pair)
    assert len(given) == 6  # three images at both options; the answers among them are kept


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (401, {"error": {"message": "bad key sk-secret"}}, "refuses the key.*bad key \\[key\\]"),
        (403, {"detail": "forbidden"}, "does not let this key ask"),
        (404, {"error": {"message": "no model"}}, "Did you mean 'mm'"),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, "money is spent"),
    ],
)
def test_what_fails_for_all_is_raised_after_what_was_answered(server, status, body, match):
    server.gets["/v1/models"] = {"data": [{"id": "mm"}, {"id": "zz"}]}
    server.script = lambda heard: Said(body, status) if len(server.heard) > 4 else honest(heard)
    given = []
    with pytest.raises(ModelError, match=match) as raised:
        for pair in asking(server, key=Key("sk-secret"), in_flight=2).answer_each(
            requests(images=5)
        ):
            given.append(pair)
    assert len(given) == 3 and "sk-secret" not in str(raised.value)  # and one text


def test_a_page_instead_of_an_api_is_one_clear_error(server):
    server.script = lambda heard: Said(b"<!DOCTYPE html><p>hello", kind="text/html")
    with pytest.raises(ModelError, match="page.*ends in /v1"):
        asking(server).answer(requests())


def test_nobody_listening_is_one_clear_error(server):
    url = server.url
    server.close()
    model = connect(url, parse_options(SIZES), probe=False, retry=at_once(attempts=2))
    with pytest.raises(ModelError, match="no server answers at .* after 2 attempts"):
        model.answer(requests())


def test_a_slow_server_is_not_waited_for(server):
    gate = threading.Event()
    server.script = lambda heard: honest(heard) if gate.wait(3) else honest(heard)
    model = asking(server, timeout_s=0.05, retry=at_once(attempts=2))
    (failure,) = model.answer(requests(["small"]))
    gate.set()
    assert isinstance(failure, Failure) and failure.usage.attempts == 2
    assert "within 0.05 s; allow more with --request-timeout" in failure.message


def test_redirects_lead_nowhere_else_and_take_no_key_along(server):
    server.script = lambda heard: Said({}, 307, {"Location": "http://elsewhere.invalid/v1?k=1"})
    with pytest.raises(ModelError, match="redirects to http://elsewhere.invalid/v1 ") as raised:
        asking(server, key=Key("sk-secret")).answer(requests())
    assert "k=1" not in str(raised.value)

    def near(heard):
        if heard.path == "/v1/chat/completions":
            return Said({}, 308, {"Location": "/v2/chat"})
        return honest(heard)

    server.script = near
    assert asking(server).answer(requests(["small"]))[0].text == "64 x 48"


def test_streams_are_complete_or_tried_again(server):
    counts = usage(14)
    piece = {"choices": [{"index": 0, "delta": {"content": "re"}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {"content": "d"}, "finish_reason": "length"}]}
    total = {"choices": [], "usage": counts}
    whole = events(piece, end, total)
    broken = [events(piece, end, total, done=False), events(piece, done=True), events(piece)]
    said = [*broken, whole]
    server.script = lambda heard: said.pop(0) if said else Said(completion(usage=usage(10)))
    model = asking(server, {**SIZES, "stream": True})
    (answer,) = model.answer(requests(["small"]))
    assert (answer.text, answer.cut, answer.usage.attempts) == ("red", True, 4)
    assert (answer.usage.prompt_tokens, answer.usage.image_tokens) == (14, 4)
    assert server.heard[0].body["stream_options"] == {"include_usage": True}


def test_logprobs_become_confidence_and_logprob(server):
    tokens = {"content": [{"token": "re", "logprob": -0.5}, {"token": "d", "logprob": -0.25}]}
    server.script = lambda heard: Said(completion(logprobs=tokens))
    (answer,) = asking(server).answer(requests(["small"]))
    assert answer.confidence == pytest.approx(0.60653, abs=1e-5) and answer.logprob == -0.75
    assert answer.usage.image_tokens is None and answer.usage.cost is None
    tokens["content"][1]["logprob"] = None
    assert asking(server).answer(requests(["small"]))[0].logprob is None


@pytest.mark.parametrize(
    "details",
    [{"image_tokens": 6}, {"multimodal_tokens": {"image": 6}, "cached_tokens": 3}],
)
def test_reported_image_tokens_go_before_derived_ones(server, details):
    server.script = lambda heard: Said(completion(usage=usage(9, **details)))
    (answer,) = asking(server).answer(requests(["small"]))
    assert answer.usage.image_tokens == answer.usage.cost == 6
    assert answer.usage.image_tokens_from == "reported" and len(server.heard) == 1
    assert answer.usage.cached_tokens == details.get("cached_tokens")


@pytest.mark.parametrize(
    "wrong",
    [
        usage(-3),
        usage(0),
        usage(True),
        {"prompt_tokens": "9"},
        usage(5, image_tokens=6),
        usage(9, answer=500),
        usage(9, cached_tokens=10),
    ],
)
def test_a_usage_that_cannot_be_is_said_and_the_answer_kept(server, wrong):
    server.script = lambda heard: Said(completion(usage=wrong))
    model = asking(server)
    (answer,) = model.answer(requests(["small"]))
    assert answer.text == "red" and answer.usage.prompt_tokens is answer.usage.image_tokens is None
    assert answer.usage.answer_tokens is None
    (warning,) = model.meter.warnings
    assert "cannot be" in warning and model.provenance["warnings"] == {warning: 1}


def test_the_tokens_of_a_question_alone_are_asked_for_once(server):
    model = asking(server)
    model.answer(requests(images=3, questions=["a", "b"]))
    texts = [one for one in server.heard if one.image is None]
    assert sorted(one.question for one in texts) == ["a", "b"]
    assert all(one.body["max_tokens"] == 1 for one in texts)


def test_another_model_is_not_taken_for_the_one_that_was_asked(server):
    server.script = lambda heard: Said(completion(model="cheaper"))
    with pytest.raises(ModelError, match="asked for the model 'm' and answered as 'cheaper'.*repo"):
        asking(server).answer(requests())
    alias = {**SIZES, "reports": "cheaper"}
    assert isinstance(asking(server, alias).answer(requests())[0], Answer)


def test_a_model_that_changes_under_its_name_is_found(server):
    names = iter(["m-2024-01-01", "m-2024-05-01"])
    server.script = lambda heard: Said(completion(model=next(names)))
    model, given = asking(server, in_flight=1), []
    with pytest.raises(ModelError, match="changed from 'm-2024-01-01' to 'm-2024-05-01'"):
        given.extend(model.answer_each(requests()))
    marks = iter(["a", "a", "b", "b"])
    server.script = lambda heard: Said(completion(system_fingerprint=next(marks)))
    model = asking(server, in_flight=1)
    model.answer(requests(images=2))
    assert model.meter.warnings == {"system_fingerprint of m changed from a to b": 2}


def test_the_largest_number_of_requests_ends_the_run_and_loses_nothing(server):
    model, given = asking(server, max_requests=4, in_flight=2), []
    with pytest.raises(RequestLimitError, match="go on later with the same command"):
        for pair in model.answer_each(requests(images=5)):
            given.append(pair)
    assert len(server.heard) == 4 == model.meter.requests
    assert len(given) >= 2 and all(isinstance(one, Answer) for _, one in given)


def test_probing_refuses_an_option_that_changes_nothing(server):
    content = {
        "model": "m",
        "option": [
            {"name": "low", "image": {"detail": "low"}},
            {"name": "high", "image": {"detail": "high"}},
        ],
    }
    server.gets |= {
        "/v1/models": {"data": [{"id": "m", "owned_by": "vllm"}]},
        "/version": {"version": "0.32.0"},
    }
    match = r"'high' changes nothing against 'low'.*\(vllm 0\.32\.0\).*image\.detail.*ignore it"
    with pytest.raises(ModelError, match=match):
        asking(server, content, probe=True)

    def reads(heard):
        detail = heard.content[0].get("image_url", {}).get("detail")
        tokens = {"high": 99, "low": 20, None: 10}[detail]
        return Said(completion(usage=usage(tokens), model="m-2025-01-01"))

    server.script = reads
    model = asking(server, content, probe=True)
    facts = model.provenance["server"]
    assert (facts["name"], facts["version"]) == ("vllm", "0.32.0")
    assert facts["reported"] == {"m": "m-2025-01-01"}


def test_probing_says_what_it_could_not_check(server):
    server.script = lambda heard: Said(completion())
    with pytest.raises(ModelError, match="in image tokens at option 'small'.*does not name them"):
        asking(server).probe()
    report = asking(server, cost_unit="pixels").probe()
    assert len(report.unchecked) == 1 and "longest_side" in report.unchecked[0]


def test_probing_leaves_out_logprobs_where_they_are_refused(server):
    def script(heard):
        if "logprobs" in heard.body:
            return Said({"detail": "logprobs are not supported"}, 422)
        return honest(heard)

    server.script = script
    model = asking(server, probe=True)
    assert isinstance(model.answer(requests())[0], Answer)
    assert model.provenance["server"]["no_logprobs"] == ["m"]


def test_probing_names_the_start_flag(server):
    text = "mm_processor_kwargs is not allowed"
    server.script = lambda heard: Said({"error": {"message": text}}, 400)
    with pytest.raises(ModelError, match="start vLLM with --trust-request-mm-kwargs"):
        asking(server, probe=True)


def test_the_only_model_is_found_and_several_are_named(server):
    options = parse_options({"preset": "resize"})
    with pytest.raises(ModelError, match="name no model.*does not list"):
        connect(server.url, options)
    server.gets["/v1/models"] = {"data": [{"id": "only"}]}
    model = connect(server.url, options)
    assert {one["model"] for one in model.spec["options"]["option"]} == {"only"}


def test_costs_of_several_models_need_prices_or_a_unit(server):
    two = {"option": [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}]}
    with pytest.raises(DataError, match="give every option a `price`"):
        asking(server, two)
    with pytest.raises(DataError, match="option 'a' has none"):
        asking(server, two, cost_unit="price")
    with pytest.raises(DataError, match="Did you mean 'pixels'"):
        asking(server, two, cost_unit="pixel")


def test_an_unknown_option_is_named(server):
    with pytest.raises(MismatchError, match="Did you mean 'small'"):
        asking(server).answer(requests(["smal"]))
    assert not server.heard


def test_counting_asks_nothing(server):
    model = asking(server, cost_unit="pixels")
    image = Image.new("RGB", (1280, 960))
    assert model.count(image, "small").cost == 64 * 48 == model.count(image, "small").pixels
    assert not server.heard
