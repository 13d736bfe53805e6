"""Answers of any model that grow by a token a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from m3core.models.base import Answer


class GrowingAnswer(Protocol):
    """An answer while it is being written."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the model itself ended it, and not its longest length."""
        ...

    def settled(self) -> str:
        """The text so far that no later token can change: a beginning of the answer's text."""
        ...

    def answer(self) -> Answer:
        """The answer as it stands; after at least one step."""
        ...

    def give_up(self) -> None:
        """End it here: it leaves its batch."""
        ...


class GrowingAnswers(Protocol):
    """A batch of answers that grow by a token a step; others join, those that ended leave."""

    @property
    def rows(self) -> Sequence[GrowingAnswer]:
        """Those that have not ended."""
        ...

    def step(self) -> None:
        """One more token for each."""
        ...

    def join(self, other: Any) -> None:
        """Take in another batch of the same model, which is used up."""
        ...
