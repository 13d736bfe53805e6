"""What a log is about, in words: images asked about at scales, or questions that options answer.

Sentences are written for images and scales. A log of a text benchmark has neither, and one of two
models has images but no scales; :meth:`Words.of` says the same with groups and options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from m3router.data.log.oracle_log import OracleLog

_GROUPS = (
    (r"an (?:image|picture)", "a group"),
    (r"An (?:image|picture)", "A group"),
    (r"(?:image|picture)(s?)", r"group\1"),
)
_OPTIONS = (
    (r"coarse to fine", "cheap to expensive"),
    (r"coarse", "cheap"),
    (r"finest (?:scale|option)", "most expensive option"),
    (r"finest", "most expensive"),
    (r"finer", "more expensive"),
    (r"coarser", "cheaper"),
    (r"scale(s?)", r"option\1"),
    (r"Scale(s?)", r"Option\1"),
)


@dataclass(frozen=True)
class Words:
    """Which words fit a log.

    Attributes:
        images: Whether its questions are about images; else questions are only in groups.
        scales: Whether its options are token scales of one model.
    """

    images: bool = True
    scales: bool = True

    def of(self, text: str) -> str:
        """Say a sentence of ours, written for images and scales, of this log.

        Names of users' options and datasets must not be in it yet.

        >>> Words(images=False, scales=False).of("no image at the finest scale")
        'no group at the most expensive option'
        """
        if not self.images:
            for pattern, word in _GROUPS:
                text = re.sub(rf"\b{pattern}\b", word, text)
        if not self.scales:
            for pattern, word in _OPTIONS:
                text = re.sub(rf"\b{pattern}\b", word, text)
        return text

    def asked(self, questions: int, groups: int) -> str:
        """Say about how many images so many questions are, or in how many groups.

        >>> Words().asked(3, 1), Words(images=False).asked(3, 2), Words(images=False).asked(3, 3)
        ('about 1 image', 'in 2 groups', '')
        """
        many = "" if groups == 1 else "s"
        if self.images:
            return f"about {groups} image{many}"
        return "" if groups == questions else f"in {groups} group{many}"

    def to_dict(self) -> dict[str, bool]:
        """As JSON values."""
        return asdict(self)


def words_of(log: OracleLog) -> Words:
    """The words that fit a log: of images where an example names one or costs are visual tokens.

    Logs of Matryoshka models are of scales; imported ones where their costs are visual tokens.
    Those of other models are of options.
    """
    visual = "visual" in log.cost_unit
    return Words(
        images=visual or any(log.images.tolist()),
        scales=log.encodes_once or (visual and "source" in log.metadata),
    )


def words_in(document: Mapping[str, Any]) -> Words:
    """The words of an evaluation; those of images and scales where it is older than they are."""
    return Words(**document.get("words", {}))
