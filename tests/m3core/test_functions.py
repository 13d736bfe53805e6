"""A user's function as a model: every form of it, and everything it may do wrong."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.example import Example
from m3router.m3core.functions import FunctionModel, load_reference
from m3router.m3core.labelling import label
from m3router.m3core.opening import open_model
from m3router.m3core.options import Answer, Failure, Request, Usage

MODULE = """
import functools
from m3router.m3core.functions import FunctionModel

def plain(images, questions, option): return ["yes"] * len(images)
def named(images, questions, option): return ["yes"] * len(images)
named.options = ("a", "b")
async def waits(images, questions, option): return ["yes"]
class Reader:
    def __call__(self, images, questions, option): return ["yes"] * len(images)
    def read(self, images, questions, option): return ["yes"] * len(images)
reader, method = Reader(), Reader().read
partial = functools.partial(lambda more, images, questions, option: ["yes"] * len(images), 1)
def factory(): return FunctionModel(plain, options=["a", "b"])
def function_factory(): return plain
def broken(): raise OSError("no weights")
def two(images, questions): return []
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    write("my_reader", MODULE)
    yield write
    for name in ("my_reader", "my_broken"):
        sys.modules.pop(name, None)


def ask(model, count=1):
    image = Image.new("RGB", (4, 4))
    return model.answer([Request(image=image, question="?", option="a") for _ in range(count)])


def of(function, **more):
    return FunctionModel(function, options=["a", "b"], name="f", **more)


@pytest.mark.parametrize(
    "form", ["plain", "named", "reader", "Reader", "method", "partial", "function_factory"]
)
def test_every_form_of_a_function_is_a_model(here, form):
    options = None if form == "named" else ["a", "b"]
    assert ask(load_reference(f"my_reader:{form}", options=options))[0].text == "yes"


def test_what_cannot_be_a_model_is_one_clear_error(here):
    for form, match in [
        ("waits", "async function"),
        ("broken", r"raised OSError: no weights \(my_reader.py, line"),
        ("two", r"takes 2 arguments \(images, questions\)"),
        ("plian", "Did you mean 'plain'"),
        ("MISSING", "Unknown name"),
    ]:
        with pytest.raises(ModelError, match=match):
            load_reference(f"my_reader:{form}", options=["a", "b"])
    with pytest.raises(ModelError, match="name them from the coarsest"):
        load_reference("my_reader:plain")
    with pytest.raises(MismatchError, match="has the options a, b by itself"):
        load_reference("my_reader:factory", options=["a", "c"])
    with pytest.raises(DataError, match="have names and nothing else"):
        open_model("my_reader:plain", options={"a": {"n": 1}, "b": {}})
    for text, match in [("x = ", "SyntaxError"), ("1 / 0", "ZeroDivisionError.*line 1")]:
        here("my_broken", text)
        with pytest.raises(ModelError, match=match):
            load_reference("my_broken:x")


class Panic(BaseException):
    """As extensions in Rust raise them."""


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, Panic])
def test_what_a_function_raises_is_an_error_of_one_question(error):
    def function(images, questions, option):
        if len(images) > 1 or questions[0] == "?":
            raise error("oh")
        return ["yes"]

    first, second = ask(of(function), 2)
    assert first.message == f"f raised {error.__name__}: oh" == second.message


@pytest.mark.parametrize("returned", ["yes", b"yes", None, {"a": 1}, ["yes"] * 3, [1, 2]])
def test_what_are_no_answers_is_said(returned):
    with pytest.raises(ModelError, match="must return|must be a text"):
        ask(of(lambda i, q, o: returned), 2)
    (failure,) = ask(of(lambda i, q, o: 3))
    assert "raised TypeError" in failure.message


def test_texts_of_numpy_and_generators_are_answers_and_none_is_not():
    told = ask(of(lambda i, q, o: (one for one in np.array([" yes", "no"]))), 2)
    assert [one.text for one in told] == ["yes", "no"]
    good, bad = ask(of(lambda i, q, o: ["yes", None]), 2)
    assert isinstance(good, Answer) and "returned None" in bad.message
    with pytest.raises(KeyboardInterrupt):
        ask(of(lambda i, q, o: (_ for _ in ()).throw(KeyboardInterrupt)))


def test_costs_that_are_none_are_refused():
    function = lambda i, q, o: ["yes"] * len(i)  # noqa: E731
    for cost in (-1, float("nan"), float("inf"), "1", None, True):
        with pytest.raises(MismatchError, match="number from 0 upwards"):
            of(function, costs={"a": 1, "b": cost})
        (failure,) = ask(of(function, costs=lambda image, option, c=cost: c))
        assert isinstance(failure, Failure) and "number from 0" in failure.message
    (failure,) = ask(of(function, costs=lambda image, option: 1 / 0))
    assert "ZeroDivisionError" in failure.message


def test_an_answer_that_no_log_can_hold_is_an_error_record(tmp_path):
    odd = [
        Answer(text=None, usage=Usage(cost=1)),
        Answer(text="x", usage=Usage(cost=float("nan"))),
        Answer(text="x", usage=Usage(cost=-1.0)),
        Answer(text="x", usage=Usage(cost=1, image_tokens=-3)),
        Answer(text="x", usage=Usage(cost=1, answer_tokens=2.5)),
        Answer(text="x", usage=Usage(cost="much")),
        Answer(text="x", usage=Usage(cost=1), confidence=2.0),
        Answer(text="a\ud800", usage=Usage(cost=np.float32(1))),
    ]
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    several = [
        Example(id=str(n), image="i.png", question=str(n), answers=("a?",)) for n in range(len(odd))
    ]
    model = FunctionModel(lambda i, q, o: [odd[int(one)] for one in q], options=["a"])
    frame = label(several, images=tmp_path, model=model, folder=tmp_path / "log").frame
    assert frame["error"].notna().tolist() == [True] * 7 + [False]
    assert frame["score"].tolist()[-1] == 1


def test_each_call_is_kept_and_another_source_is_refused(tmp_path):
    calls = []

    def function(images, questions, option):
        calls.append(option)
        if option == "b" and len(calls) < 3:
            raise KeyboardInterrupt
        return ["yes"] * len(images)

    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    several = [Example(id="1", image="i.png", question="?", answers=("yes",))]
    folder = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        label(several, images=tmp_path, model=of(function), folder=folder)
    with pytest.raises(MismatchError, match="deciding.source: journal"):
        label(several, images=tmp_path, model=of(function, revision="2"), folder=folder)
    label(several, images=tmp_path, model=of(function), folder=folder)
    assert calls == ["a", "b", "b"], "what was answered is not asked again"


def test_a_partial_function_has_the_revision_of_its_function():
    def one(more, images, questions, option):
        return []

    partial = functools.partial(one, 1)
    assert of(partial).revision == of(one).revision != of(partial, revision="x").revision
