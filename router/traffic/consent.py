"""Whose word counts on whether a request may be kept, and how much may be."""

from __future__ import annotations

from enum import StrEnum

FOLDER_BYTES = 1 << 30
"""Most bytes of a folder, where nothing else is said."""


class Consent(StrEnum):
    """Whose word counts, beside that of who runs the server.

    Attributes:
        ALWAYS: Requests are not asked.
        OPT_OUT: A request that says no is not recorded.
        OPT_IN: Only a request that says yes is.
    """

    ALWAYS = "always"
    OPT_OUT = "opt-out"
    OPT_IN = "opt-in"

    def allows(self, said: bool | None) -> bool:
        """Whether a request may be recorded that said yes, no or nothing."""
        return self is Consent.ALWAYS or (
            said is True if self is Consent.OPT_IN else said is not False
        )
