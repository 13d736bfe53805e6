from __future__ import annotations

import pandas as pd
import pytest

from m3router.data.log.oracle_log import OracleLog
from m3router.router.evaluation.evaluate import INTERVALS
from m3router.router.metrics.oracles import ASSUMES
from m3router.router.text.words import Words, words_in, words_of
from m3router.router.training.targets import MEANING


def log(*, image: str = "", unit: str = "USD", **metadata: object) -> OracleLog:
    rows = [
        {"example_id": str(n), "group": str(n), "dataset": "d", "question": "q", "image": image,
         "scale": option, "cost": 1.0, "score": 1.0, "chance": 0.0}
        for n in range(2)
        for option in ("a", "b")
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return OracleLog(frame, options=["a", "b"], cost_unit=unit, metadata=metadata)


def test_what_a_log_is_about() -> None:
    assert words_of(log(source="table")) == Words(images=False, scales=False)
    assert words_of(log(source="table", image="a.png")) == Words(images=True, scales=False)
    assert words_of(log(source="lmms-eval", unit="visual tokens")) == Words()
    assert words_of(log(image="a.png", model="m3")) == Words()


def test_evaluations_from_before_speak_of_images_and_scales() -> None:
    assert words_in({}) == Words()
    assert words_in({"words": Words(images=False).to_dict()}) == Words(images=False)


@pytest.mark.parametrize("text", [INTERVALS, ASSUMES, *MEANING.values(), "Scales at an image."])
def test_no_word_of_images_and_scales_is_left(text: str) -> None:
    said = Words(images=False, scales=False).of(text).lower()
    for word in ("image", "picture", "scale", "finest", "finer", "coarse"):
        assert word not in said
    assert Words().of(text) == text
