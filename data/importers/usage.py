"""What one answer took, as its file tells it, and what it costs by that."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from m3router.data.errors import DataError
from m3router.data.log.checks import COUNTS
from m3router.data.prices import Prices
from m3router.data.tables.cells import number_of

REPORTED = "reported"
"""Where the image tokens of imported answers come from."""


@dataclass(frozen=True, kw_only=True)
class CellUsage:
    """What one answer took; None where its file does not tell.

    Attributes:
        prompt_tokens: The whole prompt, the image's and the cached ones included.
        image_tokens: Those of the prompt that stand for the image.
        cached_tokens: Those of the prompt that a server had read before.
        answer_tokens: Of the answer, its reasoning included.
        pixels: Of the image as it was sent.
        seconds: Wall-clock time.
        price: In money.
        flops: Floating-point operations of the language model.
    """

    prompt_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    pixels: int | None = None
    seconds: float | None = None
    price: float | None = None
    flops: float | None = None

    @property
    def tokens(self) -> int | None:
        """Prompt and answer together."""
        if self.prompt_tokens is None or self.answer_tokens is None:
            return None
        return self.prompt_tokens + self.answer_tokens

    @property
    def text_tokens(self) -> int | None:
        """The prompt without the image."""
        if self.prompt_tokens is None or self.image_tokens is None:
            return None
        return max(self.prompt_tokens - self.image_tokens, 0)

    def priced(self, prices: Prices | None) -> float | None:
        """What it costs at these prices; what its file tells without any.

        >>> CellUsage(prompt_tokens=600, answer_tokens=10).priced(Prices(input=1.0, output=10.0))
        0.0007
        """
        if prices is None:
            return self.price
        return prices.of_answer(
            prompt=self.prompt_tokens, cached=self.cached_tokens, answer=self.answer_tokens
        )

    def columns(self, prices: Prices | None = None) -> dict[str, Any]:
        """What a log's row says of it, see :data:`m3router.data.log.checks.SCHEMA`."""
        return {
            "image_tokens": self.image_tokens,
            "image_tokens_from": None if self.image_tokens is None else REPORTED,
            "cached_tokens": self.cached_tokens,
            "answer_tokens": self.answer_tokens,
            "text_tokens": self.text_tokens,
            "pixels": self.pixels,
            "seconds": self.seconds,
            "flops": self.flops,
            "price": self.priced(prices),
        }


NOTHING = CellUsage()

QUANTITIES: dict[str, str] = {
    "tokens": "tokens",
    "prompt_tokens": "prompt tokens",
    "image_tokens": "image tokens",
    "answer_tokens": "answer tokens",
    "pixels": "pixels",
    "seconds": "seconds",
    "price": "USD",
    "flops": "FLOPs",
}
"""What a cost can be that is measured for every answer -> the unit that it is counted in.
``tokens`` are prompt and answer together."""

NAMES: dict[str, tuple[str, ...]] = {
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "image_tokens": ("image_tokens", "visual_tokens", "vision_tokens"),
    "cached_tokens": ("cached_tokens", "cached_input_tokens"),
    "answer_tokens": ("answer_tokens", "output_tokens", "completion_tokens"),
    "pixels": ("pixels",),
    "seconds": ("seconds", "latency_seconds"),
    "price": ("price", "price_usd", "cost_usd", "total_cost"),
    "flops": ("flops",),
}
"""What tools call the quantities; the first that a file has counts."""


def amount(value: object) -> float | None:
    """Read a cost or a time: a finite number of at least 0, or its text; else None.

    >>> amount("1e-3"), amount(2), amount(-1), amount(True), amount("much"), amount(None)
    (0.001, 2.0, None, None, None, None)
    """
    if isinstance(value, bool):
        return None
    number = number_of(value) if isinstance(value, str) else value
    if not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
        return None
    return float(number)


def usage_in(fields: Mapping[str, Any]) -> CellUsage:
    """Read what the fields of an answer tell, by :data:`NAMES`; what is no such number is None.

    >>> usage = usage_in({"input_tokens": 600, "output_tokens": 3.5, "seconds": "0.25"})
    >>> usage.prompt_tokens, usage.answer_tokens, usage.seconds
    (600, None, 0.25)
    """
    found: dict[str, Any] = {}
    for name, theirs in NAMES.items():
        called = next((one for one in theirs if one in fields), None)
        value = None if called is None else amount(fields[called])
        if value is not None and (name in COUNTS or name.endswith("_tokens")):
            whole = value == int(value) and value >= COUNTS.get(name, 0)
            found[name] = int(value) if whole else None
        else:
            found[name] = value
    return CellUsage(**found)


def used_names(fields: Collection[str]) -> set[str]:
    """The fields that :func:`usage_in` reads."""
    return {
        next(one for one in theirs if one in fields)
        for theirs in NAMES.values()
        if any(one in fields for one in theirs)
    }


def prices_of(texts: Mapping[str, str]) -> dict[str, Prices]:
    """Read prices per million tokens, as ``INPUT,OUTPUT`` or ``INPUT,OUTPUT,CACHED``.

    >>> prices_of({"gpt": "2,8"})["gpt"].output
    8.0

    Raises:
        DataError: A text has another form, or holds what is not a number of at least 0.
    """
    found: dict[str, Prices] = {}
    for option, text in texts.items():
        numbers = [number_of(part.strip()) for part in text.split(",")]
        if len(numbers) not in (2, 3) or any(one is None for one in numbers):
            raise DataError(
                f"The price of {option!r} must be INPUT,OUTPUT or INPUT,OUTPUT,CACHED per million "
                f"tokens, such as 2.5,10, got {text!r}."
            )
        names = ("input", "output", "cached")
        found[option] = Prices.of(dict(zip(names, numbers, strict=False)))
    return found
