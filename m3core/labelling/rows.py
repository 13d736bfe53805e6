"""The rows of an oracle log, and what a log records about how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from m3router.data.errors import DataError
from m3router.data.example import Example, fingerprint
from m3router.data.log.checks import ASKED, LENGTH, STOP, UNTIL_CORRECT, USAGE
from m3router.data.scoring.judged import WAITING
from m3router.data.scoring.metrics import AGREEMENT, is_judged
from m3router.data.videos import FRAMES, is_video
from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, VisualEncoding
from m3router.m3core.options import SPEC as SPEC
from m3router.m3core.options import OptionModel

COST_UNIT = "visual tokens"
PROVENANCE = "provenance"
"""Key of a log's metadata: what made its answers; see
:class:`m3router.m3core.options.OptionModel`. Neither this nor the spec is in the journal, so that a
server may get another address between two runs; what decides answers is in the revision."""
LONGEST = "max_new_tokens"
"""Key of the longest answers in a log's metadata; logs of versions without it have the model's."""
RIGHT = 0.5
"""From this score on an answer counts as right where asking stops at the first right one."""


class LabelMode(StrEnum):
    """What is asked of the model.

    Attributes:
        ALL: Answers at every scale.
        UNTIL_CORRECT: Answers from the coarsest scale up to the first right one; what finer
            scales would answer stays unknown.
        REFERENCES: How likely the reference answers are at every scale, in one pass without
            decoding. The score is soft: the expected score of an answer drawn from the references
            and choices by their probabilities.
        AGREEMENT: Answers at every scale, to questions without references. The score is whether
            the finest scale says the very same.
    """

    ALL = "all"
    UNTIL_CORRECT = UNTIL_CORRECT
    REFERENCES = "references"
    AGREEMENT = AGREEMENT


def label_mode(examples: Sequence[Example], mode: LabelMode) -> LabelMode:
    """What is asked, given that examples without references can only be scored by agreement.

    Raises:
        DataError: Only some have references, or what is to be asked needs them.
    """
    judged = next((one for one in examples if is_judged(one.metric)), None)
    if judged is not None and mode is not LabelMode.ALL:
        raise DataError(
            f"Example {judged.id!r} has the metric {judged.metric!r}: a judge scores it when all "
            f"answers are there, so that {mode.value!r} cannot be asked for. Label without that "
            "option."
        )
    without = [one.id for one in examples if one.metric == AGREEMENT]
    if not without or mode is LabelMode.AGREEMENT:
        return mode
    if len(without) < len(examples):
        raise DataError(
            f"{len(without)} of {len(examples)} examples, such as {without[0]!r}, have no "
            f"reference answers (metric {AGREEMENT!r}), the others have: scores of both kinds "
            "cannot share a log. Fill the answers in, take these examples out, or label them into "
            "a folder of their own."
        )
    if mode is not LabelMode.ALL:
        raise DataError(
            f"The examples have no reference answers (metric {AGREEMENT!r}); asking "
            f"{mode.value!r} needs them. Label without that option."
        )
    return LabelMode.AGREEMENT


def option_names(model: MultiScaleModel | OptionModel) -> tuple[str, ...]:
    """The options of a log of this model, coarsest first."""
    if isinstance(model, MultiScaleModel):
        return model.grid.names
    return tuple(option.name for option in model.options)


def longest_answer(
    example: Example, model: MultiScaleModel | OptionModel, max_new_tokens: int | None = None
) -> int:
    """Tokens of the longest answer to an example: as asked for, else its own, else the model's."""
    lengths = (max_new_tokens, example.max_new_tokens)
    return next((length for length in lengths if length is not None), model.max_new_tokens)


def lengths_of(
    examples: Sequence[Example],
    model: MultiScaleModel | OptionModel,
    max_new_tokens: int | None = None,
) -> int | dict[str, int]:
    """What a log records of longest answers: a number, or length -> examples where they differ."""
    counts = Counter(longest_answer(one, model, max_new_tokens) for one in examples)
    if len(counts) == 1:
        return next(iter(counts))
    return {str(length): counts[length] for length in sorted(counts)}


def log_metadata(
    examples: Sequence[Example],
    model: MultiScaleModel | OptionModel,
    *,
    frames: int = FRAMES,
    mode: LabelMode = LabelMode.ALL,
    max_new_tokens: int | None = None,
) -> dict[str, Any]:
    """What a log was made from; two runs with equal metadata may be joined.

    The number of frames is part of it where there are videos, and else of no consequence.
    """
    videos = {"frames": frames} if any(is_video(one.image) for one in examples) else {}
    if isinstance(model, MultiScaleModel):
        asked = {
            "prompt": model.prompt,
            "visual": dict(model.visual),
            "dtype": model.dtype,
            "cost_unit": COST_UNIT,
            "padding": "left",
        }
    else:
        asked = {"cost_unit": model.cost_unit}
        if deciding := getattr(model, "deciding", None):  # so that a message can say what differs
            asked["deciding"] = dict(deciding)
    return {
        "model": model.name,
        "revision": model.revision,
        "grid": list(option_names(model)),
        **asked,
        "examples_sha256": fingerprint(examples),
        "n_examples": len(examples),
        LONGEST: lengths_of(examples, model, max_new_tokens),
        ASKED: mode.value,
        **videos,
    }


def longest_in(metadata: Mapping[str, Any]) -> int | None:
    """Tokens of the longest answer that a log allowed any example; None where it does not say."""
    recorded = metadata.get(LONGEST)
    if isinstance(recorded, Mapping):
        return max(map(int, recorded), default=None)
    return recorded if isinstance(recorded, int) else None


def empty_row(example: Example, scale: int | str, longest: int) -> dict[str, Any]:
    """A row that nothing was answered for; ``longest`` are the tokens of its longest answer."""
    return {
        "example_id": example.id,
        "group": example.group,
        "dataset": example.dataset,
        "question": example.question,
        "image": example.image,
        "scale": str(scale),
        "cost": None,
        "answer": None,
        "score": None,
        "logprob": None,
        "confidence": None,
        "answer_tokens": None,
        "text_tokens": None,
        "flops": None,
        "vision_flops": None,
        "chance": example.chance_level,
        "error": None,
        "references": list(example.answers),
        "metric": example.metric,
        "max_new_tokens": longest,
        "finish": None,
        **dict.fromkeys(USAGE),
    }


def scored(example: Example, answer: str) -> dict[str, Any]:
    """The columns ``score`` and ``error`` of an answer; what needs a judge waits for one."""
    if is_judged(example.metric):
        return {"score": None, "error": WAITING}
    return {"score": example.score(answer), "error": None}


def fill_row(
    row: dict[str, Any],
    example: Example,
    encoding: VisualEncoding,
    answer: Answer,
    model: MultiScaleModel,
) -> None:
    """Enter what was answered, what it scores and what it cost."""
    prompt = answer.visual_tokens + answer.text_tokens
    row |= {
        "cost": float(answer.visual_tokens),
        "answer": answer.text,
        **scored(example, answer.text),
        "logprob": answer.logprob,
        "confidence": answer.confidence,
        "answer_tokens": answer.answer_tokens,
        "text_tokens": answer.text_tokens,
        "flops": model.shape.answer_flops(prompt, answer.answer_tokens),
        "vision_flops": model.shape.vision_flops(encoding.views),
        "finish": LENGTH if answer.cut else STOP,
    }
