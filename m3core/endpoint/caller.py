"""One answer from an endpoint: sent again where that may help, and no longer where it cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from m3router.data.errors import M3RouterError, ModelError
from m3router.m3core.endpoint.completions import (
    BrokenReplyError,
    Completion,
    error_text,
    is_html,
    read_completion,
)
from m3router.m3core.endpoint.keys import Key
from m3router.m3core.endpoint.meter import Meter
from m3router.m3core.endpoint.remedies import remedy
from m3router.m3core.endpoint.retries import RetryPolicy, may_succeed_later, retry_after_seconds
from m3router.m3core.endpoint.transport import NoConnectionError, NoReplyError, Reply, Transport

CHAT = "/chat/completions"
ADVICE = {
    401: "the endpoint refuses the key",
    402: "the endpoint wants to be paid first",
    403: "the endpoint does not let this key ask",
    404: "the endpoint has no such model, or no such path",
    405: "the endpoint has no such path",
    407: "something in between wants a password",
}
"""Statuses that every further request would get as well."""
SPENT = ("insufficient_quota", "billing_hard_limit", "billing_not_active")
"""Codes of a 429 that no waiting helps against."""

logger = logging.getLogger(__name__)


class RefusedError(M3RouterError):
    """A request that the server does not take, and would not take again.

    Attributes:
        status: Of HTTP.
        said: What the server said.
        attempts: Requests that were sent.
    """

    def __init__(self, status: int, said: str, *, attempts: int) -> None:
        super().__init__(f"the server refused it (status {status}: {said})")
        self.status = status
        self.said = said
        self.attempts = attempts


class GaveUpError(M3RouterError):
    """A request that got no answer, however often it was sent.

    Attributes:
        attempts: Requests that were sent.
    """

    def __init__(self, message: str, *, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class StoppedError(M3RouterError):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True, kw_only=True)
class Called:
    """What came of a request.

    Attributes:
        completion: The answer.
        seconds: From the last request to the end of its response.
        attempts: Requests that were sent.
    """

    completion: Completion
    seconds: float
    attempts: int


class Caller:
    """Sends requests for answers, with the one layer of retries there is.

    Args:
        transport: To the endpoint.
        retry: When requests are sent again.
        meter: Counts them.
        key: Hidden in messages; None for none.
        models: Names the endpoint's models, for the message about an unknown one.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        retry: RetryPolicy,
        meter: Meter,
        key: Key | None,
        models: Callable[[str], str],
    ) -> None:
        self._transport = transport
        self._retry = retry
        self._meter = meter
        self._key = key
        self._models = models
        self._ever = False
        self._resume_at = 0.0

    def call(self, body: Mapping[str, Any], *, stop: threading.Event) -> Called:
        """Ask, again where that may help.

        Raises:
            RefusedError: If the server does not take this request.
            GaveUpError: If no attempt brought an answer.
            ModelError: If no request can bring one, or the largest number was sent.
            StoppedError: If ``stop`` was set.
        """
        last: M3RouterError = GaveUpError("nothing was sent", attempts=0)
        asked: float | None = None
        for attempt in range(1, self._retry.attempts + 1):
            pause = self._retry.pause(attempt - 1, asked) if attempt > 1 else 0.0
            self._wait(max(pause, self._resume_at - time.monotonic()), stop)
            self._meter.sending(again=attempt > 1)
            asked = None
            try:
                reply = self._transport.post(CHAT, body)
                if reply.status == 200:
                    completion = read_completion(reply.body, content_type=reply.content_type)
                    self._ever = True
                    return Called(completion=completion, seconds=reply.seconds, attempts=attempt)
                asked = self._refused(reply, body, attempt)
                last = NoReplyError(f"status {reply.status}: {self._said(reply)}")
            except BrokenReplyError as error:
                if error.html and not self._ever:
                    raise ModelError(
                        f"{error}: the endpoint's address is that of a page, not of an API; "
                        "check its path, which usually ends in /v1"
                    ) from error
                last = error
            except (NoReplyError, NoConnectionError) as error:
                last = error
            logger.info("attempt %d of %d: %s", attempt, self._retry.attempts, self._hide(last))
        said = self._hide(last)
        if isinstance(last, NoConnectionError):
            raise ModelError(
                f"{said}, after {self._retry.attempts} attempts: start it, or correct the address; "
                "what was answered is kept"
            ) from last
        raise GaveUpError(
            f"no answer after {self._retry.attempts} attempts, the last one: {said}",
            attempts=self._retry.attempts,
        ) from last

    def _refused(self, reply: Reply, body: Mapping[str, Any], attempt: int) -> float | None:
        """Seconds that a server asks to wait; raises what is not worth another attempt."""
        said = self._said(reply)
        if reply.status == 429 and any(code in reply.body.decode("latin-1") for code in SPENT):
            raise ModelError(
                f"the key's money is spent (status 429: {said}); top it up, go on later"
            )
        if may_succeed_later(reply.status):
            asked = retry_after_seconds(reply.retry_after, now=time.time())
            if asked is not None and asked > self._retry.longest_asked:
                raise ModelError(
                    f"the server asks to wait {asked:.0f} s (status {reply.status}: {said}), and "
                    f"no more than {self._retry.longest_asked:g} s are waited. What was answered "
                    "is kept; go on then with the same command"
                )
            if asked is not None:  # whoever is told to wait waits for all
                until = time.monotonic() + min(asked, self._retry.longest_asked)
                self._resume_at = max(self._resume_at, until)
            return asked
        if reply.status in ADVICE:
            raise ModelError(self._no_use(reply, said, str(body.get("model"))))
        if is_html(reply.body, reply.content_type) and not self._ever:
            raise ModelError(
                f"the endpoint answered a page of HTML (status {reply.status}): check its address, "
                "whose path usually ends in /v1"
            )
        raise RefusedError(reply.status, said, attempts=attempt)

    def _no_use(self, reply: Reply, said: str, model: str) -> str:
        advice = ADVICE[reply.status]
        if reply.status in (401, 403) and self._key is None:
            advice = "the endpoint wants a key: give one by --key-env or --key-file"
        if reply.status == 404:
            advice += f": {self._models(model)}"
        return f"{advice} (status {reply.status}: {said}). What was answered is kept."

    def _said(self, reply: Reply) -> str:
        if is_html(reply.body, reply.content_type):
            return "a page of HTML"
        whole = self._hide(reply.body.decode("utf-8", errors="replace"))  # before it is shortened
        return error_text(whole) or "nothing more"

    def _hide(self, told: object) -> str:
        return str(told) if self._key is None else self._key.hide(str(told))

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if seconds > 0 and self._retry.wait is not None:
            self._retry.wait(seconds)
        elif seconds > 0:
            stop.wait(seconds)
        if stop.is_set():
            raise StoppedError("nobody waits for this answer any more")


def refusal_text(error: RefusedError, *, option: str) -> str:
    """What a record of a refusal says.

    >>> refusal_text(RefusedError(413, "too large", attempts=1), option="high")[:60]
    "the endpoint refused the request at option 'high' (status 41"
    """
    advice = remedy(error.said, status=error.status)
    return (
        f"the endpoint refused the request at option {option!r} (status {error.status}: "
        f"{error.said}); {advice}"
    )
