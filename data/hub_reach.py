"""Whether the Hugging Face hub can be reached.

Its client tries again for half a minute before it says that there is no connection, and says
nothing meanwhile. So it is asked once here, first.
"""

from __future__ import annotations

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError

SECONDS = 10.0
"""Longest wait for a connection, and for each part of the answer."""
CONNECTION_ERRORS: tuple[type[Exception], ...] = tuple(
    base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)
)
"""What the hub's client raises when a connection breaks: its errors' base, and OSError."""

_NOT_REACHED = frozenset({"ConnectError", "ConnectTimeout", "ConnectionError"})
"""By name, since the client's library differs from version to version."""


def no_hub() -> str | None:
    """Why the hub cannot be reached, in a sentence; None where it can be, whatever it answers."""
    if constants.HF_HUB_OFFLINE:
        return "The Hugging Face hub is not asked: HF_HUB_OFFLINE is set."
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except CONNECTION_ERRORS as error:
        if type(error).__name__ not in _NOT_REACHED:
            return None  # something is there; what is asked of it next says what is wrong
        reason = str(error).rstrip(".") or type(error).__name__
        return f"{constants.ENDPOINT} cannot be reached ({reason}). Check the connection."
    return None
