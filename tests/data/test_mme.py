"""MME's sums against its authors' way to compute them, and on a log."""

from __future__ import annotations

import math
import random

import pytest

from m3router.data.scoring.mme import COGNITION, PERCEPTION, mme_sums, subtask_of


def published(lines: dict[str, list[bool]]) -> dict[str, float]:
    """As eval_tool/calculation.py: the lines of a subtask's file, two and two."""
    scores = {}
    for subtask, right in lines.items():
        pairs = [right[start : start + 2] for start in range(0, len(right), 2)]
        accuracy = sum(right) / len(right)
        plus = sum(pair == [True, True] for pair in pairs) / len(pairs)
        scores[subtask] = accuracy * 100 + plus * 100
    return scores


def test_sums_as_published() -> None:
    dice = random.Random(5)
    lines = {
        name: [dice.random() < 0.7 for _ in range(2 * dice.randint(1, 30))]
        for name in (*PERCEPTION, *COGNITION)
    }
    rows = [
        (name, f"{name}/{place // 2}.jpg", float(right))
        for name, own in lines.items()
        for place, right in enumerate(own)
    ]
    dice.shuffle(rows)  # pairs are found by image
    sums = mme_sums(*zip(*rows, strict=True))
    assert sums is not None
    expected = published(lines)
    assert sums.subtasks == pytest.approx(expected)
    assert list(sums.subtasks) == [*PERCEPTION, *COGNITION]
    assert sums.perception == pytest.approx(sum(expected[name] for name in PERCEPTION))
    assert sums.cognition == pytest.approx(sum(expected[name] for name in COGNITION))
    assert (sums.images, sums.left_out) == (len(rows) // 2, 0)


def test_all_right_is_the_most() -> None:
    names = [name for name in (*PERCEPTION, *COGNITION) for _ in range(2)]
    sums = mme_sums(names, names, [1.0] * len(names))
    assert sums is not None and (sums.perception, sums.cognition) == (2000.0, 800.0)
    none = mme_sums(names, names, [0.0] * len(names))
    assert none is not None and (none.perception, none.cognition) == (0.0, 0.0)


def test_images_without_both_answers_are_left_out() -> None:
    names = ["OCR"] * 7 + [None]
    images = ["a", "a", "b", "b", "c", "d", "d", "e"]
    sums = mme_sums(names, images, [1.0, 1.0, 1.0, math.nan, 1.0, 1.0, 0.0, 1.0])
    assert sums is not None
    assert sums.subtasks == {"OCR": 75.0 + 50.0}
    assert (sums.perception, sums.cognition) == (125.0, None)
    assert (sums.images, sums.left_out) == (2, 2)
    assert mme_sums(["OCR"], ["a"], [1.0]) is None
    assert mme_sums([None, None], ["a", "a"], [1.0, 1.0]) is None


def test_an_image_that_is_there_twice_is_paired_in_order() -> None:
    sums = mme_sums(["count"] * 4, ["a"] * 4, [1.0, 1.0, 1.0, 0.0])
    assert sums is not None and sums.subtasks == {"count": 75.0 + 50.0}


@pytest.mark.parametrize(
    ("dataset", "group", "subtask"),
    [
        ("mme/OCR", "images/a.png", "OCR"),
        ("mme/code_reasoning", "OCR/1.png", "code_reasoning"),
        ("mme", "mme/count/1.jpg", "count"),
        ("MME", "x/landmark/1.jpg", "landmark"),
        ("mme", "1.jpg", None),
        ("gqa/OCR", "a", None),
        ("mmebench/OCR", "a", None),
    ],
)
def test_subtasks(dataset: str, group: str, subtask: str | None) -> None:
    assert subtask_of(dataset, group) == subtask
