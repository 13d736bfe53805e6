"""Runs that a Matryoshka model labelled: decided by its own encoding, or before its tower runs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from m3router import open_pipeline
from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.log.parts import part_rows
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.router import Router
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, label_stage
from m3router.router.stages.learning import calibrate_stage, train_stage

QUESTIONS = ("Is it?", "Is there anything at all to be seen in this very image, or not?")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Images of rising contrast that the fake model was asked about; and its router."""
    root, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    examples = []
    for number in range(60):
        contrast = random.integers(0, 120)
        pixels = random.integers(128 - contrast, 129 + contrast, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        for place, question in enumerate(QUESTIONS):
            about = {"image": f"{number}.png", "group": f"{number}.png", "answers": ("yes",)}
            examples.append(Example(id=f"{number}-{place}", question=question, **about))
    run = Run(root / "run")
    label_stage(run, examples, images=root, model=FakeModel())
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, budget=60)
    return run, root


def asked(run, images):
    log = run.log()
    rows = part_rows(log, run.split(log), "test", gaps="error")
    return [images / log.images[row] for row in rows], [str(log.questions[row]) for row in rows]


def test_the_model_s_own_encoding_decides_as_in_the_pipeline(labelled):
    run, images = labelled
    router, pipeline = Router.load(run.root), AutoScalePipeline.load(run.root)
    assert run.router().expected_costs is None and not router.counts
    about = asked(run, images)
    decisions, answers = router.decide_many(*about), pipeline.answer(*about)
    assert [one.option for one in decisions] == [str(one.scale) for one in answers]
    assert len({one.option for one in decisions}) > 1
    for decision, answer in zip(decisions, answers, strict=True):
        assert list(decision.estimates.values()) == list(answer.sufficiency.values())
        assert decision.costs == {name: float(name) for name in router.options}


@pytest.fixture(scope="module")
def before(labelled, tiny_clip, tmp_path_factory):
    """The same log, with a router that reads a small encoder instead of the model's own tower."""
    run, images = labelled
    other = Run(tmp_path_factory.mktemp("before"))
    run.copy_data(other.root)
    table, causes = featurize_stage(other, images=images, encoder=tiny_clip)
    assert set(table.blocks) == {"image", "question", "size"} and not causes
    train_stage(other, estimator="logistic", ablations=False)
    calibrate_stage(other, budget=60)
    return other


def test_a_small_encoder_decides_before_the_tower_runs(labelled, before, monkeypatch):
    monkeypatch.setattr(FakeModel, "encode", lambda *_: pytest.fail("the tower ran"))
    router = Router.load(before.root)
    decisions = router.decide_many(*asked(before, labelled[1]))
    assert len({one.option for one in decisions}) > 1
    assert decisions[0].costs == {name: float(name) for name in router.options}


def test_one_loop_runs_over_both_kinds_of_pipelines(labelled, before):
    """Paths as texts, options and policies by name; and what comes back says the same things."""
    run, images = labelled
    files, questions = asked(run, images)
    files, questions = [str(one) for one in files[:6]], questions[:6]
    kinds = set()
    for place in (run, before):
        pipeline = open_pipeline(place.root)
        kinds.add(type(pipeline).__name__)
        for ways in ({}, {"policy": "default"}, {"option": "144"}):
            for one in pipeline.answer(files, questions, **ways):
                assert one.text in ("yes", "no") and one.option in pipeline.options
                assert one.usage.cost == one.usage.image_tokens == float(one.option)
                assert one.usage.tower_flops and one.usage.language_flops
                assert set(one.estimates) == set(pipeline.options) or "option" in ways
                assert one.option == "144" or "option" not in ways
        with pytest.raises(MismatchError, match="144"):
            pipeline.answer(files, questions, option="145")
        with pytest.raises(DataError, match="careful"):
            pipeline.answer(files, questions, policy="careful")
        assert pipeline.answer([], []) == []
    assert kinds == {"AutoScalePipeline", "OptionPipeline"}
    with pytest.raises(DataError, match="not both"):
        AutoScalePipeline.load(run.root).answer(files, questions, option="9", scale=9)
    with pytest.raises(MismatchError, match="open_pipeline"):
        AutoScalePipeline.load(before.root)


def test_a_router_that_peeks_says_that_the_model_must_be_asked(labelled, tmp_path):
    run, images = labelled
    other = Run(tmp_path)
    run.copy_data(tmp_path)
    featurize_stage(other, images=images, encoder="fake", feature_groups=["peek"])
    train_stage(other, estimator="logistic", feature_groups=["peek"], ablations=False)
    with pytest.raises(MismatchError, match=r"m3router ask.*--feature-group image"):
        Router.load(other.root)
