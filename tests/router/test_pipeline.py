from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.splits.split import split_by_group
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.router import inference
from m3router.router.cascade.rule import Cascade, Rule
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.session import Session
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.fitting import for_budget
from m3router.router.policies.outcomes import Prices
from m3router.router.policies.policy import Binding, Policy
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.training.fit import train_router

BLOCKS = {"plain": ["image", "question"], "peeking": ["image", "question", "cheap", "peek"]}
QUESTIONS = ("Is it?", "Is there anything at all to be seen in this very image, or not?")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images of rising contrast, a fake model's log and features, a router and a policy."""
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
    log = label_stage(
        Run(root), examples, images=root, model=model, feature_groups=tuple(FEATURE_GROUPS)
    )
    table = Run(root).features(log)
    split = split_by_group(log.groups, seed=0)
    rows = split.part("calibrate")
    routers = {}
    for name, blocks in BLOCKS.items():
        router = train_router(log, table, split, blocks=blocks)
        binding = Binding(
            options=router.options,
            cost_unit=router.cost_unit,
            router=router.fingerprint,
            split=split.fingerprint,
        )
        p, costs = router.predict(table), routed_costs(log.costs, blocks)
        policy = for_budget(p[rows], costs[rows], budget=60, binding=binding)
        routers[name] = {"router": router, "policy": policy, "p": p, "costs": costs}
    return {
        "root": root,
        "images": images,
        "log": log,
        "table": table,
        "split": split,
        "routers": routers,
        **routers["plain"],
    }


@pytest.fixture
def pipeline(world):
    return AutoScalePipeline(model=FakeModel(), router=world["router"], policy=world["policy"])


def pipeline_of(world, name):
    one = world["routers"][name]
    return AutoScalePipeline(model=FakeModel(), router=one["router"], policy=one["policy"])


def image_of(world, row):
    return world["images"][int(world["log"].ids[row].split("-")[0])]


@pytest.mark.parametrize("name", BLOCKS)
def test_online_and_offline_decisions_agree(world, name):
    """What the pipeline decides from images is what the policy decides from the table."""
    log, one = world["log"], world["routers"][name]
    rows = world["split"].part("test")
    offline = one["policy"].choose(one["p"][rows], one["costs"][rows])
    answers = pipeline_of(world, name).answer(
        [image_of(world, row) for row in rows], [str(log.questions[row]) for row in rows]
    )
    assert [one.scale for one in answers] == [int(log.options[k]) for k in offline]
    scores = [float(one.answer.text == "yes") for one in answers]
    assert scores == log.scores[rows, offline].tolist()
    assert len({one.scale for one in answers}) > 1
    spent = [answer.spent_tokens for answer in answers]
    assert spent == one["costs"][rows, offline].tolist()
    assert np.mean(spent) < 150


@pytest.mark.parametrize("name", BLOCKS)
def test_live_features_are_those_of_the_table(world, name):
    """Seen through the router: the probabilities follow from the features alone."""
    log, one = world["log"], world["routers"][name]
    rows = list(range(0, len(log), 7))
    answers = pipeline_of(world, name).answer(
        [image_of(world, row) for row in rows], [str(log.questions[row]) for row in rows]
    )
    live = np.array([list(answer.sufficiency.values()) for answer in answers])
    np.testing.assert_allclose(live, one["p"][rows], atol=1e-6)


def test_a_peek_that_is_thrown_away_is_counted(world):
    log = world["log"]
    rows = world["split"].part("test")
    answers = pipeline_of(world, "peeking").answer(
        [image_of(world, row) for row in rows], [str(log.questions[row]) for row in rows]
    )
    assert {one.scale == 1 for one in answers} == {True, False}
    for one in answers:
        stays = one.scale == 1
        assert one.peek_tokens == (0 if stays else 1)
        assert (one.flops["peek"] == 0) == stays
        assert one.milliseconds["peek"] > 0


def test_answers_tell_scale_reason_time_and_cost(pipeline, world):
    image = world["images"][0]
    first, second = pipeline.answer([image, image], list(QUESTIONS))
    assert list(first.sufficiency) == [1, 9, 36, 144, 576]
    assert all(0 <= value <= 1 for value in first.sufficiency.values())
    assert first.sufficiency != second.sufficiency
    assert set(first.milliseconds) == {"vision", "features", "peek", "route", "language"}
    assert first.flops["language"] > 0 and first.flops["vision"] > 0
    assert first.milliseconds["peek"] == first.flops["peek"] == first.peek_tokens == 0


class CountingModel(FakeModel):
    """Remembers how many images the vision tower was run on."""

    encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)


@pytest.mark.parametrize("name", BLOCKS)
def test_an_image_is_encoded_once_and_its_encoding_is_in_the_result(world, name):
    one, model = world["routers"][name], CountingModel()
    pipeline = AutoScalePipeline(model=model, router=one["router"], policy=one["policy"])
    first, other = world["images"][:2]
    answers = pipeline.answer([first, other, first], [*QUESTIONS, QUESTIONS[1]])
    assert model.encoded == 2
    assert answers[0].encoding is answers[2].encoding
    for question, answer in zip([*QUESTIONS, QUESTIONS[1]], answers, strict=True):
        again = Request(encoding=answer.encoding, question=question, scale=answer.scale)
        assert model.answer([again]) == [answer.answer]
    sessions = [
        Session(image=first, question=QUESTIONS[0], rule=rule, encoding=answers[0].encoding)
        for rule in (None, 576, one["policy"])
    ]
    asked = pipeline.run(sessions)
    assert model.encoded == 2
    assert [answer.scale for answer in asked] == [answers[0].scale, 576, answers[0].scale]
    assert asked[0].sufficiency == answers[0].sufficiency


@pytest.mark.parametrize("name", BLOCKS)
def test_sessions_that_are_asked_together_answer_as_each_alone(world, name):
    """Given scales, foreign policies and a cascade in one batch."""
    one = world["routers"][name]
    pipeline = AutoScalePipeline(
        model=FakeModel(),
        router=one["router"],
        policy=one["policy"],
        cascade=cascade_for(one, bias=3.0),
    )
    rules = (None, 36, one["policy"], None)
    asked = [
        (world["images"][number % 9], QUESTIONS[number % 2], rules[number % 4])
        for number in range(24)
    ]

    def run(some):
        return pipeline.run([Session(image=i, question=q, rule=rule) for i, q, rule in some])

    together, alone = run(asked), [run([each])[0] for each in asked]
    assert any(answer.earlier for answer in together)
    for answer, wanted in zip(together, alone, strict=True):
        unlike = {"milliseconds": {}, "sufficiency": {}}
        assert replace(answer, **unlike) == replace(wanted, **unlike)
        assert answer.sufficiency == pytest.approx(wanted.sufficiency)


def test_nobody_but_a_session_or_an_option_decides_what_follows_an_answer():
    """Pipeline, worker, vLLM backend and demo take the next request from the session."""
    root = Path(inference.__file__).parents[1]
    users = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "decide_after(" in path.read_text(encoding="utf-8")
    }
    assert users == {
        "cascade/rule.py",
        "inference/option_pipeline.py",
        "inference/session.py",
        "serve/gateway/escalating.py",
    }


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
    with pytest.raises(MismatchError, match="features of another model.*not fake@another"):
        AutoScalePipeline(model=other, router=router, policy=policy)
    foreign = Policy(
        binding=Binding(
            options=policy.binding.options,
            cost_unit=policy.binding.cost_unit,
            router="f" * 64,
            split=policy.binding.split,
        ),
        kind="fixed",
        lam=0.0,
        cost_scale=1.0,
    )
    with pytest.raises(MismatchError, match="router"):
        AutoScalePipeline(model=FakeModel(), router=router, policy=foreign)


def test_a_run_folder_is_loaded(world, tmp_path):
    world["router"].write(tmp_path / "router")
    world["policy"].write(tmp_path / "policies" / "default.json")
    loaded = AutoScalePipeline.load(tmp_path)  # with the model that the router was trained for
    direct = AutoScalePipeline(model=FakeModel(), router=world["router"], policy=world["policy"])
    image = world["images"][7]
    assert (
        loaded.answer([image], ["Is it?"])[0].sufficiency
        == direct.answer([image], ["Is it?"])[0].sufficiency
    )


def test_a_run_of_a_model_that_must_be_given(world, tmp_path):
    metadata = {**world["router"].metadata, "log": {"model": "a/llava"}}
    replace(world["router"], metadata=metadata).write(tmp_path / "router")
    world["policy"].write(tmp_path / "policies" / "default.json")
    with pytest.raises(DataError, match="belongs to the model 'a/llava'"):
        AutoScalePipeline.load(tmp_path)


# --- asking again ------------------------------------------------------------------------------


def cascade_for(one, *, bias):
    """A cascade that starts with the router's choice and doubts all answers by a bias."""
    k = len(one["router"].options)
    beliefs = np.zeros((k, k + 3, k))
    beliefs[:, :k] = np.eye(k)  # at j, what the router said...
    beliefs[:, -1] = 1.0
    for at in range(k):  # ...but of the answer in hand what its confidence says
        beliefs[at, :, at] = [*np.zeros(k), 0.3, 0.0, -bias]
    start = [*np.zeros((k, k)), *np.eye(k), np.zeros(k)]
    rows = [tuple(map(float, one.ravel())) for one in beliefs]
    return Cascade(
        binding=one["policy"].binding,
        rule=Rule(beliefs=tuple(rows), start=tuple(tuple(map(float, row)) for row in start)),
        price=1e-3,
    )


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("bias", [-2.0, 0.5, 3.0])
def test_asking_again_online_and_offline_agree(world, name, bias):
    log, one = world["log"], world["routers"][name]
    rows = world["split"].part("test")
    cascade = cascade_for(one, bias=bias)
    confidence, logprob = (
        np.asarray(log.laid_out(column), dtype=np.float64)[rows]
        for column in ("confidence", "logprob")
    )
    p, alone = one["p"][rows], log.costs[rows]
    rule = cascade.rule
    asked = rule.ask(
        p, one["costs"][rows], alone, rule.believe(p, confidence, logprob), cascade.price
    )
    pipeline = AutoScalePipeline(
        model=FakeModel(), router=one["router"], policy=one["policy"], cascade=cascade
    )
    answers = pipeline.answer(
        [image_of(world, row) for row in rows], [str(log.questions[row]) for row in rows]
    )
    assert [answer.scale for answer in answers] == [int(log.options[k]) for k in asked.final]
    assert [len(answer.earlier) + 1 for answer in answers] == asked.options.sum(axis=1).tolist()
    spent = Prices(alone=alone, routed=one["costs"][rows]).of(asked)
    assert [answer.spent_tokens for answer in answers] == spent.tolist()
    for answer in answers:
        assert (answer.flops["earlier"] > 0) == bool(answer.earlier)
    if bias == 3.0:
        assert any(answer.earlier for answer in answers)


def test_a_fixed_scale_is_not_asked_again(world, pipeline):
    doubting = AutoScalePipeline(
        model=FakeModel(),
        router=world["router"],
        policy=world["policy"],
        cascade=cascade_for(world, bias=9.0),
    )
    one = doubting.answer([world["images"][0]], [QUESTIONS[0]], scale=1)[0]
    assert one.scale == 1
    assert one.earlier == ()


def test_a_cascade_of_another_router_is_refused(world):
    cascade = cascade_for(world, bias=0.0)
    other = replace(cascade, binding=replace(cascade.binding, router="x" * 64))
    with pytest.raises(MismatchError, match="xxxxxxxxxxxx"):
        AutoScalePipeline(
            model=FakeModel(), router=world["router"], policy=world["policy"], cascade=other
        )
