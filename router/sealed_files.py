"""Artefacts that are refused, before anything is built from them, when a single byte changed.

`ScaleRouter` and `Policy` are stored as *sealed* JSON: the file carries the SHA-256 of its own
content and must be byte for byte what `write_sealed` wrote. Binary parts (weights, trees) are
listed in it with their SHA-256 and are verified in memory, so that the bytes that were checked
are the bytes that are parsed. This matters most for LightGBM's text format, whose parser may
abort the process on a damaged file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.manifest import atomic_write_bytes
from m3router.data.plain_files import open_file

SEAL = "sha256"


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def content_hash(payload: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-able mapping, independent of the order of its keys.

    Raises:
        DataError: when `payload` holds something that JSON cannot, such as NaN.
    """
    return sha256_bytes(_render(payload))


def write_sealed(path: Path, payload: Mapping[str, Any]) -> str:
    """Write `payload` as JSON that carries its own SHA-256; returns that hash.

    Raises:
        DataError: when `payload` holds something that JSON cannot, such as NaN.
    """
    seal = content_hash(payload)
    atomic_write_bytes(path, _render({**payload, SEAL: seal}))
    return seal


def read_sealed(path: Path, *, kind: str, schema: int) -> dict[str, Any]:
    """Read what `write_sealed` wrote; the seal stays in the result under `"sha256"`.

    Args:
        path: the file.
        kind: the `"kind"` entry that the file must have, for example `"router"`.
        schema: the newest schema version this code reads.

    Raises:
        DataError: when the file is missing, cut short, edited, of another kind or newer.
    """
    content = _read(path, what=f"the {kind}")
    try:
        payload = parse_json(content)
    except ValueError as error:
        raise DataError(_damaged(path, kind, f"it is not valid JSON ({error})")) from error
    if not isinstance(payload, dict) or not isinstance(payload.get(SEAL), str):
        raise DataError(_damaged(path, kind, "it carries no seal of its own"))
    unsealed = {key: value for key, value in payload.items() if key != SEAL}
    if content_hash(unsealed) != payload[SEAL] or _render(payload) != content:
        raise DataError(_damaged(path, kind, "its content does not match its own SHA-256"))
    if payload.get("kind") != kind:
        raise DataError(f"{path} must be a {kind}, but it is a {payload.get('kind')!r}.")
    if type(payload.get("schema")) is not int or payload["schema"] > schema:
        raise DataError(
            f"{path} has schema {payload.get('schema')!r}; this version reads up to {schema}. "
            "Update the package, or write the artefact again with this version."
        )
    return payload


def check_entries(kind: type, entries: Mapping[str, Any]) -> None:
    """Check JSON values against the fields of a dataclass that is to be made of them.

    Args:
        kind: the dataclass; fields that are dataclasses themselves are not looked into.
        entries: name -> value.

    Raises:
        TypeError: when a name is none of its fields, or a value is of another type.
    """
    kinds = get_type_hints(kind)
    for name, value in entries.items():
        if name not in kinds:
            raise TypeError(f"it has an entry {name!r}, which is not known")
        if not is_dataclass(kinds[name]) and not _fits(value, kinds[name]):
            raise TypeError(f"{name} cannot be {value!r:.60}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of an annotated type; sequences may be lists or tuples."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is NoneType or kind is None:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(kind, type) and origin is None:
        return type(value) is kind
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values())
    if origin is tuple and isinstance(value, list | tuple):
        each = inner[:1] * len(value) if inner[-1:] == (...,) else inner
        return len(each) == len(value) and all(map(_fits, value, each))
    return False


def write_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write each file atomically into `folder`; returns name -> SHA-256."""
    for name, content in files.items():
        atomic_write_bytes(folder / name, content)
    return {name: sha256_bytes(content) for name, content in files.items()}


def read_files(folder: Path, hashes: Mapping[str, str]) -> dict[str, bytes]:
    """Read the files of `folder` that `hashes` lists, refusing any whose hash differs.

    Raises:
        DataError: when a file is missing, cut short or edited, or a name leaves the folder.
    """
    contents: dict[str, bytes] = {}
    if not isinstance(hashes, Mapping) or not all(isinstance(one, str) for one in hashes.values()):
        raise DataError(f"The artefact in {folder} lists no files with their SHA-256: {hashes!r}.")
    for name, expected in hashes.items():
        if Path(name).name != name:
            raise DataError(f"The artefact in {folder} lists the file {name!r} outside its folder.")
        content = _read(folder / name, what="a part of the artefact")
        if sha256_bytes(content) != expected:
            raise DataError(
                f"{folder / name} was cut short or edited and is not loaded. Write the artefact "
                f"again. (SHA-256 {sha256_bytes(content)[:12]}, as written {expected[:12]})"
            )
        contents[name] = content
    return contents


def _render(payload: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(payload, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"The artefact cannot be written as JSON: {error}.") from error
    return (text + "\n").encode("utf-8")


def _read(path: Path, *, what: str) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"Cannot read {what} at {path}: {error.strerror or error}.") from error


def _damaged(path: Path, kind: str, cause: str) -> str:
    return (
        f"{path} is not a usable {kind}: {cause}. It was cut short or edited; "
        "write it again with the stage that made it."
    )
