"""A folder that one process at a time writes to."""

from __future__ import annotations

import fcntl
import os

from m3router.data.errors import DataError


def take_lock(lock: int, busy: str) -> None:
    """Lock a folder for this process, which is written into the lock's file.

    Args:
        lock: Descriptor of the lock's file, open for reading and writing.
        busy: What is said where another process has it, with ``{holder}`` for its id.

    Raises:
        DataError: Another process has it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise DataError(busy.replace("{holder}", holder)) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
