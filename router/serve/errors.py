"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """Something to be told to the client; nothing of the server's inside belongs into it.

    Attributes:
        status: HTTP status, 400 to 599.
        kind: Such as "invalid_request_error", "authentication_error", "rate_limit_error",
            "server_error".
        param: The field that is wrong, such as "messages[0].content", as
            OpenAI writes it; None for the whole.
        code: For programs, such as "image_too_large"; None for nothing in particular.
        headers: Further response headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body: {"error": {"message", "type", "param", "code"}}."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def where(error: BaseException) -> str:
    """Kinds and places of an error and its causes, without their messages."""
    lines, seen = [], 0
    current: BaseException | None = error
    while current is not None and seen < 5:
        places = [
            f"{frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(current.__traceback__)[-8:]
        ]
        lines.append(f"{type(current).__name__} at {' < '.join(reversed(places))}")
        current = current.__cause__ or current.__context__
        seen += 1
    return "; from ".join(lines)
