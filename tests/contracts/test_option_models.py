"""What every model that can be asked at several options keeps to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import MismatchError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.m3core.checkpoints import load_model
from m3router.m3core.endpoint import connect, parse_options
from m3router.m3core.endpoint.stand_in import StandIn, coded_image, running
from m3router.m3core.functions import FunctionModel
from m3router.m3core.labelling import label
from m3router.m3core.opening import KINDS, reopen
from m3router.m3core.options import Answer, Failure, OptionModel, Request
from m3router.m3core.vlm import FAMILIES, load_vlm
from m3router.m3core.vlm.tiny import save_tiny

QUESTIONS = ("what is it?", "how many are there, and of which colour?")
NEEDS_TORCHVISION = {"lfm2_vl"}


def brightness(images, questions, option):
    """A reader that sees more of an image at a larger option."""
    side = {"small": 2, "large": 16}[option]
    grey = [np.asarray(image.convert("L").resize((side, side)), float) for image in images]
    return [f"{len(q)} {a.std():.3f}" for a, q in zip(grey, questions, strict=True)]


def build(kind: str, folder: Path) -> Iterator[OptionModel]:
    if kind in ("embedded", "fake"):
        yield load_model(kind)
    elif kind == "function":
        yield FunctionModel(
            brightness, options=["small", "large"], costs={"small": 4, "large": 256}
        )
    elif kind == "endpoint":
        with running(StandIn(family="qwen3-vl")) as server:
            yield connect(
                server.url + "/v1", parse_options({"preset": "vllm-qwen3-vl"}), in_flight=4
            )
    else:
        if kind in NEEDS_TORCHVISION:
            pytest.importorskip("torchvision")
        yield load_vlm(str(save_tiny(kind, folder)), max_new_tokens=6)


@pytest.fixture(scope="module", params=["embedded", "fake", "function", "endpoint", *FAMILIES])
def model(request, tmp_path_factory) -> Iterator[OptionModel]:
    yield from build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return [
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC),
        coded_image("word", cells=8, size=(320, 320)),
    ]


def ends(model: OptionModel) -> list[str]:
    """The coarsest option and one finer: enough to mix, and quick."""
    return [option.name for option in model.options[:2]]


def test_it_says_what_it_is(model):
    assert isinstance(model, OptionModel)
    assert [option.rank for option in model.options] == list(range(len(model.options)))
    assert len({option.name for option in model.options}) == len(model.options) > 1
    assert len(model.revision) == 64 and int(model.revision, 16) >= 0
    assert model.name and model.cost_unit and model.max_new_tokens >= 1
    assert json.loads(json.dumps(dict(model.provenance))) == dict(model.provenance)
    assert model.spec["kind"] in KINDS and json.loads(json.dumps(dict(model.spec)))


def test_an_option_it_lacks_is_refused_by_name(model, images):
    nearly = model.options[0].name + "0000"
    with pytest.raises(MismatchError, match=model.options[0].name):
        model.count(images[0], nearly)
    with pytest.raises(MismatchError, match=model.options[0].name):
        model.answer([Request(image=images[0], question="what?", option=nearly)])


def test_mixed_requests_are_answered_as_each_alone(model, images):
    requests = [
        Request(image=image, question=question, option=option)
        for option in ends(model)
        for image in images
        for question in QUESTIONS
    ]
    order = np.random.default_rng(1).permutation(len(requests))
    together = dict(zip(order, model.answer([requests[n] for n in order]), strict=True))
    for place, request in enumerate(requests):
        (alone,) = model.answer([request])
        mixed = together[place]
        assert isinstance(alone, Answer) and isinstance(mixed, Answer), (alone, mixed)
        assert mixed.text == alone.text
        assert mixed.confidence == pytest.approx(alone.confidence, abs=1e-3)
        assert mixed.usage.cost == alone.usage.cost
        assert mixed.usage.image_tokens == alone.usage.image_tokens
    said = {(one.text, one.confidence) for one in together.values()}
    assert len(said) > 1, "a model that says the same of everything"


def test_what_is_counted_before_is_what_is_paid(model, images):
    for option in ends(model):
        for image in images:
            counted = model.count(image, option)
            (told,) = model.answer([Request(image=image, question="what?", option=option)])
            assert isinstance(told, Answer)
            assert told.usage.cost is not None and told.usage.cost >= 0
            for name in ("cost", "image_tokens", "tower_flops"):
                if getattr(counted, name) is not None:
                    assert getattr(told.usage, name) == pytest.approx(getattr(counted, name))


def test_the_longest_answer_is_kept_to(model, images):
    request = Request(
        image=images[0], question="what?", option=model.options[0].name, max_new_tokens=1
    )
    (told,) = model.answer([request])
    assert isinstance(told, Answer)
    assert told.usage.answer_tokens is None or told.usage.answer_tokens <= 1


def test_an_empty_question_fails_alone_and_nothing_is_answered_with_nothing(model, images):
    option = model.options[0].name
    assert model.answer([]) == []
    bad, good = model.answer(
        [Request(image=images[0], question=text, option=option) for text in ("  ", "what?")]
    )
    assert isinstance(bad, Failure) and "question" in bad.message
    assert isinstance(good, Answer)


def test_its_spec_makes_it_again(model):
    if model.spec["kind"] == "function":
        pytest.skip("a function that was given as an object has no name to find it by")
    again = reopen(model.spec, device="cpu")
    assert (again.revision, again.options) == (model.revision, model.options)


def test_it_is_labelled_and_a_second_run_asks_nothing(model, images, tmp_path):
    for place, image in enumerate(images):
        image.save(tmp_path / f"{place}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    examples = [
        Example(id=f"{name}-{row}", image=f"{name}.png", question=question, answers=("word",))
        for name in ("0", "1", "broken")
        for row, question in enumerate(QUESTIONS)
    ]
    told: list[int] = []
    log = label(examples, images=tmp_path, model=model, folder=tmp_path / "log")
    assert log.options == tuple(option.name for option in model.options)
    assert log.cost_unit == model.cost_unit
    assert log.complete.tolist() == [True] * 4 + [False] * 2
    assert set(log.errors()["example_id"]) == {"broken-0", "broken-1"}
    again = label(
        examples,
        images=tmp_path / "gone",  # nothing is opened a second time
        model=model,
        folder=tmp_path / "log",
        progress=lambda state: told.append(state.done),
    )
    assert told == [6] and again.frame.equals(log.frame)
    assert OracleLog.read(tmp_path / "log").metadata["revision"] == model.revision
