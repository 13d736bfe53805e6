"""What can be said of the regret where nobody, or only some people, know the right answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.m3core.labelling import LabelMode, label
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.cascade.rule import Cascade, Rule
from m3router.router.monitoring.regret import (
    HOLDS,
    UNDECIDED,
    VIOLATED,
    News,
    by_cascade,
    by_policy,
    judged,
)
from m3router.router.policies.guarantee import Labelled, Target, described, regrets
from m3router.router.policies.policy import Binding, Policy
from m3router.router.training.targets import apply_rule
from tests.traffic.made import new_image

COSTS = np.array([1.0, 9.0, 36.0])
BINDING = Binding(options=("1", "9", "36"), cost_unit="tokens", router="r" * 64, split="s" * 64)
RIGHT = "a"


def world(seed: int, *, images: int = 60, right=(0.4, 0.7, 0.9)):
    """Questions, two an image, and what each option says; "a" is right."""
    draw = np.random.default_rng(seed)
    n = 2 * images
    wrong = draw.choice(["b", "c"], size=(n, 3))
    answers = np.where(draw.random((n, 3)) < right, RIGHT, wrong).astype(object)
    part = Labelled(
        p=draw.random((n, 3)),
        costs=np.tile(COSTS, (n, 1)),
        scores=(answers == RIGHT).astype(float),
        groups=np.repeat(np.arange(images), 2),
        most=2,
    )
    return part, answers


def policy(*, cap: float | None = None, price: float = 0.3) -> Policy:
    return Policy(binding=BINDING, kind="price", lam=price, cost_scale=36.0, cap=cap)


def cascade() -> Cascade:
    return Cascade(binding=BINDING, rule=Rule(beliefs=((0.0,) * 18,) * 3), price=0.01)


def seen_by(what, part, answers):
    if isinstance(what, Policy):
        return by_policy(what, part, answers)
    news = News(
        confidence=np.full(part.p.shape, 0.5),
        logprob=np.full(part.p.shape, -0.7),
        costs=part.costs,
    )
    return by_cascade(what, part, news, answers)


def heard(part, answers, share: float, draw) -> np.ndarray:
    """Scores of what one of the options said, and of all that say the same; of a share only."""
    served = answers[np.arange(len(answers)), draw.integers(0, 3, len(answers))]
    told = (answers == served[:, None]) & (draw.random(len(answers)) < share)[:, None]
    return np.where(told, part.scores, np.nan)


@pytest.mark.parametrize("what", [policy(), policy(cap=9.0), policy(price=0.0), cascade()])
@pytest.mark.parametrize("max_loss", [None, 0.1])
def test_feedback_on_what_was_served_brings_the_bounds_closer(what, max_loss):
    """They hold the truth still, whatever share has feedback and whichever option was served."""
    if max_loss is not None:
        what = replace(what, guarantee={"max_loss": max_loss, "confidence": 0.95})
    narrower = 0
    for seed in range(20):
        part, answers = world(seed)
        truth = seen_by(what, part, answers)
        before = seen_by(what, replace(part, scores=np.full(part.p.shape, np.nan)), answers)
        scores = heard(part, answers, 0.6, np.random.default_rng(seed))
        found = seen_by(what, replace(part, scores=scores), answers)
        assert before.sure.risk <= found.sure.risk <= truth.losses.risk + 1e-12
        assert truth.losses.risk <= found.losses.risk + 1e-12
        assert found.losses.risk <= before.losses.risk
        assert found.unjudged <= before.unjudged
        narrower += found.losses.risk - found.sure.risk < before.losses.risk - before.sure.risk
    assert narrower >= 18


@pytest.mark.parametrize("what", [policy(), policy(cap=9.0), policy(price=0.0), cascade()])
@pytest.mark.parametrize("known", [0.0, 0.3, 1.0])
def test_the_true_regret_lies_between_the_bounds(what, known):
    """Whatever share of the answers is judged, and whichever those are."""
    for seed in range(20):
        part, answers = world(seed)
        truth = seen_by(what, part, answers)
        hidden = np.random.default_rng(seed).random(len(part.p)) >= known
        scores = np.where(hidden[:, None], np.nan, part.scores)
        found = seen_by(what, replace(part, scores=scores), answers)
        assert found.sure.risk <= truth.losses.risk <= found.losses.risk
        assert truth.losses.risk == truth.sure.risk
        if isinstance(what, Policy):
            assert truth.losses.risk == regrets(what, part).risk
        width = (found.losses.risk - found.sure.risk) * len(part.p)
        assert width == pytest.approx(found.unjudged)
        assert (found.accuracy is None) == bool(hidden.any())
        assert found.agreement == truth.agreement
        if known == 1:
            assert found.losses.risk == truth.losses.risk


def test_right_answers_to_what_differs_are_enough_to_know_the_regret():
    part, answers = world(0)
    one = policy()
    taken = one.choose(part.p, part.costs)
    same = answers[np.arange(len(taken)), taken] == answers[:, -1]
    assert 0.1 < same.mean() < 0.9
    scores = np.where(same[:, None], np.nan, part.scores)
    found = by_policy(one, replace(part, scores=scores), answers)
    assert found.losses.risk == found.sure.risk == by_policy(one, part).losses.risk
    assert found.unjudged == 0


def promised(one: Policy, target: float) -> dict:
    part, _ = world(99, images=400, right=(0.9, 0.9, 0.9))
    return described(regrets(one, part), Target(max_regret=target), "betting")


def verdict(part, answers, target=0.2):
    one = policy()
    return judged(
        promised(one, target), by_policy(one, part, answers), level=0.005, bound="betting"
    )


def test_agreement_proves_that_it_holds_and_never_that_it_is_violated():
    part, answers = world(1, images=500, right=(0.97, 0.97, 0.97))
    unknown = replace(part, scores=np.full_like(part.scores, np.nan))
    found = verdict(unknown, answers)
    assert found["verdict"] == HOLDS
    assert found["regret"] > found["regret_at_least"] == 0
    answers[:, 0], answers[:, 1], answers[:, 2] = "b", "b", "c"  # all differ, and are not judged
    found = verdict(unknown, answers)
    assert found["verdict"] == UNDECIDED
    assert (found["regret_at_least"], found["lower_limit"]) == (0, pytest.approx(0, abs=1e-3))
    assert found["pictures_needed"] is None  # more of the same do not help


def test_right_answers_to_some_questions_can_prove_that_it_is_violated():
    part, answers = world(2, images=400, right=(0.2, 0.2, 0.95))
    scores = np.where(np.arange(len(part.p))[:, None] % 4 == 0, np.nan, part.scores)
    found = verdict(replace(part, scores=scores), answers)
    assert found["verdict"] == VIOLATED
    assert found["unjudged"] > 0
    truth = verdict(part, answers)
    assert found["lower_limit"] < truth["lower_limit"] < truth["regret"] < found["regret"]


def example(name: str, number: int, **changes) -> Example:
    fields = {"metric": "agreement", "answers": (), "question": f"Is {name} there?"}
    return Example(id=name, image=f"{number}.png", **{**fields, **changes})


@pytest.fixture
def images(tmp_path):
    for number in range(6):
        new_image(number, side=24).save(tmp_path / f"{number}.png")
    return tmp_path


def test_questions_without_references_are_scored_by_the_finest_scale(images, tmp_path):
    asked = [example(f"{n}" + " really" * 3 * n, n) for n in range(6)]
    log = label(asked, images=images, model=FakeModel(), folder=tmp_path / "log")
    answers = log.laid_out("answer")
    assert log.metadata["asked"] == "agreement"
    np.testing.assert_array_equal(log.scores, (answers == answers[:, -1:]).astype(float))
    assert 0 < log.scores.mean() < 1
    again = apply_rule(log, "matches_full")
    np.testing.assert_array_equal(again.scores, log.scores)


class FinestFails(FakeModel):
    """Has no room for the finest scale."""

    def prompt_length(self, question: str, visual_tokens: int) -> int:
        if visual_tokens == 576:
            raise DataError("it does not fit")
        return super().prompt_length(question, visual_tokens)


def test_without_an_answer_of_the_finest_scale_nothing_is_scored(images, tmp_path):
    log = label([example("one", 1)], images=images, model=FinestFails(), folder=tmp_path / "log")
    assert np.isnan(log.scores).all()
    assert "no answer to compare with: it does not fit" in log.errors()["error"].iloc[0]


def test_references_and_none_do_not_share_a_log(images, tmp_path):
    mixed = [example("one", 1), example("two", 2, metric="exact", answers=("yes",))]
    with pytest.raises(DataError, match=r"1 of 2 examples, such as 'one'.*a folder of their own"):
        label(mixed, images=images, model=FakeModel(), folder=tmp_path / "log")
    for mode in (LabelMode.UNTIL_CORRECT, LabelMode.REFERENCES):
        with pytest.raises(DataError, match=f"asking '{mode.value}' needs them"):
            label(mixed[:1], images=images, model=FakeModel(), folder=tmp_path, mode=mode)


def test_an_example_says_which_it_is():
    with pytest.raises(DataError, match="name the metric that compares with them"):
        example("one", 1, answers=("yes",))
    with pytest.raises(DataError, match="at least one reference answer"):
        example("one", 1, metric="exact")
