"""What a model at an endpoint has used so far."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from m3router.data.errors import ModelError

WARNINGS = 50
"""Most different warnings that are kept."""
MORE_WARNINGS = "further warnings of other kinds"


class RequestLimitError(ModelError):
    """The largest number of requests was sent; all answers before were given."""


@dataclass(frozen=True, kw_only=True)
class MeterReading:
    """What was used up to one moment; probing and derived counts are included.

    Attributes:
        requests: That were sent, retries included.
        retries: Those of them that repeated another one.
        answers: That came.
        failures: Requests that ended without an answer.
        prompt_tokens: Tokens of prompts, as far as they were reported.
        cached_tokens: Those of them that a server had read before.
        answer_tokens: Tokens of answers, as far as they were reported.
        price: In the unit of the prices that were given; 0 where none were.
        seconds: From request to answer, summed over all answers.
        warnings: What was odd, and how often.
    """

    requests: int = 0
    retries: int = 0
    answers: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    price: float = 0.0
    seconds: float = 0.0
    warnings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        """One line for a progress bar.

        >>> print(MeterReading(requests=9, retries=1, prompt_tokens=1200, answer_tokens=16))
        9 requests (1 again), 1200 + 16 tokens
        >>> print(MeterReading(requests=3, prompt_tokens=900, cached_tokens=600, price=0.25))
        3 requests, 900 (600 cached) + 0 tokens, price 0.25
        """
        again = f" ({self.retries} again)" if self.retries else ""
        money = f", price {self.price:.4g}" if self.price else ""
        odd = sum(self.warnings.values())
        warned = f", {odd} warnings" if odd else ""
        cached = f" ({self.cached_tokens} cached)" if self.cached_tokens else ""
        tokens = f"{self.prompt_tokens}{cached} + {self.answer_tokens} tokens"
        return f"{self.requests} requests{again}, {tokens}{money}{warned}"


class Meter:
    """Counts; safe to use from several threads.

    Args:
        max_requests: Most requests that may be sent; None for any number.
    """

    def __init__(self, max_requests: int | None = None) -> None:
        self._max_requests = max_requests
        self._lock = threading.Lock()
        self._reading = MeterReading()
        self._warnings: Counter[str] = Counter()

    @property
    def reading(self) -> MeterReading:
        """What was used so far."""
        with self._lock:
            return replace(self._reading, warnings=MappingProxyType(dict(self._warnings)))

    def sending(self, *, again: bool) -> None:
        """Count a request that is about to be sent.

        Raises:
            RequestLimitError: If it would be one too many; it is not counted then.
        """
        with self._lock:
            if self._max_requests is not None and self._reading.requests >= self._max_requests:
                raise RequestLimitError(
                    f"{self._max_requests} requests were sent, the most that --max-requests "
                    "allows; what was answered is kept, go on later with the same command"
                )
            self._add(requests=1, retries=int(again))

    def answered(
        self,
        *,
        prompt: int | None,
        cached: int | None,
        answer: int | None,
        price: float | None,
        seconds: float,
    ) -> None:
        """Count an answer."""
        with self._lock:
            self._add(
                answers=1,
                prompt_tokens=prompt or 0,
                cached_tokens=cached or 0,
                answer_tokens=answer or 0,
                price=price or 0.0,
                seconds=seconds,
            )

    def failed(self) -> None:
        """Count a request that ended without an answer."""
        with self._lock:
            self._add(failures=1)

    def warn(self, what: str) -> bool:
        """Count something odd; returns whether it is the first time."""
        with self._lock:
            if what not in self._warnings and len(self._warnings) >= WARNINGS:
                what = MORE_WARNINGS
            self._warnings[what] += 1
            return self._warnings[what] == 1

    def _add(self, **more: float) -> None:
        now = self._reading
        changed = {name: getattr(now, name) + value for name, value in more.items()}
        self._reading = replace(now, **changed)
