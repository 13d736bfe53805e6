"""How long an answer may be: by example, by run, by model; whatever it shares a batch with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.partial_log import find_log
from m3router.m3core.labelling import LabelMode, label, verify
from m3router.m3core.labelling.rows import longest_in
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.batching import Limits, answer_all, needs_of
from m3router.m3core.matryoshka.models.fake import FakeModel

OWN = (1, 3, None, 9, 6, None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    questions = ("what is it?", "is there a red tag in the room?", "how many?")
    return [
        Example(
            id=str(number),
            image=f"{number % 3}.png",
            question=questions[number // 2],
            answers=("one", "two"),
            max_new_tokens=length,
        )
        for number, length in enumerate(OWN)
    ]


@pytest.fixture(scope="module")
def log(images, examples, random_m3, tmp_path_factory) -> OracleLog:
    folder = tmp_path_factory.mktemp("log")
    return label(examples, images=images, model=random_m3, folder=folder)


def requests_of(model, examples, images) -> list[Request]:
    requests = []
    for one in examples:
        with Image.open(images / one.image) as image:
            (encoding,) = model.encode([image.convert("RGB")])
        requests += [
            Request(
                encoding=encoding,
                question=one.question,
                scale=scale,
                max_new_tokens=one.max_new_tokens,
            )
            for scale in model.grid.scales[:3]
        ]
    return requests


def test_each_example_is_answered_up_to_its_own_length(log, random_m3):
    lengths = [random_m3.max_new_tokens if own is None else own for own in OWN]
    assert random_m3.max_new_tokens == 4
    assert log.max_new_tokens.tolist() == lengths
    assert log.metadata["max_new_tokens"] == {"1": 1, "3": 1, "4": 2, "6": 1, "9": 1}
    assert longest_in(log.metadata) == 9
    counts, finish = log.laid_out("answer_tokens"), log.laid_out("finish")
    for row, length in enumerate(lengths):
        assert (counts[row] <= length).all()
        assert all(end == "stop" for end in finish[row][counts[row] < length])
    # A model with random weights goes on and on, so lengths are what ends most answers.
    assert (finish == "length").mean() > 0.5
    assert counts.max() == 9


def test_an_answer_does_not_depend_on_the_lengths_beside_it(log, images, examples, random_m3):
    found = verify(log, examples, images=images, model=random_m3, count=6)
    assert set(found.metadata["verified"]["flips"].values()) == {0}
    requests = requests_of(random_m3, examples, images)
    alone = [random_m3.answer([one])[0] for one in requests]
    together = answer_all(random_m3, requests, Limits())
    for one, other in zip(alone, together, strict=True):
        assert (one.text, one.answer_tokens, one.cut) == (
            other.text,
            other.answer_tokens,
            other.cut,
        )
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_longer_answer_begins_as_the_shorter_one(images, examples, random_m3):
    (first, *_) = requests_of(random_m3, examples[:1], images)
    texts = []
    for length in (2, 5, 8):
        (answer,) = random_m3.answer([replace(first, max_new_tokens=length)])
        assert answer.answer_tokens <= length
        assert answer.cut == (answer.answer_tokens == length) or not answer.cut
        texts.append(answer.text)
    assert texts[1].startswith(texts[0]) and texts[2].startswith(texts[1])


def test_peeks_and_steps_have_the_same_lengths(images, examples, random_m3):
    requests = requests_of(random_m3, examples, images)
    wanted = random_m3.answer(requests)
    peeks = random_m3.peek(requests)
    finished = random_m3.finish(peeks)
    for begun in (random_m3.begin(requests), random_m3.resume(peeks)):
        rows = list(begun.rows)
        while begun.rows:
            begun.step()
        for row, said, one in zip(rows, finished, wanted, strict=True):
            for other in (row.answer(), said):
                assert (other.text, other.answer_tokens) == (one.text, one.answer_tokens)
                assert other.cut == one.cut
            assert row.whole == (not one.cut)


def test_the_run_s_length_goes_before_the_examples_own(log, images, examples, random_m3, tmp_path):
    folder = tmp_path / "log"
    two = label(examples, images=images, model=random_m3, folder=folder, max_new_tokens=2)
    assert two.metadata["max_new_tokens"] == 2 == longest_in(two.metadata)
    assert two.max_new_tokens.tolist() == [2] * 6
    assert two.laid_out("answer_tokens").max() == 2
    counts = log.laid_out("answer_tokens")
    same = np.minimum(counts, 2)[1:] == two.laid_out("answer_tokens")[1:]
    assert same.all()
    found = verify(two, examples, images=images, model=random_m3, count=6)
    assert set(found.metadata["verified"]["flips"].values()) == {0}
    with pytest.raises(MismatchError, match="max_new_tokens: journal 2, now 5"):
        label(examples, images=images, model=random_m3, folder=folder, max_new_tokens=5)
    with pytest.raises(MismatchError, match="max_new_tokens: journal 2, now {'1': 1"):
        label(examples, images=images, model=random_m3, folder=folder)


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_a_length_that_is_none(images, examples, tmp_path, length):
    with pytest.raises(DataError, match="max_new_tokens must be a whole number"):
        label(
            examples,
            images=images,
            model=FakeModel(),
            folder=tmp_path,
            max_new_tokens=length,
        )


def test_what_the_context_has_left_is_a_limit_too(images, examples, random_m3, monkeypatch):
    (first, *_) = requests_of(random_m3, examples[:1], images)
    prompt = random_m3.prompt_length(first.question, 1)
    monkeypatch.setattr(random_m3, "context", prompt + 7)
    beyond = replace(first, max_new_tokens=1_000_000)
    (answer,) = random_m3.answer([beyond])
    assert answer.answer_tokens <= 7
    (wanted,) = random_m3.answer([replace(first, max_new_tokens=7)])
    assert (answer.text, answer.cut) == (wanted.text, wanted.cut)
    monkeypatch.setattr(random_m3, "context", prompt + 3)
    with pytest.raises(DataError, match="does not fit: .* up to 4 answer tokens"):
        random_m3.answer([beyond])


def test_asking_up_to_the_first_right_answer_keeps_the_lengths(
    log, images, examples, random_m3, tmp_path
):
    part = label(
        examples,
        images=images,
        model=random_m3,
        folder=tmp_path,
        mode=LabelMode.UNTIL_CORRECT,
    )
    asked = np.isfinite(part.scores)
    assert (part.laid_out("answer")[asked] == log.laid_out("answer")[asked]).all()
    assert (part.laid_out("finish")[asked] == log.laid_out("finish")[asked]).all()
    assert part.laid_out("finish")[~asked].tolist() == [None] * int((~asked).sum())
    assert part.references.tolist() == log.references.tolist() == [("one", "two")] * 6


def test_references_may_be_as_long_as_answers(images, random_m3, tmp_path):
    (one,) = [
        Example(id="a", image="0.png", question="what is it?", answers=("one two three four five",))
    ]
    options = {"images": images, "model": random_m3, "mode": LabelMode.REFERENCES}
    short = label([one], folder=tmp_path / "short", **options)
    assert short.errors()["error"].str.contains("answers with 4 at most").all()
    long = label([one], folder=tmp_path / "long", max_new_tokens=40, **options)
    assert long.n_gaps == 0 and long.frame["finish"].isna().all()
    assert long.references.tolist() == [("one two three four five",)]


def test_an_unfinished_run_tells_what_was_expected(images, examples, tmp_path):
    def dying(state):
        if state.done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        label(examples, images=images, model=FakeModel(), folder=tmp_path, progress=dying)
    found = find_log(tmp_path)
    assert not found.finished
    assert found.log.references.tolist() == [("one", "two")] * 6
    assert set(found.log.metrics) == {"exact"} and set(found.log.frame["finish"]) == {"stop"}


def test_room_is_kept_for_answers_but_not_for_all_that_they_may_be(images, examples, random_m3):
    requests = requests_of(random_m3, examples, images)
    kept = [need.answer for need in needs_of(random_m3, requests)]
    assert kept == [length for own in OWN for length in [own or 4] * 3]
    (need,) = needs_of(random_m3, [replace(requests[0], max_new_tokens=1024)])
    assert need.answer == 64
