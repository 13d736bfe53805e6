"""What may be asked of a policy, with the words that say so, written once.

Python (`calibrate_stage`, `escalate_stage`, `CalibrationData.policy`), the options of `m3router
calibrate` and the fields of a request to the server take names and descriptions from `Knobs`.
"""

from __future__ import annotations

import inspect
import re
from typing import TypedDict


class Knobs(TypedDict, total=False):
    """What is asked of a policy: one of the first five, a cap beside it, or a cap alone.

    Shares are numbers from 0 to 1. A knob of None is as good as none.

    Attributes:
        budget: Most mean cost per answer, in the log's cost unit, such as 64 visual tokens: of
            what was paid on the calibration split; nothing is guaranteed elsewhere.
        max_loss: Guarantee that accuracy is at most this share of questions below the reference
            option's; 1% is one point.
        max_regret: Guarantee that at most this share of questions, such as 1%, is right at the
            reference option and wrong as routed.
        max_loss_observed: Most that accuracy is below the reference option's, as a share of
            questions, as observed on the calibration split; nothing is guaranteed.
        price: Worth of one unit of cost, in probability of a right answer, such as 0.0001 to give
            up one point of accuracy for 100 tokens.
        cap: Most cost of any single answer, as it is known before asking: where that is only what
            is expected, an answer may cost more. With one of the others, or alone: then the
            likeliest right option within it.
        reference: Option that losses and regrets are against, and that is used where nothing meets
            the target. [default: the best one of the calibration split]
        confidence: Confidence of the guarantee, over the draw of the calibration split; 95% by
            default.
        bound: Test behind the guarantee: deadline, binomial, betting, wsr or bentkus. [default:
            deadline; binomial for a regret where an image counts with one question, right or wrong]
        most: Most questions that an image counts with in the guarantee; of others as many are
            drawn. [default: from the images of the fit and the tune split]
    """

    budget: float | None
    max_loss: float | None
    max_regret: float | None
    max_loss_observed: float | None
    price: float | None
    cap: float | None
    reference: str | None
    confidence: float | None
    bound: str | None
    most: int | None


def told(name: str) -> str:
    """What a knob means, as `Knobs` says it.

    >>> told("budget")
    "Most mean cost per answer, in the log's cost unit, such as 64 visual tokens: of what was \
paid on the calibration split; nothing is guaranteed elsewhere."

    Raises:
        KeyError: when there is none of that name.
    """
    return _WORDS[name]


def _words() -> dict[str, str]:
    text = inspect.getdoc(Knobs) or ""  # without docstrings (python -OO) there are no words
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return dict.fromkeys(Knobs.__annotations__, "") | {
        name: " ".join(words.split()) for name, words in entries
    }


_WORDS = _words()
