"""Soft labels: what an answer drawn from references and choices would score on average."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m3router.data.example import Example
from m3router.data.scoring.metrics import Expects, expects
from m3router.m3core.matryoshka.base import Answer

_YES_NO = ("yes", "no")


def reference_answers(example: Example) -> list[str]:
    """The answers whose probabilities decide an example's soft label, each once.

    A closed question has all its possible answers: the letters of its choices where the references
    are letters, else the choices themselves; yes and no. An open one has its references.
    """
    if expects(example.metric) is Expects.YES_OR_NO:
        return list(_YES_NO)
    if example.choices:
        used = {
            chr(ord("A") + place): text
            for place, text in enumerate(example.choices)
            if text is not None
        }
        given = {text.strip().upper() for text in example.answers}
        return list(used) if given <= set(used) else list(dict.fromkeys(used.values()))
    return list(dict.fromkeys(example.answers))


def is_closed(example: Example) -> bool:
    """Whether nothing but :func:`reference_answers` can be said."""
    return expects(example.metric) is Expects.YES_OR_NO or bool(example.choices)


def expected_score(example: Example, answers: Sequence[Answer]) -> float:
    """The expected score, in [0, 1].

    Closed questions are answered by one of their answers, so probabilities are divided by their
    sum; what an open question may be answered otherwise counts as wrong, which makes its score a
    lower bound.

    Args:
        example: Knows how its answers score.
        answers: Each of :func:`reference_answers` with its log-probability.
    """
    top = max(answer.logprob for answer in answers)
    closed = is_closed(example)
    weights = [math.exp(answer.logprob - (top if closed else 0.0)) for answer in answers]
    total = sum(weights) if closed else 1.0
    scores = [example.score(answer.text) for answer in answers]
    expected = sum(w * s for w, s in zip(weights, scores, strict=True)) / total
    return min(1.0, max(0.0, expected))
