"""From the name of an image or video to its open file, or to why it cannot be opened.

Every place that turns a name into a file does it here, so that labels, features and pages agree
on which file is meant, and one bad file is an error about that file wherever it is met.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import posixpath
import stat
import time
import unicodedata
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath

from m3router.data.errors import ImageError

_SHOWN, _LONGEST = 80, 1000


def brief(name: str) -> str:
    """A name as messages show it: one that can only be an image itself is cut.

    >>> brief("a/b.png"), brief("iVBO" * 25_000)[-24:]
    ('a/b.png', '... (100000 characters)')
    """
    return name if len(name) <= _LONGEST else f"{name[:_SHOWN]}... ({len(name)} characters)"


def leaves_folder(image: str) -> str:
    """Say how an image path leaves its folder; empty when it does not.

    >>> leaves_folder("a/../../b.png")
    'climbs out of the images folder'
    """
    windows = PureWindowsPath(image)
    if PurePosixPath(image).is_absolute() or windows.drive or windows.root:
        return "is absolute"
    if "\0" in image:
        return "holds a NUL character"
    for text in (image, image.replace("\\", "/")):
        if posixpath.normpath(text).split("/")[0] == "..":
            return "climbs out of the images folder"
    return ""


_CAUSES = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.ELOOP: "it is a symbolic link that leads back to itself",
}
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
# A pipe or device would otherwise be waited for, and a terminal would become the process's own.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)
_SETTLED = 2.0
"""Seconds after a change of a folder from which on its time of change can be trusted."""


def file_in(folder: Path, name: str) -> Path:
    """The file that an example's image or video path names.

    Args:
        folder: What paths start from.
        name: The path as an example or a log has it.

    Returns:
        The path of :func:`find_file`; the file may be missing.

    Raises:
        ImageError: The path is empty, leaves the folder, or is a data URL.
    """
    problem = leaves_folder(name) if name.strip() else "is empty"
    if name[:5].lower() == "data:" and "," in name:
        problem = "is a data URL"
    if problem:
        raise ImageError(
            f"Image path {brief(name)!r} cannot be used: it {problem}. Give a path inside the "
            "images folder."
        )
    return find_file(folder / name)


def find_file(path: Path) -> Path:
    """A path as it is spelled on the disk.

    The same name can be written with composed letters (Unicode's NFC, one character for an
    accented letter) or decomposed ones (NFD, which archives made on a Mac have). The exact name
    is taken where it exists; else one that is equal in NFC, for every part of the path.

    Args:
        path: Of a file or folder.

    Returns:
        A path that exists, or `path` itself.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        exact = found / part
        if not part.isascii() and not os.path.lexists(exact):
            names = _spellings(found)
            exact = found / names.get(unicodedata.normalize("NFC", part), part)
        found = exact
    return found if os.path.lexists(found) else path


def open_file(
    path: Path, *, kind: str = "Image", error: type[ImageError] = ImageError
) -> BufferedReader:
    """Open an ordinary file that is not empty, without ever waiting for one that is not.

    Args:
        path: The file; see :func:`find_file`.
        kind: What it is said to be, for messages.
        error: What is raised.

    Returns:
        The open file; the caller closes it.

    Raises:
        ImageError: It cannot be opened; the message names the path and the cause.
    """
    place = find_file(path)
    try:
        # Told before it is opened, which some devices take for an order.
        _refuse_other_kinds(os.stat(place).st_mode)
        descriptor = os.open(place, _FLAGS)
        file = os.fdopen(descriptor, "rb")
        try:
            status = os.fstat(descriptor)
            _refuse_other_kinds(status.st_mode)
            if status.st_size == 0:
                raise _NotUsableError("the file is empty (0 bytes)")
        except BaseException:
            file.close()
            raise
    except (_NotUsableError, OSError, ValueError) as problem:
        cause = cause_of(problem, place)
        raise error(f"{kind} {brief(str(path))} cannot be read: {cause}.") from problem
    return file


def file_digest(path: Path) -> str:
    """SHA-256 of an image's or video's file; 64 hexadecimal digits.

    Raises:
        ImageError: It cannot be read.
    """
    with open_file(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as problem:
            raise ImageError(f"Image {path} cannot be read: {cause_of(problem)}.") from problem


def cause_of(problem: Exception, path: Path | None = None) -> str:
    """Why a file cannot be read, in words without its path.

    Args:
        problem: What the system said.
        path: The file, to tell a dangling link from a missing file.
    """
    if isinstance(problem, OSError) and problem.errno is not None:
        if problem.errno == errno.ENOENT and path is not None and os.path.islink(path):
            return "it is a symbolic link to a file that does not exist"
        known = _CAUSES.get(problem.errno)
        return known or problem.strerror or os.strerror(problem.errno)
    if isinstance(problem, UnicodeError):
        return "its name cannot be spelled on this system"
    if isinstance(problem, ValueError) and "null" in str(problem):
        return "its name holds a NUL character"
    return str(problem) or type(problem).__name__


class _NotUsableError(Exception):
    """It exists and is not a file to read; the message says why."""


def _refuse_other_kinds(mode: int) -> None:
    for is_kind, cause in _KINDS:
        if is_kind(mode):
            raise _NotUsableError(cause)


def _spellings(folder: Path) -> dict[str, str]:
    """Names in a folder that are not plain ASCII: composed spelling to the one on the disk."""
    try:
        changed = os.stat(folder).st_mtime_ns
    except (OSError, ValueError):
        return {}
    if time.time() - changed / 1e9 < _SETTLED:
        return _listed(folder)
    return _listed_once(folder, changed)


def _listed(folder: Path) -> dict[str, str]:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.isascii())
    except OSError:
        return {}
    return {unicodedata.normalize("NFC", name): name for name in reversed(names)}


@functools.lru_cache(maxsize=64)
def _listed_once(folder: Path, changed: int) -> dict[str, str]:
    """A folder is listed once for as long as it stays as it is, however many names it lacks."""
    return _listed(folder)
