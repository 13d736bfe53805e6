"""Where text goes. On its own, so that listing the commands imports nothing heavy."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from m3router.router.cli.exit_codes import UNREAD


class _Console(Console):
    """A console whose reader may go away, as `head` does."""

    def on_broken_pipe(self) -> None:
        """End in silence, as programs do that nobody reads any more."""
        self.quiet = True
        write_to_nobody()
        raise SystemExit(UNREAD)


def write_to_nobody() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


out = _Console(highlight=False, soft_wrap=True)
"""Results."""
err = _Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notes and errors."""
