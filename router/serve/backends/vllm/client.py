"""Asks a vLLM server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3router.data.errors import DataError, ModelError
from m3router.m3core.endpoint.retries import retry_after_seconds
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.vllm.protocol import (
    BrokenError,
    Heard,
    heard_event,
    heard_whole,
)
from m3router.router.serve.backends.vllm.shape_gate import ShapeGate

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a question is asked where the server breaks off before the first token."""
PAUSE = 0.2
"""Seconds before the second try; doubled for each further one."""
CONNECT = 5.0
"""Seconds to wait for a connection."""
TOLD = 500
"""Characters of a server's error that are logged."""


@dataclass(frozen=True, kw_only=True)
class VllmAddress:
    """Where a vLLM server is.

    Attributes:
        url: Such as "http://gpu-1:8000", without "/v1".
        model: What the server calls its model (``--served-model-name``).
        key: Its API key; None for a server without one. Never logged.
        stream: Ask for streams; False where something in between holds them back. Answers then
            come whole, and images of different lengths wait for whole answers.
    """

    url: str
    model: str
    key: str | None = None
    stream: bool = True

    def __repr__(self) -> str:
        return f"VllmAddress(url={self.url!r}, model={self.model!r})"


class VllmServer:
    """One vLLM server.

    Args:
        address: Where it is.

    Raises:
        DataError: If the package httpx is not installed.
    """

    def __init__(self, address: VllmAddress) -> None:
        try:
            import httpx
        except ImportError as error:
            raise DataError(
                "asking a vLLM server needs the package httpx: pip install 'm3router[serve]'"
            ) from error
        self._errors = httpx.TransportError
        self._address = address
        self._gate = ShapeGate()
        self._closed = False
        headers = {} if address.key is None else {"Authorization": f"Bearer {address.key}"}
        self._client = httpx.AsyncClient(
            base_url=address.url.rstrip("/"),
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT),
            limits=httpx.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Close all connections; what is being answered breaks off."""
        self._closed = True
        await self._client.aclose()

    async def check(self) -> None:
        """Make sure that the server is there and has the model.

        Raises:
            ModelError: If it has another one.
            UnavailableError: If it does not answer.
        """
        try:
            response = await self._client.get("/v1/models", timeout=CONNECT)
            self._refused(response.status_code, response.headers, response.content)
        except (BrokenError, self._errors) as error:
            raise UnavailableError(
                f"no vLLM server answers at {self._address.url} ({type(error).__name__}); start "
                "it, or correct the address"
            ) from error
        try:
            names = [str(one["id"]) for one in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._address.url} does not speak OpenAI's protocol") from error
        if self._address.model not in names:
            raise ModelError(
                f"the vLLM server at {self._address.url} has the models {names} and not "
                f"{self._address.model!r}; name one of them"
            )

    async def answer(
        self, body: Mapping[str, Any], *, tokens: int, deadline: float
    ) -> AsyncGenerator[Heard, None]:
        """Ask one question, again where the server breaks off before the first token.

        Args:
            body: See :func:`m3router.router.serve.backends.vllm.protocol.request_body`.
            tokens: Visual tokens in it.
            deadline: By :func:`time.monotonic`.

        Raises:
            BusyError: If the server is full.
            DataError: If it refuses the question.
            OverdueError: If the time is over.
            UnavailableError: If it breaks down.
        """
        for tried in range(1, TRIES + 1):
            begun = False
            try:
                async with contextlib.aclosing(self._once(body, tokens, deadline)) as pieces:
                    async for heard in pieces:
                        begun = True
                        yield heard
                return
            except (BrokenError, self._errors) as error:
                logger.warning("vLLM broke off: %s %s", type(error).__name__, error)
                if begun or tried == TRIES or self._closed:
                    raise UnavailableError(
                        "the server of the language model broke off; try again later"
                    ) from error
            await within(deadline, asyncio.sleep(PAUSE * 2 ** (tried - 1)))

    async def _once(
        self, body: Mapping[str, Any], tokens: int, deadline: float
    ) -> AsyncGenerator[Heard, None]:
        """One try; ends only when the answer is complete."""
        await within(deadline, self._gate.enter(tokens))
        reading = True
        ended = counted = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                request = self._client.build_request("POST", "/v1/chat/completions", json=body)
                response = await within(deadline, self._client.send(request, stream=True))
                stack.push_async_callback(response.aclose)
                if response.status_code != 200:
                    told = await within(deadline, response.aread())
                    self._refused(response.status_code, response.headers, told)
                if not body["stream"]:
                    yield heard_whole(await within(deadline, response.aread()))
                    return
                lines = response.aiter_lines()
                while (line := await within(deadline, anext(lines, None))) is not None:
                    heard = heard_event(line)
                    if heard is None:
                        continue
                    if reading:  # the first event comes with the first token
                        reading = False
                        self._gate.leave()
                    ended = ended or heard.reason is not None
                    counted = counted or heard.prompt_tokens is not None
                    if heard != Heard():
                        yield heard
                if not (ended and counted):
                    raise BrokenError("the stream ended before the answer did")
        finally:
            if reading:
                self._gate.leave()

    def _refused(self, status: int, headers: httpx.Headers, told: bytes) -> None:
        """Raise what a status other than 200 stands for; its text is for the log alone."""
        if status == 200:
            return
        logger.warning("vLLM answered %d: %s", status, told[:TOLD].decode(errors="replace"))
        if status == 429:
            asked = retry_after_seconds(headers.get("Retry-After"), now=time.time())
            raise BusyError(
                "the server of the language model is full; try again later",
                retry_after=1.0 if asked is None else asked,
            )
        if status in (400, 413, 422):
            raise DataError(
                f"the server of the language model refused the question ({status}); shorten it, "
                "or choose a coarser scale"
            )
        if status in (408, 500, 502, 503, 504):
            raise BrokenError(f"status {status}")
        raise UnavailableError(f"the server of the language model does not serve this ({status})")


async def within(deadline: float, waited: Any) -> Any:
    """Await something, no longer than until the deadline.

    Raises:
        OverdueError: If the time is over.
    """
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await waited
    except TimeoutError as error:
        raise OverdueError("the question was not answered in time; try again later") from error
