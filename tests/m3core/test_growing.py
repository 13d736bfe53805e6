"""Answers that grow in a batch which questions join and leave are those of single calls."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from m3router.data.errors import MismatchError
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.models.fake import FakeModel

QUESTIONS = [
    "What color is the background?",
    "Is there a red ring?",
    "How many shapes are there?",
    "What number is printed on the tag in the upper left corner?",
]


@pytest.fixture(scope="module", params=["embedded", "fake", "random"])
def model(request, random_m3):
    if request.param == "random":
        return random_m3  # never ends an answer by itself: rows of all lengths
    return FakeModel() if request.param == "fake" else load_model("embedded", device="cpu")


def requests_of(model, count, seed):
    rng = random.Random(seed)
    images = [Image.fromarray(render(make_scene(one))) for one in range(4)]
    encodings = model.encode(images)
    return [
        Request(
            encoding=rng.choice(encodings),
            question=rng.choice(QUESTIONS),
            scale=rng.choice(model.grid.scales),
        )
        for _ in range(count)
    ]


def same(found, wanted):
    assert (found.text, found.answer_tokens) == (wanted.text, wanted.answer_tokens)
    assert (found.visual_tokens, found.text_tokens) == (wanted.visual_tokens, wanted.text_tokens)
    assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_joining_at_any_step_changes_no_answer(model, seed):
    rng = random.Random(seed)
    waiting = requests_of(model, 12, seed)
    alone = [model.answer([one])[0] for one in waiting]
    batch, rows, texts = None, [], []
    while len(rows) < len(waiting) or batch.rows:
        taken = waiting[len(rows) : len(rows) + rng.choice([0, 1, 3])]
        if taken:
            more = model.begin(taken)
            rows += more.rows
            texts += [""] * len(taken)
            if batch is None:
                batch = more
            else:
                batch.join(more)
        if batch is not None and batch.rows:
            batch.step()
        for place, row in enumerate(rows):
            said = row.settled()
            assert said.startswith(texts[place])
            texts[place] = said
    for row, text, wanted in zip(rows, texts, alone, strict=True):
        assert row.ended and wanted.text.startswith(text)
        same(row.answer(), wanted)


def test_what_is_given_up_leaves_and_the_others_go_on(model):
    asked = requests_of(model, 6, 5)
    alone = [model.answer([one])[0] for one in asked]
    batch = model.begin(asked)
    rows = list(batch.rows)
    batch.step()
    for row in rows[::2]:
        row.give_up()
    while batch.rows:
        batch.step()
    for row, wanted in zip(rows[1::2], alone[1::2], strict=True):
        same(row.answer(), wanted)


def test_each_answer_has_its_own_longest_length(random_m3):
    asked = requests_of(random_m3, 3, 6)
    alone = [random_m3.answer([one])[0] for one in asked]
    batch = random_m3.begin(asked, most=[1, 3, random_m3.max_new_tokens])
    rows = list(batch.rows)
    while batch.rows:
        batch.step()
    lengths = [row.answer().answer_tokens for row in rows]
    assert lengths[:2] == [1, 3] and lengths[2] == alone[2].answer_tokens
    assert not rows[0].whole and not rows[1].whole
    assert alone[1].text.startswith(rows[1].settled())


def test_peeks_go_on_from_where_they_stopped(model):
    asked = requests_of(model, 5, 7)
    alone = [model.answer([one])[0] for one in asked]
    peeks = model.peek(asked)
    batch = model.resume([peeks[3], peeks[0]])
    rows = list(batch.rows)
    batch.step()
    batch.join(model.begin([asked[1]]))
    rows += batch.rows[-1:]
    while batch.rows:
        batch.step()
    for row, place in zip(rows, (3, 0, 1), strict=True):
        same(row.answer(), alone[place])


def test_an_answer_that_is_brought_is_not_written(model):
    (one,) = requests_of(model, 1, 8)
    brought = Request(encoding=one.encoding, question=one.question, scale=one.scale, answer="yes")
    with pytest.raises(MismatchError, match="brings an answer"):
        model.begin([brought])
