"""The pipeline on the shipped model: a peek that stays is the answer's own prefill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m3router.data.scenes.export import write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.data.splits.split import split_by_group
from m3router.m3core.checkpoints import load_model
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.policy import Binding, Policy
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.training.fit import train_router
from tests.m3core.peeks import positions_read

SEEDS = range(31_000_000, 31_000_016)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    model = load_model("embedded", device="cpu")
    asked = load_jsonl(write_scenes(root, SEEDS, questions=3), images=root / "images")
    run = Run(root / "run")
    log = label_stage(
        run, asked, images=root / "images", model=model, feature_groups=["cheap", "peek"]
    )
    split = split_by_group(log.groups, seed=0)
    router = train_router(log, run.features(log), split)
    binding = Binding(
        options=router.options,
        cost_unit=router.cost_unit,
        router=router.fingerprint,
        split=split.fingerprint,
    )
    policy = Policy(binding=binding, kind="price", lam=0.0, cost_scale=1.0)
    return root, model, run, log, router, policy


def ask(world, policy, count=20):
    root, model, _, log, router, _ = world
    pipeline = AutoScalePipeline(model=model, router=router, policy=policy)
    images = [root / "images" / str(image) for image in log.images[:count]]
    with positions_read(model) as read:
        answers = pipeline.answer(images, [str(one) for one in log.questions[:count]])
    return answers, read


def stored(log, scales):
    frame = log.frame.set_index(["example_id", "scale"])["answer"]
    return [frame[name, str(scale)] for name, scale in zip(log.ids, scales, strict=False)]


def test_where_all_stay_no_prompt_is_read_twice(world):
    _, _, _, log, _, policy = world
    answers, read = ask(world, replace(policy, lam=1e6))
    assert {one.scale for one in answers} == {1}
    assert {one.spent_tokens for one in answers} == {1}
    assert {one.flops["peek"] for one in answers} == {0.0}
    assert [one.answer.text for one in answers] == stored(log, [1] * 20)
    prompts = [one.answer.visual_tokens + one.answer.text_tokens for one in answers]
    texts = [rows * length for rows, length in read if length > 1]
    steps = [rows for rows, length in read if length == 1]
    # Questions of an image share a prefix of two positions; the longest prompt sets the padding.
    assert sum(prompts) - 2 * 20 <= sum(texts) <= 20 * max(prompts)
    most = max(one.answer.answer_tokens for one in answers) - 1
    assert sum(steps) <= 20 * most


def test_where_none_stays_every_peek_is_counted(world):
    _, model, _, log, _, policy = world
    answers, _ = ask(world, replace(policy, kind="fixed"))
    assert {one.scale for one in answers} == {576}
    assert {one.spent_tokens for one in answers} == {577}
    for one in answers:
        assert one.flops["peek"] == model.shape.answer_flops(1 + one.answer.text_tokens, 1)
    assert [one.answer.text for one in answers] == stored(log, [576] * 20)


def test_mixed_decisions_are_those_of_the_log(world):
    _, _, run, log, router, policy = world
    p = router.predict(run.features(log))
    costs = routed_costs(log.costs, router.blocks)
    seen = set()
    for lam in (1e-4, 1e-3, 1e-2):
        price = replace(policy, lam=lam)
        scales = [int(log.options[k]) for k in price.choose(p, costs)[:20]]
        answers, _ = ask(world, price)
        assert [one.scale for one in answers] == scales
        assert [one.answer.text for one in answers] == stored(log, scales)
        live = np.array([list(one.sufficiency.values()) for one in answers])
        np.testing.assert_allclose(live, p[:20], atol=1e-3)
        seen |= set(scales)
    assert len(seen) > 1
