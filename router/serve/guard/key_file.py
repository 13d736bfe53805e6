"""Changes to a key file: lines are added and taken out, all others stay as they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_bytes
from m3router.data.plain_files import is_there, open_file, real_path
from m3router.router.serve.guard.keys import StoredKey, check_name, new_token, parse_keys, sha256_of

HEAD = "# Keys of m3router serve. One JSON object a line; only hashes, never a token.\n"


def list_keys(file: Path) -> list[StoredKey]:
    """Read the keys of a file.

    Raises:
        DataError: The file is missing or damaged.
    """
    return _parse(file, _text(file))


def add_key(file: Path, name: str, *, requests_per_minute: float | None = None) -> str:
    """Draw a token for somebody and store its hash; the file is made where there is none.

    Args:
        file: The key file.
        name: Whose token it is; not yet in the file.
        requests_per_minute: This key's own limit; None for the server's.

    Returns:
        The token, which is nowhere else.

    Raises:
        DataError: The name is taken or not allowed, or the file is damaged or cannot be written.
    """
    check_name(name)
    file = real_path(file)
    with _alone(file):
        text = _text(file) if is_there(file) else ""
        text = text if text.strip() else HEAD
        if any(key.name == name for key in _parse(file, text)):
            raise DataError(f"Keys {file} have a key {name}; revoke it first, or choose another.")
        token = new_token()
        today = datetime.now(UTC).date().isoformat()
        line = StoredKey(name, sha256_of(token), today, requests_per_minute).line()
        _write(file, text + ("" if text.endswith("\n") else "\n") + line + "\n")
    return token


def revoke_key(file: Path, name: str) -> None:
    """Take a key out; a running server refuses it a second later.

    Raises:
        DataError: There is no such key, or the file is missing, damaged or cannot be written.
    """
    file = real_path(file)
    with _alone(file):
        text = _text(file)
        if all(key.name != name for key in _parse(file, text)):
            raise DataError(f"Keys {file} have no key {name!r}.")
        kept = [line for line in text.splitlines() if not _is_line_of(line, name)]
        left = "\n".join(kept) + "\n"
        _write(file, left if left.strip() else HEAD)


def _is_line_of(line: str, name: str) -> bool:
    if not line.strip() or line.lstrip().startswith("#"):
        return False
    return parse_keys(line)[0].name == name


def _text(file: Path) -> str:
    try:
        with open_file(file) as opened:
            return opened.read().decode("utf-8")
    except OSError as error:
        raise DataError(f"Keys {file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise DataError(f"Keys {file} cannot be read: it is not UTF-8 text.") from None


def _parse(file: Path, text: str) -> list[StoredKey]:
    try:
        return parse_keys(text)
    except DataError as error:
        raise DataError(f"Keys {file} cannot be used: {error}") from error


def _write(file: Path, text: str) -> None:
    """Write the file whole, whose and as readable as it was; a new one for its owner alone."""
    before = file.stat() if file.exists() else None
    mode = before.st_mode & 0o777 if before else 0o600
    atomic_write_bytes(file, text.encode("utf-8"), mode=mode)
    if before is not None:
        with contextlib.suppress(PermissionError):
            os.chown(file, before.st_uid, before.st_gid)


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep two changes at once from losing one; the lock is on the folder, files come and go."""
    try:
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{file.parent} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
