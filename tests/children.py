"""Processes that a test starts and never leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def child(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose streams are text, in a session of its own; ended when the block ends.

    ``Popen`` alone waits at the end of its block, for ever where a test has failed before it told
    the process to stop: a failure became a run that never ended.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **settings) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # first kindly: it may have processes of its own to end
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
