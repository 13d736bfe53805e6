"""What a server asks for an answer, in money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in any one unit of money.

    Attributes:
        input: Of a million tokens of the prompt.
        output: Of a million tokens of the answer.
        cached: Of a million tokens of the prompt that the server had read before; None for the
            price of ``input``.
        image: Of one image.
        request: Of one answer.
    """

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    image: float = 0.0
    request: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: If one is negative, not finite, or no number.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.name == "cached":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise DataError(
                    f"the price {one.name} must be a number from 0 upwards, got {value!r}"
                )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Prices:
        """Prices by name.

        Raises:
            DataError: If a name is unknown, or a price is none.
        """
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise DataError(unknown_name("price", name, known))
        return cls(**given)

    def as_json(self) -> dict[str, float]:
        """What :meth:`of` makes these prices of."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def of_answer(
        self, *, prompt: int | None, cached: int | None, answer: int | None, images: int = 1
    ) -> float | None:
        """The price of one answer; None where tokens that cost something were not reported.

        >>> Prices(input=1.0, output=10.0, cached=0.5).of_answer(prompt=100, cached=40, answer=2)
        0.0001

        Args:
            prompt: Tokens of the prompt, the image's and those of ``cached`` included.
            cached: Tokens that the server had read before; None for none.
            answer: Tokens of the answer.
            images: Images in the prompt.
        """
        if (prompt is None and (self.input or self.cached)) or (answer is None and self.output):
            return None
        again = min(cached or 0, prompt or 0)
        again_price = self.input if self.cached is None else self.cached
        tokens = ((prompt or 0) - again) * self.input + again * again_price
        tokens += (answer or 0) * self.output
        return tokens / MILLION + images * self.image + self.request
