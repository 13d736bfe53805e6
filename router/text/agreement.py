"""What results mean where the right answers are not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3router.data.log.checks import scored_by_agreement
from m3router.router.text.words import Words

_TOLD = (
    "There are no reference answers: an answer counts as right if the finest scale says the same. "
    "All results are agreement with it, not accuracy."
)


def agreement_sentence(metadata: Mapping[str, Any], words: Words) -> str:
    """Say that results are agreement with the finest option; "" for a log with right answers.

    Args:
        metadata: Of the log.
        words: That fit it.
    """
    return words.of(_TOLD) if scored_by_agreement(metadata) else ""
