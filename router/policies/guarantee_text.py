"""What a policy or a cascade guarantees, in one sentence: the same wherever it is told.

The sentence names the target, the reference, the questions that it is about, the confidence and how
many questions an image counts with. It is made when a guarantee is calibrated and kept in its
file; for files from before it is made from the same entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from m3router.router.text.numbers import number, plain
from m3router.router.text.words import Words

SENTENCE = "sentence"
"""Entry of a guarantee that holds it."""


def guarantee_sentence(
    guarantee: Mapping[str, Any],
    *,
    reference: str,
    cap: float | None = None,
    words: Words | None = None,
    singles: bool = False,
) -> str:
    """What is certified, in one sentence.

    Args:
        guarantee: see `m3router.router.policies.guarantee.described`.
        reference: name of the reference option.
        cap: most cost of any single answer.
        words: that fit the log; None says images.
        singles: whether every question of the calibration split is a group of its own; a log
            without images then has no groups worth a word.

    >>> kept = {"max_regret": 0.01, "confidence": 0.95, "pictures": 800, "questions": 5608}
    >>> guarantee_sentence({**kept, "most": 12}, reference="576")
    'With 95 % confidence, at most 1 % of questions are right at the reference option, 576, and \
wrong as routed: among questions of images drawn like the 800 of the calibration split, each image \
counting with at most 12 questions.'
    """
    words = words or Words()
    named = f"the reference option, {reference}"
    if cap is not None:
        named += f" (or what stands for it within the cap of {plain(cap)})"
    loss = guarantee.get("max_loss")
    if loss is not None:
        points = 100 * float(loss)
        what = (
            f"accuracy as routed is at most {number(points)} point{'' if points == 1 else 's'} "
            f"below that of {named}"
        )
    else:
        share = f"{number(100 * float(guarantee['max_regret']))} %"
        what = f"at most {share} of questions are right at {named}, and wrong as routed"
        if cap is not None:
            what = f"at most {share} of questions are right at {named} and wrong as routed"
    return (
        f"With {plain(100 * float(guarantee['confidence']))} % confidence, {what}: among "
        f"{_population(guarantee, words, singles)}."
    )


def _population(guarantee: Mapping[str, Any], words: Words, singles: bool) -> str:
    """Which questions it is about, and how many of an image count."""
    images, most = int(guarantee["pictures"]), int(guarantee["most"])
    named = ", told which dataset each is from" if guarantee.get("datasets") == "told" else ""
    if singles and not words.images:
        return f"questions drawn like the {images} of the calibration split{named}"
    drawn = words.of("questions of images drawn like the")
    each = words.of("each image counting with")
    count = "one question" if most == 1 else f"at most {most} questions"
    return f"{drawn} {images} of the calibration split, {each} {count}{named}"


class Guaranteed(Protocol):
    """What may carry a guarantee: a policy or a cascade."""

    @property
    def guarantee(self) -> Mapping[str, Any] | None:
        """What is certified; None where nothing is."""

    @property
    def reference(self) -> str | int | None:
        """Name of the reference option."""


def told_by(kept: Guaranteed) -> str:
    """The sentence of a policy or cascade; "" without a guarantee, or where it fell back."""
    return told_in(
        {
            "guarantee": kept.guarantee,
            "reference": kept.reference,
            "cap": getattr(kept, "cap", None),
            "fallback": getattr(kept, "fallback", False),
        }
    )


def told_in(policy: Mapping[str, Any]) -> str:
    """The same of a policy as an evaluation tells it."""
    guarantee = policy.get("guarantee")
    if not guarantee or policy.get("fallback"):
        return ""
    if guarantee.get(SENTENCE):
        return str(guarantee[SENTENCE])
    return guarantee_sentence(guarantee, reference=str(policy["reference"]), cap=policy.get("cap"))


def evidence(guarantee: Mapping[str, Any], words: Words | None = None) -> str:
    """What was observed on the calibration split, in a sentence."""
    asked = (words or Words()).asked(int(guarantee["questions"]), int(guarantee["pictures"]))
    if guarantee.get("max_loss") is not None:
        points = 100 * float(guarantee["loss"])
        many = f"{number(abs(points), digits=2)}"
        unit = "point" if many == "1" else "points"
        seen = f"a {'loss' if points >= 0 else 'gain'} of {many} {unit} on"
    else:
        seen = f"{number(100 * float(guarantee['regret']), digits=2)} % of"
    return (
        f"Observed there: {seen} {guarantee['questions']} questions{asked and ' '}{asked} "
        f"({guarantee['bound']} bound, p = {guarantee['p_value']:.2g})."
    )
