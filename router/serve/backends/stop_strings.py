"""Strings at which an answer ends: found in a text that grows, and never told in part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StopStrings:
    """Where an answer ends, beside where its model ends it.

    Attributes:
        strings: None of them empty; none at all for no such end.
    """

    strings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.strings)

    def ended(self, text: str) -> str | None:
        """The text before the first stop string in it; None where it has none.

        >>> StopStrings(("cd", "bc")).ended("abcd")
        'a'
        """
        found = [place for one in self.strings if (place := text.find(one)) >= 0]
        return text[: min(found)] if found else None

    def settled(self, text: str) -> str:
        """The text without an end that may become a stop string, where it has none yet.

        >>> StopStrings(("END",)).settled("The EN")
        'The '
        """
        held = 0
        for one in self.strings:
            longest = min(len(one) - 1, len(text))
            held = max(
                held,
                next((size for size in range(longest, 0, -1) if text.endswith(one[:size])), 0),
            )
        return text[: len(text) - held]
