"""The one sentence of what is certified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m3router.router.policies.guarantee_text import (
    SENTENCE,
    evidence,
    guarantee_sentence,
    told_by,
    told_in,
)
from m3router.router.policies.policy import Binding, Policy
from m3router.router.text.words import Words

REGRET = {
    "max_regret": 0.02,
    "confidence": 0.95,
    "bound": "betting",
    "p_value": 0.031,
    "regret": 0.0123,
    "pictures": 800,
    "questions": 5608,
    "most": 12,
}
LOSS = {**REGRET, "max_regret": None, "max_loss": 0.01, "loss": 0.0021}
TEXTS = Words(images=False, scales=False)


def test_it_names_target_reference_population_confidence_and_most():
    told = guarantee_sentence(REGRET, reference="mid")
    for part in (
        "95 % confidence",
        "at most 2 % of questions are right at the reference option, mid, and wrong as routed",
        "questions of images drawn like the 800 of the calibration split",
        "each image counting with at most 12 questions",
    ):
        assert part in told
    assert told.count(".") == 1 and told.endswith(".")


def test_a_net_loss_is_told_in_points():
    told = guarantee_sentence(LOSS, reference="mid")
    assert "accuracy as routed is at most 1 point below that of the reference option, mid" in told
    assert "at most 0.5 points below" in guarantee_sentence(
        {**LOSS, "max_loss": 0.005}, reference="mid"
    )
    assert "a loss of 0.21 points on 5608 questions about 800 images" in evidence(LOSS)
    assert "a gain of 0.3 points on 5608 questions" in evidence({**LOSS, "loss": -0.003})


def test_a_cap_is_told():
    told = guarantee_sentence(REGRET, reference="mid", cap=144)
    assert "reference option, mid (or what stands for it within the cap of 144) and wrong" in told


@pytest.mark.parametrize(
    ("most", "words", "said"),
    [
        (
            1,
            Words(),
            "images drawn like the 800 of the calibration split, each image counting "
            "with one question",
        ),
        (
            3,
            TEXTS,
            "groups drawn like the 800 of the calibration split, each group counting "
            "with at most 3 questions",
        ),
        (
            1,
            TEXTS,
            "among questions of groups drawn like the 800 of the calibration split, each group "
            "counting with one question.",
        ),
        (None, TEXTS, "among questions drawn like the 800 of the calibration split."),
    ],
)
def test_it_fits_the_log(most, words, said):
    told = guarantee_sentence(
        {**REGRET, "most": most or 1}, reference="image scale", words=words, singles=most is None
    )
    assert said in told
    assert "the reference option, image scale, and" in told  # a user's name is not translated
    if not words.images:
        assert "image" not in told.replace("image scale", "")


def test_what_is_kept_in_the_file_is_what_is_told():
    binding = Binding(options=("a", "b"), cost_unit="tokens", router="", split="")
    policy = Policy(binding=binding, kind="regret", lam=0.1, cost_scale=1.0, reference="a")
    assert told_by(policy) == ""
    made = replace(policy, guarantee=REGRET)
    assert told_by(made) == guarantee_sentence(REGRET, reference="a")
    kept = replace(policy, guarantee={**REGRET, SENTENCE: "As written."})
    assert told_by(kept) == "As written."
    assert told_by(replace(kept, fallback=True)) == ""
    assert told_in({"guarantee": {}, "reference": "a"}) == told_in({}) == ""
