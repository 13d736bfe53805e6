"""Asking until the first right answer, scoring references, and asking again one by one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.images import open_image
from m3router.data.log.oracle_log import OracleLog
from m3router.data.scenes.export import VALIDATION_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.m3core.labelling import LabelMode, label, verify
from m3router.m3core.labelling.references import expected_score, reference_answers
from m3router.m3core.labelling.run import STATS
from m3router.m3core.matryoshka.base import Answer, Request
from m3router.m3core.matryoshka.batching import Limits
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.training.targets import apply_rule
from tests.m3core.test_labelling import examples


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(12):
        noise = np.random.default_rng(seed).integers(0, 20 * seed + 2, (32, 32, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{seed}.png")
    return folder


def test_asking_stops_at_the_first_right_answer(images, tmp_path):
    asked = examples(12)
    (images / "3.png").write_bytes(b"")
    whole = label(asked, images=images, model=FakeModel(), folder=tmp_path / "whole")
    part = label(
        asked,
        images=images,
        model=FakeModel(),
        folder=tmp_path / "part",
        mode=LabelMode.UNTIL_CORRECT,
    )
    assert part.ids == whole.ids
    assert part.errors().drop(columns="chance").equals(whole.errors().drop(columns="chance"))
    np.testing.assert_array_equal(part.costs, whole.costs)
    for row in range(len(whole)):
        right = np.flatnonzero(whole.scores[row] == 1)
        known = right[0] + 1 if right.size else len(whole.options)
        np.testing.assert_array_equal(part.scores[row, :known], whole.scores[row, :known])
        assert np.isnan(part.scores[row, known:]).all()
    assert part.unknown.any() and not whole.unknown.any()
    assert (part.unknown == (np.isnan(part.scores) & np.isfinite(part.costs))).all()


def test_only_a_rule_that_can_live_with_it_accepts_such_a_log(images, tmp_path):
    asked = examples(12)
    run = {"images": images, "model": FakeModel()}
    whole = label(asked, folder=tmp_path / "whole", **run)
    part = label(asked, folder=tmp_path / "part", mode=LabelMode.UNTIL_CORRECT, **run)
    again = OracleLog.read(tmp_path / "part")
    assert (again.unknown == part.unknown).all()
    for rule in ("first_correct", "stable", "matches_full"):
        with pytest.raises(DataError, match="up to their first right answer"):
            apply_rule(part, rule)
    for gaps in ("error", "drop"):
        with pytest.raises(DataError, match="up to their first right answer"):
            part.require_complete(gaps)
    ours, theirs = apply_rule(part, "reached"), apply_rule(whole, "reached")
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.scores, np.maximum.accumulate(whole.scores, axis=1))
    assert ours.complete.all()


def test_a_run_of_another_kind_is_not_resumed(images, tmp_path):
    run = {"images": images, "model": FakeModel(), "folder": tmp_path / "log"}
    label(examples(2), mode=LabelMode.UNTIL_CORRECT, **run)
    with pytest.raises(MismatchError, match="asked: journal 'until-correct', now 'all'"):
        label(examples(2), **run)


def example(metric: str, answers: tuple[str, ...], choices: tuple[str, ...] = ()) -> Example:
    return Example(
        id="1", image="1.png", question="Why?", answers=answers, choices=choices, metric=metric
    )


@pytest.mark.parametrize(
    ("asked", "candidates"),
    [
        (example("yes_no", ("yes",)), ["yes", "no"]),
        (example("pope", ("no",)), ["yes", "no"]),
        (example("mme", ("Yes",)), ["yes", "no"]),
        (example("choice", ("B",), ("cat", "dog", "cow")), ["A", "B", "C"]),
        (example("choice", ("dog",), ("cat", "dog", "cow")), ["cat", "dog", "cow"]),
        (example("exact", ("red", "crimson", "red")), ["red", "crimson"]),
    ],
)
def test_what_is_scored(asked, candidates):
    assert reference_answers(asked) == candidates


def said(text: str, probability: float) -> Answer:
    return Answer(
        text=text,
        logprob=math.log(probability),
        confidence=probability,
        answer_tokens=1,
        visual_tokens=1,
        text_tokens=1,
    )


def test_soft_scores_are_expectations():
    closed = example("choice", ("B",), ("cat", "dog", "cow"))
    answers = [said("A", 0.1), said("B", 0.3), said("C", 0.1)]
    assert expected_score(closed, answers) == pytest.approx(0.6)  # of what may be said at all
    assert expected_score(closed, [said(t, 1e-200) for t in "ABC"]) == pytest.approx(1 / 3)
    open_ = example("exact", ("red", "crimson"))
    assert expected_score(open_, [said("red", 0.3), said("crimson", 0.1)]) == pytest.approx(0.4)
    ten = example("vqa", ("red",) * 7 + ("pink",) * 3)
    # 'red' scores 1; 'pink' is matched by 3 of 10: 7 leave-one-out sets give 1, 3 give 2/3.
    assert expected_score(ten, [said("red", 0.5), said("pink", 0.5)]) == pytest.approx(0.95)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    seeds = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + 3)
    return root / "images", load_jsonl(
        write_scenes(root, seeds, questions=4), images=root / "images"
    )


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded", device="cpu")


def test_references_are_scored_in_one_pass_with_their_probability(scenes, embedded, tmp_path):
    images, asked = scenes
    endless = Example(id="endless", image=asked[0].image, question="Why?", answers=("so " * 40,))
    log = label(
        [*asked, endless], images=images, model=embedded, folder=tmp_path, mode=LabelMode.REFERENCES
    )
    assert set(log.errors()["example_id"]) == {"endless"}
    assert "81 tokens" in log.errors()["error"].iloc[0]
    log = log.drop_gaps()
    compared = 0
    for row, one in list(enumerate(asked))[::5]:
        (encoding,) = embedded.encode([open_image(images / one.image)])
        for column, scale in enumerate(embedded.grid.scales):
            request = Request(encoding=encoding, question=one.question, scale=scale)
            (generated,) = embedded.answer([request])
            if one.metric == "exact" and (generated.text,) == one.answers:
                expected = math.exp(generated.logprob)
                assert log.scores[row, column] == pytest.approx(expected, abs=1e-4)
                compared += 1
    assert log.scores.min() > 0 and log.scores.max() <= 1
    assert len(np.unique(log.scores)) > 20


@pytest.mark.parametrize("requests", [3, 16])
def test_fp32_labels_do_not_depend_on_their_batch(scenes, embedded, tmp_path, requests):
    images, asked = scenes
    order = np.random.default_rng(requests).permutation(len(asked))
    log = label(
        [asked[i] for i in order],
        images=images,
        model=embedded,
        folder=tmp_path,
        limits=Limits(requests=requests),
    )
    checked = verify(log, asked, images=images, model=embedded, count=200)
    found = checked.metadata["verified"]
    assert found["examples"] == len(asked)
    assert found["flips"] == dict.fromkeys(log.options, 0)
    assert set(found["flip_rate"].values()) == {0.0}
    assert checked.frame.equals(log.frame)


class Moody(FakeModel):
    """Answers otherwise in company."""

    def answer(self, requests):
        answers = super().answer(requests)
        if len(requests) == 1:
            return answers
        return [
            Answer(**{**vars(one), "text": "no"}) if request.scale == 36 else one
            for one, request in zip(answers, requests, strict=True)
        ]


def test_labels_that_do_depend_on_their_batch_are_counted(images, tmp_path):
    asked = examples(12)
    log = label(asked, images=images, model=Moody(), folder=tmp_path)
    truth = FakeModel()
    checked = verify(log, asked, images=images, model=truth, count=10, seed=4)
    found = checked.metadata["verified"]
    assert found["examples"] == 10 and found["asked"]["36"] == 10
    assert 0 < found["flips"]["36"] <= 10
    assert found["flip_rate"]["36"] == found["flips"]["36"] / 10
    assert sum(found["flips"].values()) == found["flips"]["36"]
    # The record stays when the finished run is started again.
    checked.write(tmp_path)
    assert label(asked, images=images, model=Moody(), folder=tmp_path).metadata["verified"]


def test_a_run_reports_what_it_computed(scenes, embedded, tmp_path):
    images, asked = scenes
    label(asked, images=images, model=embedded, folder=tmp_path)
    effort = json.loads((tmp_path / STATS).read_text())
    assert effort["examples"] == len(asked)
    assert 0 < effort["padding_share"] < 0.3  # few and short requests; see test_batching
    assert {"pictures", "encode", "answer", "keep"} <= set(effort["seconds_by_stage"])
    assert sum(effort["seconds_by_stage"].values()) <= effort["seconds"] * 1.01
    assert 0 < effort["lower_bound_seconds"] < effort["seconds"]
    assert effort["tokens_per_second"] > 0


def test_images_read_by_worker_processes_give_the_same_log(scenes, embedded, tmp_path):
    images, asked = scenes
    broken = Example(id="broken", image="none.png", question="Why?", answers=("x",))
    run = {"images": images, "model": embedded}
    ahead = label([*asked, broken], folder=tmp_path / "ahead", workers=1, **run)
    here = label([*asked, broken], folder=tmp_path / "here", **run)
    assert ahead.frame.equals(here.frame)
    assert "no such file" in ahead.errors()["error"].iloc[0]
