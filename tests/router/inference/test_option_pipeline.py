"""Answers at options that are chosen before the model is asked; asking again, paid for in full."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router import AutoScalePipeline, OptionPipeline, open_pipeline
from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.endpoint.stand_in import StandIn, running
from m3router.m3core.options import Answer, Failure, Usage, total_usage
from m3router.router.cascade.rule import Cascade
from m3router.router.inference.router import Router
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.serve.deciding.child import Rules
from m3router.router.serve.deciding.decider import Wish
from tests.data.clips import write_video
from tests.router.inference.reading import (
    READ,
    TOKENS,
    WRITTEN,
    endpoint_run,
    read,
    reader,
    reader_run,
)

NAMES = list(TOKENS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return reader_run(tmp_path_factory.mktemp("read")).root


@pytest.fixture(scope="module")
def images(run) -> list[Image.Image]:
    files = [run.parent / "images" / f"{number}.png" for number in range(24)]
    return [Image.open(one).convert("RGB") for one in files]


def pipeline_of(run: Path, policy: str = "sure", **options) -> OptionPipeline:
    return OptionPipeline.load(run, model=reader(**options), policy=policy)


@pytest.fixture(scope="module")
def sure(run) -> OptionPipeline:
    return pipeline_of(run)


@pytest.fixture(scope="module")
def again(sure, images) -> Image.Image:
    """An image that `sure` asks about twice, at last at the finest option."""
    answers = sure.answer(images, [READ[0]] * len(images))
    found = zip(images, answers, strict=True)
    return next(i for i, one in found if len(one.earlier) == 1 and one.option == "high")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 23), st.sampled_from(READ)), max_size=8))
def test_a_batch_is_answered_as_each_alone_and_each_is_asked_once(run, images, sure, asked):
    calls: list[tuple[str, str]] = []
    watched = OptionPipeline(model=reader(asked=calls), router=sure.router)
    pictures, questions = [images[n] for n, _ in asked], [text for _, text in asked]
    together = watched.answer(pictures, questions)
    paid = [
        (text, option)
        for text, one in zip(questions, together, strict=True)
        for option in (*(name for name, _ in one.earlier), one.option)
    ]
    assert Counter(calls) == Counter(paid)
    for (number, text), one in zip(asked, together, strict=True):
        (alone,) = sure.answer([images[number]], [text])
        assert (alone.option, alone.text) == (one.option, one.text)
        assert alone.estimates == pytest.approx(dict(one.estimates))
        assert [name for name, _ in alone.earlier] == [name for name, _ in one.earlier]
        told = [*one.earlier, (one.option, one.answer)]
        assert one.decision.option == told[0][0]
        for option, answer in told:
            assert answer.text == read(images[number], text, option).text
        assert one.usage.cost == sum(TOKENS[option] for option, _ in told)
        assert one.usage.image_tokens == one.usage.cost and one.usage.attempts == len(told)
        assert one.usage.price == pytest.approx(one.usage.cost / 1000)
        assert one.usage == total_usage(answer.usage for _, answer in told)
        assert one.failed is None and one.cost_unit == "tokens"


def test_where_nothing_can_be_asked_again_the_plain_policy_of_that_name_decides(run):
    router, folder = Router.load(run, policy="sure"), Run(run)
    plain, cascade = router.rule(again=False), router.rule()
    assert isinstance(cascade, Cascade) and isinstance(plain, Policy)
    assert plain.knob == cascade.knob and plain == Policy.read(folder.policy_file("sure"))
    assert router.rule(policy="sure", again=False) == plain
    assert Router.load(run).rule(again=False) == Policy.read(folder.policy_file("default"))
    rules = Rules(router, run, "sure")
    assert rules.at_hand(Wish(), again=True) == cascade
    assert rules.at_hand(Wish(), again=False) == plain
    assert rules.at_hand(Wish(policy="default"), again=False) is None
    assert rules.made(Wish(policy="default"), again=False) == Policy.read(
        folder.policy_file("default")
    )


def test_what_may_ask_again_is_the_cascade_of_the_named_policy_alone(run, images, sure):
    plain, questions = pipeline_of(run, "default"), [READ[0]] * len(images)
    by_name = plain.answer(images, questions, policy="sure")
    own = sure.answer(images, questions)
    assert [one.option for one in by_name] == [one.option for one in own]
    assert [one.usage.cost for one in by_name] == [one.usage.cost for one in own]
    assert any(one.earlier for one in own) and all(one.decision.escalates for one in by_name)
    for ways in ({"policy": "default"}, {"budget": 60}, {"option": "low"}):
        answers = sure.answer(images, questions, **ways)
        assert not any(one.earlier or one.decision.escalates for one in answers)
    assert [one.option for one in sure.answer(images, questions, policy="default")] == [
        one.option for one in plain.answer(images, questions)
    ]
    assert {one.option for one in sure.answer(images, questions, option="mid")} == {"mid"}
    foreign = replace(sure.router.cascade.binding, router="0" * 64)
    other = replace(sure.router.cascade, binding=foreign)
    with pytest.raises(MismatchError, match="calibrated for another router.*000000000000"):
        sure.answer(images, questions, policy=other)


def failing(*options: str, usage: Usage | None = None, error: bool = False):
    def spoil(question: str, option: str) -> Failure | None:
        if option not in options:
            return None
        if error:
            raise ModelError("nobody answers at example.org any more")
        return Failure(message="the server broke", usage=usage)

    return spoil


def test_what_fails_after_an_answer_leaves_that_answer_and_its_whole_price(sure, again):
    (good,) = sure.answer([again], [READ[0]])
    (first, before), finer = good.earlier[0], good.option
    paid = Usage(cost=7.0, attempts=3)
    for spoil, failed in (
        (failing(finer, usage=paid), Failure(message="the server broke", usage=paid)),
        (failing(finer), Failure(message="the server broke")),
        (failing(finer, error=True), Failure(message="nobody answers at example.org any more")),
    ):
        calls: list[tuple[str, str]] = []
        broken = OptionPipeline(model=reader(asked=calls, spoil=spoil), router=sure.router)
        (told,) = broken.answer([again], [READ[0]])
        assert (told.option, told.text, told.earlier) == (first, before.text, ())
        assert told.failed is not None and told.failed[0] == finer
        assert told.failed[1] == failed
        assert told.usage.cost == TOKENS[first] + (7.0 if failed.usage else 0.0)
        assert told.usage.attempts == 1 + (3 if failed.usage else 0)
        assert [option for _, option in calls] == [first, finer]


def test_what_fails_first_fails_alone(sure, images):
    spoil = failing("low", "mid", "high")
    pipeline = OptionPipeline(
        model=reader(spoil=lambda text, option: spoil(text, option) if text == "?" else None),
        router=sure.router,
    )
    bad, good = pipeline.answer_each(images[:2], ["?", READ[0]])
    assert isinstance(bad, Failure) and good.text
    with pytest.raises(DataError, match="Question 1 was not answered: the server broke"):
        pipeline.answer(images[:2], ["?", READ[0]])
    dead = reader(spoil=failing("low", "mid", "high", error=True))
    with pytest.raises(ModelError, match=r"example\.org"):
        OptionPipeline(model=dead, router=sure.router).answer_each(images[:1], ["?"])


@pytest.mark.parametrize("logprob", [None, float("nan"), float("-inf")])
def test_how_sure_an_answer_is_must_be_known_only_where_something_may_follow(sure, again, logprob):
    unsure = Answer(text="hm", confidence=0.5, logprob=logprob, usage=Usage(cost=5.0))
    pipeline = OptionPipeline(
        model=reader(spoil=lambda text, option: unsure if option != "high" else None),
        router=sure.router,
    )
    told = pipeline.answer_each([again], [READ[0]])[0]
    assert isinstance(told, Failure) and "log-probabilities" in told.message
    assert told.usage is not None and told.usage.cost == 5.0  # it was paid for
    assert pipeline.answer([again], [READ[0]], policy="default")[0].text
    last = Answer(text="end", usage=Usage(cost=160.0))
    silent = reader(spoil=lambda text, option: last if option == "high" else None)
    (told,) = OptionPipeline(model=silent, router=sure.router).answer([again], [READ[0]])
    assert told.text == "end" and told.earlier and told.failed is None


def test_what_cannot_be_asked_costs_the_others_nothing(sure, images, tmp_path):
    calls: list[tuple[str, str]] = []
    pipeline = OptionPipeline(model=reader(asked=calls), router=sure.router)
    (tmp_path / "broken.png").write_bytes(b"no image")
    asked = [images[0], str(tmp_path / "broken.png"), images[1], tmp_path / "missing.png"]
    questions = [READ[0], READ[0], "  ", READ[0]]
    told = pipeline.answer_each(asked, questions, option="mid")
    assert [isinstance(one, Failure) for one in told] == [False, True, True, True]
    assert "broken.png" in told[1].message and "empty" in told[2].message
    assert calls == [(READ[0], "mid")]
    calls.clear()
    for bad in (tmp_path / "broken.png", tmp_path / "missing.png"):
        with pytest.raises(DataError, match=bad.name):
            pipeline.answer([images[0], bad], [READ[0]] * 2)
    with pytest.raises(DataError, match="Question 2 is empty"):
        pipeline.answer(images[:2], [READ[0], " "])
    with pytest.raises(MismatchError, match="2 images but 1 questions"):
        pipeline.answer(images[:2], [READ[0]])
    with pytest.raises(MismatchError, match="'mid'"):
        pipeline.answer(images[:1], [READ[0]], option="med")
    with pytest.raises(DataError, match="at most one"):
        pipeline.answer(images[:1], [READ[0]], option="mid", budget=60)
    assert calls == [] and pipeline.answer([], []) == pipeline.answer_each([], []) == []


def test_images_may_be_files_videos_or_of_any_mode_and_are_shared(run, sure, tmp_path):
    seen: list[Image.Image] = []
    model = reader()
    function = model.function
    model.function = lambda images, *rest: seen.extend(images) or function(images, *rest)
    pipeline = OptionPipeline(model=model, router=sure.router)
    file, clip = run.parent / "images" / "0.png", write_video(tmp_path / "clip.mp4")
    deep = Image.new("RGBA", (20, 12), (7, 0, 0, 255))
    pipeline.answer([file, str(file), deep, deep, clip, str(clip)], [READ[0]] * 6, option="low")
    assert {one.mode for one in seen} == {"RGB"}
    assert seen[0] is seen[1] and seen[2] is seen[3] and seen[4] is seen[5]
    assert seen[4].size == (128, 144)  # a collage of as many frames as in the run


def test_everywhere_asks_each_option_once_and_tells_what_routing_would_give(sure, images):
    calls: list[tuple[str, str]] = []
    watched = OptionPipeline(model=reader(asked=calls), router=sure.router)
    for image in images[:8]:
        (routed,) = sure.answer([image], [READ[1]])
        calls.clear()
        told, answers = watched.answer_everywhere(image, READ[1])
        assert calls == [(READ[1], name) for name in NAMES] and list(answers) == NAMES
        assert (told.option, told.text, told.usage.cost) == (
            routed.option,
            routed.text,
            routed.usage.cost,
        )
        assert [name for name, _ in told.earlier] == [name for name, _ in routed.earlier]
    told, _ = watched.answer_everywhere(images[0], READ[1], option="low")
    assert told.option == "low" and told.usage.cost == 10


def test_another_model_or_door_is_refused(run, sure):
    other = reader()
    other.revision = "f" * 64
    with pytest.raises(MismatchError, match="its weights, options, prompt"):
        OptionPipeline(model=other, router=sure.router)
    with pytest.raises(MismatchError, match=r"m3router\.open_pipeline\(run\)"):
        AutoScalePipeline.load(run)
    assert isinstance(open_pipeline(run), OptionPipeline)


def test_a_run_of_an_endpoint_is_asked_again_with_its_prices(tmp_path):
    with running(StandIn(family="qwen3-vl")) as server:
        run = endpoint_run(tmp_path, server.url)
        pipeline = open_pipeline(run.root)
        server.hits.clear()
        files = [str(tmp_path / "images" / f"{n}.png") for n in range(3)]
        answers = pipeline.answer(files, [WRITTEN] * 3)
        assert len(server.hits) == 3 and {one.option for one in answers} == {"small", "whole"}
        for one in answers:
            assert one.text == "seven" and one.cost_unit == one.decision.cost_unit == "price"
            assert one.usage.price == one.usage.cost == {"small": 0.5, "whole": 2.0}[one.option]
            assert list(one.decision.costs.values()) == [0.5, 2.0]
        server.faults.queue("413")
        first, second = pipeline.answer_each(files[:2], [WRITTEN] * 2)
        failed = [one for one in (first, second) if isinstance(one, Failure)]
        assert len(failed) == 1 and "413" in failed[0].message


def test_answers_may_be_as_long_as_in_the_log(run, images, sure, monkeypatch):
    model, seen = reader(), []
    ask = model.answer
    monkeypatch.setattr(model, "answer", lambda asked: (seen.extend(asked), ask(asked))[1])
    pipeline = OptionPipeline(model=model, router=sure.router)
    (longest,) = set(Run(run).log().max_new_tokens)
    pipeline.answer(images[:1], [READ[0]])
    pipeline.answer(images[:1], [READ[0]], max_new_tokens=3)
    assert {one.max_new_tokens for one in seen} == {int(longest), 3}


def test_what_is_no_model_is_refused_by_name(run):
    with pytest.raises(MismatchError, match="asked by option .*got a dict"):
        open_pipeline(run, model={"name": "reader"})
