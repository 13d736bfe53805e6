"""Examples from a JSONL file beside a folder of images."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.json_files import parse_json
from m3router.data.media_files import brief, leaves_folder
from m3router.data.paths import StrPath, as_path
from m3router.data.registry import unknown_name
from m3router.data.videos import is_video

SHOWN = 20
METADATA = "metadata"
"""Field for whatever else is known of an example; it is not read."""
_FIELDS = frozenset(field.name for field in fields(Example))
_OTHER_NAMES = frozenset({"answer", "video"})
RECORDED = frozenset({"time", "key", "asked", "served", "made_by", "crc"})
"""What the server's records of requests hold beside an example, see docs/traffic.md."""


def load_jsonl(path: StrPath, *, images: StrPath) -> list[Example]:
    """Read examples, one JSON object a line.

    A line has at least ``id``, ``image`` (or ``video``), ``question`` and ``answers`` (a list) or
    ``answer`` (one text); the other fields of :class:`m3router.data.example.Example` are optional.
    What else is to be kept with an example stands in the field ``metadata``, which is not read; any
    other field is refused, because a misspelled one would silently do nothing. Blank lines are
    ignored. The ending of a name tells a video in either field, see :mod:`m3router.data.videos`.
    Files that are missing are not an error here: labelling records them, example by example.

    Args:
        path: The file, UTF-8.
        images: The folder that the image paths are relative to.

    Returns:
        The examples, in the order of the file.

    Raises:
        DataError: The file or the folder cannot be read, or lines are bad: up to 20 of them are
            listed with their numbers.
    """
    path = as_path(path)
    images = as_path(images)
    if not os.path.isdir(images):
        raise DataError(f"The images folder {images} does not exist. Check the path.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Examples {path} cannot be read: {error.strerror or error}.") from error
    examples: list[Example] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            example = _read_line(line)
        except DataError as error:
            problems.append(f"line {number}: {error}")
            continue
        before = first_line.setdefault(example.id, number)
        if before != number:
            problems.append(f"line {number}: duplicate id {example.id!r}, first on line {before}.")
        examples.append(example)
    if problems:
        raise DataError(_report(path, problems))
    if not examples:
        raise DataError(f"{path} holds no examples: expected one JSON object a line.")
    return examples


def _read_line(line: bytes) -> Example:
    """Read one line, or say what is wrong with it."""
    try:
        values = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text. Save the file as UTF-8.") from error
    except ValueError as error:
        raise DataError(f"invalid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"expected a JSON object, got {type(values).__name__}.")
    example = Example.from_dict(_fields_of(values))
    climbs = leaves_folder(example.image)
    if climbs:
        raise DataError(
            f"Example {example.id!r}: image {brief(example.image)!r} {climbs}; give a path inside "
            "the images folder."
        )
    return example


def _fields_of(values: dict[str, Any]) -> dict[str, Any]:
    """Take the known fields: ``answer`` becomes ``answers``, ``video`` the image, an int a text."""
    for name in values:
        if name not in _FIELDS | _OTHER_NAMES | RECORDED | {METADATA}:
            raise DataError(
                f"Example {values.get('id', '(no id)')!r}: "
                f"{unknown_name('field', name, _FIELDS | _OTHER_NAMES | {METADATA})} What is not "
                f"used goes into {METADATA!r}."
            )
    known = {name: value for name, value in values.items() if name in _FIELDS}
    if "answer" in values:
        if "answers" in values:
            raise DataError(f"Example {values.get('id')!r}: has both 'answer' and 'answers'.")
        known["answers"] = [values["answer"]]
    if "video" in values:
        known["image"] = _video_of(values)
    identity = known.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool):
        known["id"] = str(identity)
    return known


def _video_of(values: dict[str, Any]) -> object:
    """The ``video`` field, which may stand in place of ``image``."""
    label, video = f"Example {values.get('id')!r}", values["video"]
    if "image" in values:
        raise DataError(f"{label}: has both 'image' and 'video'.")
    if isinstance(video, str) and not is_video(video):
        raise DataError(
            f"{label}: video {video!r} has no known ending of a video, such as .mp4; name "
            "images under 'image'."
        )
    return video


def _report(path: Path, problems: list[str]) -> str:
    """List the first problems, one a line."""
    shown = "\n  ".join(problems[:SHOWN])
    more = len(problems) - SHOWN
    rest = f"\n  ... and {more} more" if more > 0 else ""
    return f"{path}: {len(problems)} bad lines; no example was taken.\n  {shown}{rest}"
