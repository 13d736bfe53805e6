"""Files that are read whole or hashed: plain ones, so that no pipe or device holds a reader up."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from m3router.data.errors import DataError


def open_file(path: Path) -> BufferedReader:
    """Open a plain file to read it; a pipe or device, which might never end, is refused.

    Raises:
        OSError: It is something else, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        reason = os.strerror(code) if stat.S_ISDIR(mode) else "Not a plain file"
        raise OSError(code, reason, str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """Read a plain file whole.

    Raises:
        DataError: It cannot be read; the message names it and says why.
    """
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def real_path(path: Path) -> Path:
    """A path without links, as `Path.resolve` gives it; one that ends in a loop stays as it is.

    Raises:
        DataError: It can be no path, as it holds a NUL character.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} is no path: {error}.") from error


def is_there(path: Path) -> bool:
    """Whether anything is at a path: what is damaged there must be told, not passed over.

    A folder, a link that leads nowhere or to itself, and a file that may not be read all count.

    Raises:
        DataError: Nobody can say, as a folder above it may not be entered.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}.") from error
    return True
