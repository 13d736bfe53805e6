"""Manifests: what every stage folder says about itself, and files that are written whole or not.

A folder is read only by the stage that expects it: ``read_manifest`` checks the stage and the
schema, and the recorded SHA-256 sums let a reader refuse inputs that changed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import stat
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.json_files import read_json
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import is_there, open_file, real_path

COMMANDS = {
    "log": "label",
    "features": "featurize",
    "train": "train",
    "calibrate": "calibrate",
    "evaluate": "evaluate",
    "importance": "report",
    "report": "report",
    "learning-curve": "study learning-curve",
    "leave-one-out": "study leave-one-out",
}
"""Stage, as manifests name it -> the command that writes it."""
SCHEMA = 2
SEALED = 2
"""Manifests carry their own SHA-256 from this schema on."""
SEAL = "sha256"
MANIFEST = "manifest.json"
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""``OSError.errno`` values that mean "there is no room for this": disk, quota, file-size limit."""

_RECORDED = (
    "torch",
    "transformers",
    "numpy",
    "pandas",
    "pyarrow",
    "pillow",
    "scikit-learn",
    "lightgbm",
)


def sha256_file(path: Path) -> str:
    """Hash a file.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def atomic_write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file whole or not at all: a temporary neighbour, fsync, rename.

    Args:
        path: Where the file is to stand; its folder is made when it is missing.
        data: All of its bytes.
        mode: Permissions of the file, whatever the process's umask; None for what that leaves.

    Raises:
        DataError: It cannot be written (disk full, no permission, ...). What stood at ``path``
            before is untouched, and no temporary file is left.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_to_replace(path)
        made = 0o666 if mode is None else mode
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, made)) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(write_failure(path, error)) from error


def _refuse_to_replace(path: Path) -> None:
    """Let a file, or a link to one, be replaced: not a folder, and no pipe or device.

    Raises:
        OSError: It is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a plain file", str(path))


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; see :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_failure(path: Path, error: OSError) -> str:
    """Word the failure to write a file: which file, why, what to do."""
    blocked = isinstance(error, FileExistsError)  # by a file where a folder is needed
    reason = os.strerror(errno.ENOTDIR) if blocked else error.strerror or str(error)
    if error.errno in FULL_DISK:
        return (
            f"Disk full while writing {path} ({reason}); what stood there before is untouched. "
            "Free some space and run the same command again."
        )
    return f"{path} cannot be written: {reason}."


def fsync_folder(folder: Path) -> None:
    """Make a rename or a new file in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(
    folder: Path,
    *,
    stage: str,
    inputs: Mapping[str, StrPath],
    params: Mapping[str, Any],
    sha256: Callable[[Path], str] = sha256_file,
    **extra: Any,
) -> None:
    """Write ``manifest.json`` into a stage folder.

    Args:
        folder: The stage folder.
        stage: Its stage, such as ``"log"``.
        inputs: What the stage read, by name: a file, or another stage's folder (then that
            folder's manifest is hashed, which holds the sums of its files).
        params: The options it ran with; JSON values.
        sha256: Hashes an input; a stage that has hashed what it read says so here.
        **extra: More top-level entries; JSON values.

    Raises:
        DataError: An input cannot be hashed, or the manifest cannot be written.
    """
    recorded = {}
    for name, path in inputs.items():
        path = as_path(path)
        target = path / MANIFEST if path.is_dir() else path
        recorded[name] = {"path": _relative(target, folder), "sha256": sha256(target)}
    manifest = {
        "schema": SCHEMA,
        "stage": stage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": recorded,
        "params": dict(params),
        "versions": library_versions(),
        **extra,
    }
    manifest[SEAL] = _seal(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(folder / MANIFEST, text + "\n")


def _redo(stage: str) -> str:
    """What mends a stage's folder."""
    return f"Run `m3router {COMMANDS.get(stage, stage)}` again."


def read_manifest(folder: Path, *, stage: str) -> dict[str, Any]:
    """Read the manifest of a stage folder.

    Args:
        folder: The stage folder.
        stage: The stage that the caller expects.

    Returns:
        The manifest.

    Raises:
        DataError: It is missing, not JSON, edited, of another stage, or of a newer schema.
    """
    path = folder / MANIFEST
    if not is_there(path):
        raise DataError(
            f"{folder} has no {MANIFEST}: expected the folder that `m3router "
            f"{COMMANDS.get(stage, stage)}` wrote. Check the path, or run that first."
        )
    manifest = read_json(path, redo=f"{_redo(stage)}")
    if not isinstance(manifest, dict) or "schema" not in manifest or "stage" not in manifest:
        raise DataError(f"{path} is not a manifest of this project: no 'schema' and 'stage'.")
    schema = manifest["schema"]
    if type(schema) is not int or schema > SCHEMA:
        raise DataError(
            f"{path} has schema {schema!r}; this version reads up to {SCHEMA}. "
            "Update m3router, or run the stage again with this version."
        )
    sealed = {name: value for name, value in manifest.items() if name != SEAL}
    if (schema >= SEALED or SEAL in manifest) and manifest.get(SEAL) != _seal(sealed):
        raise DataError(
            f"{path} is damaged or was changed: its content does not match its own SHA-256. "
            f"{_redo(stage)}"
        )
    if manifest["stage"] != stage:
        raise DataError(
            f"{folder} holds the stage {manifest['stage']!r}, expected {stage!r}. Check the path."
        )
    if wrong := _wrong_entry(manifest):
        raise DataError(
            f"{path} is damaged: its entry {wrong} is not such as stages write. {_redo(stage)}"
        )
    return manifest


def _wrong_entry(manifest: Mapping[str, Any]) -> str:
    """The name of the first entry that is none of a manifest; "" where all are."""
    for name in ("inputs", "params", "versions", "files", "metadata"):
        entry = manifest.get(name, {})
        if not isinstance(entry, dict):
            return repr(name)
        for key, value in entry.items():
            if name == "inputs":
                fits = isinstance(value, dict) and all(
                    isinstance(value.get(part), str) for part in ("path", "sha256")
                )
            else:
                fits = name not in ("files", "versions") or isinstance(value, str)
            if not fits:
                return f"{name!r}, {key!r},"
    return ""


def _seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's values, whatever the order of its keys."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def library_versions() -> dict[str, str]:
    """Name the versions of Python and of the installed libraries that results depend on."""
    return {"python": platform.python_version(), **_installed()}


@functools.cache
def _installed() -> Mapping[str, str]:
    """The recorded libraries' versions, which no process sees change; looking takes a while."""
    versions = {}
    for name in _RECORDED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _relative(path: Path, folder: Path) -> str:
    """Give a path as seen from a folder; only the name where there is no such path (drives)."""
    try:
        return Path(os.path.relpath(real_path(path), real_path(folder))).as_posix()
    except ValueError:
        return path.name
