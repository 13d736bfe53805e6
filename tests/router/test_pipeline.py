from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError, MismatchError
from data.examples import Example
from data.splits import split_by_group
from m3core.labelling import label
from m3core.models.fake import FakeModel
from m3core.scales import ScaleGrid
from router.features.extract import FeatureCollector
from router.features.question import ModelQuestions
from router.knobs import for_budget
from router.pipeline import AutoScalePipeline
from router.policy import Binding, Policy
from router.training import train_router

QUESTIONS = ("Is it?", "Is there anything at all to be seen in this very picture, or not?")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pictures of rising contrast, a fake model's log and features, a router and a policy."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    images, examples = [], []
    for number in range(80):
        contrast = rng.integers(0, 120)
        pixels = rng.integers(128 - contrast, 129 + contrast, (24, 24, 3)).astype(np.uint8)
        images.append(Image.fromarray(pixels))
        images[-1].save(root / f"{number}.png")
        examples += [
            Example(
                id=f"{number}-{ask}",
                image=f"{number}.png",
                question=QUESTIONS[ask],
                answers=("yes",),
                group=f"{number}.png",
            )
            for ask in range(2)
        ]
    model = FakeModel()
    with FeatureCollector(root / "features", model) as collector:
        log = label(examples, images=root, model=model, folder=root / "log", on_encoded=collector)
        table = collector.finish(log, ModelQuestions(model))
    split = split_by_group(log.groups, seed=0)
    router = train_router(log, table, split)
    rows = split.part("calibrate")
    binding = Binding(
        options=router.options,
        cost_unit=router.cost_unit,
        router=router.fingerprint,
        split=split.fingerprint,
    )
    p = router.predict(table)
    policy = for_budget(p[rows], log.costs[rows], budget=60, binding=binding)
    return {
        "root": root,
        "images": images,
        "log": log,
        "router": router,
        "policy": policy,
        "p": p,
        "split": split,
    }


@pytest.fixture
def pipeline(world):
    return AutoScalePipeline(model=FakeModel(), router=world["router"], policy=world["policy"])


def test_online_and_offline_decisions_agree(world, pipeline):
    """What the pipeline decides from pictures is what the policy decides from the table."""
    log = world["log"]
    rows = world["split"].part("test")
    offline = world["policy"].choose(world["p"][rows], log.costs[rows])
    pictures = [world["images"][int(log.ids[row].split("-")[0])] for row in rows]
    answers = pipeline.answer(pictures, [str(log.questions[row]) for row in rows])
    assert [one.scale for one in answers] == [int(log.options[k]) for k in offline]
    scores = [float(one.answer.text == "yes") for one in answers]
    assert scores == log.scores[rows, offline].tolist()
    assert len({one.scale for one in answers}) > 1
    assert np.mean([one.answer.visual_tokens for one in answers]) < 150


def test_answers_tell_scale_reason_time_and_cost(pipeline, world):
    image = world["images"][0]
    first, second = pipeline.answer([image, image], list(QUESTIONS))
    assert list(first.sufficiency) == [1, 9, 36, 144, 576]
    assert all(0 <= value <= 1 for value in first.sufficiency.values())
    assert first.sufficiency != second.sufficiency
    assert set(first.milliseconds) == {"vision", "features", "route", "language"}
    assert first.flops["language"] > 0 and first.flops["vision"] > 0


def test_a_scale_given_by_the_caller_is_used_and_checked(pipeline, world):
    (answer,) = pipeline.answer([world["images"][0]], ["Is it?"], scale=144)
    assert answer.scale == answer.answer.visual_tokens == 144
    assert answer.sufficiency == {}
    with pytest.raises(MismatchError, match="scale 100 is not in"):
        pipeline.answer([world["images"][0]], ["Is it?"], scale=100)


def test_bad_requests_are_refused(pipeline, world):
    image = world["images"][0]
    assert pipeline.answer([], []) == []
    with pytest.raises(MismatchError, match="1 images but 2 questions"):
        pipeline.answer([image], ["a", "b"])
    with pytest.raises(DataError, match="question is empty"):
        pipeline.answer([image], [" "])
    with pytest.raises(DataError, match="does not fit"):
        pipeline.answer([image], ["why " * 2000])


def test_a_question_that_fits_only_coarse_scales_is_refused_before_any_work(pipeline, world):
    """576 tokens plus 500 words exceed the fake model's context of 1024."""
    with pytest.raises(DataError, match="does not fit"):
        pipeline.answer([world["images"][0]], ["why " * 500], scale=576)


def test_parts_that_do_not_belong_together_are_refused(world):
    router, policy = world["router"], world["policy"]
    coarse = FakeModel(ScaleGrid(scales=(1, 4, 16), side=4))
    with pytest.raises(MismatchError, match="the model fake"):
        AutoScalePipeline(model=coarse, router=router, policy=policy)
    other = FakeModel()
    other.revision = "another"
    with pytest.raises(MismatchError, match="features of fake@.*the model is fake@another"):
        AutoScalePipeline(model=other, router=router, policy=policy)
    foreign = Policy(
        binding=Binding(
            options=policy.binding.options,
            cost_unit=policy.binding.cost_unit,
            router="f" * 64,
            split=policy.binding.split,
        ),
        kind="finest",
        lam=0.0,
        cost_scale=1.0,
    )
    with pytest.raises(MismatchError, match="router"):
        AutoScalePipeline(model=FakeModel(), router=router, policy=foreign)


def test_a_run_folder_is_loaded(world, tmp_path):
    world["router"].write(tmp_path / "router")
    world["policy"].write(tmp_path / "policies" / "default.json")
    loaded = AutoScalePipeline.load(tmp_path, model=FakeModel())
    direct = AutoScalePipeline(model=FakeModel(), router=world["router"], policy=world["policy"])
    image = world["images"][7]
    assert (
        loaded.answer([image], ["Is it?"])[0].sufficiency
        == direct.answer([image], ["Is it?"])[0].sufficiency
    )
