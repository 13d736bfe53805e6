r"""JSON that somebody may have damaged, edited or made to harm: read strictly, or refused.

Python's own reader takes more than JSON: ``NaN``, numbers that become infinite (``1e999``), an
object's last of two equal names, half of a surrogate pair (which nothing can print or write), and
whole numbers so long that only an error of another kind stops them. All of these are refused here,
as is nesting deeper than anything that is written by this project or read from others.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.plain_files import read_bytes

MOST_DEPTH = 100
"""Lists and objects within each other; Python's own functions for JSON give up at some 300."""
MOST_DIGITS = 300
"""Of a whole number; any of so many still is a finite floating-point number."""

UNFIT: tuple[type[Exception], ...] = (
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ValueError,
    ArithmeticError,
)
"""What Python raises where a value is missing, or of another kind than is needed."""

_log = logging.getLogger(__name__)
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 24


def parse_json(content: bytes | str, *, nan: bool = False) -> Any:
    r"""Read a JSON text.

    Args:
        content: UTF-8 without a byte-order mark, or a text.
        nan: Take ``NaN`` and ``Infinity``, which Python's and other tools write; their readers
            here know what to make of a cell without a number.

    Returns:
        What it says: all other numbers finite, all texts Unicode, all names of an object
        different, at most :data:`MOST_DEPTH` deep.

    Raises:
        ValueError: It is not such a text; the message says what is wrong and where.

    >>> parse_json(b'{"cost": 1e999}')
    Traceback (most recent call last):
    ValueError: the number 1e999 is too large
    """
    text = _decoded(content) if isinstance(content, bytes) else content
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte-order mark; save it as UTF-8 without one")
    try:
        values = json.loads(
            text,
            object_pairs_hook=once,
            parse_constant=float if nan else _no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    if text.count("[") + text.count("{") > MOST_DEPTH:
        _check_depth(values)
    if _HALF_PAIR.search(text):
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "it holds half of a surrogate pair, which is not a character"
            ) from None
    return values


def read_json(path: Path, *, redo: str) -> Any:
    """Read a JSON file; see :func:`parse_json` for what it may hold.

    Args:
        path: A plain file.
        redo: What to do where it is damaged, a sentence: "Run the stage again."

    Raises:
        DataError: It cannot be read, or is not strict JSON; the message names file, fault and
            remedy.
    """
    content = read_bytes(path)
    try:
        return parse_json(content)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). {redo}") from error


def read_json_object(path: Path, *, redo: str) -> dict[str, Any]:
    """Read a JSON file that holds an object; see :func:`read_json`.

    Raises:
        DataError: As there, or it holds something else.
    """
    values = read_json(path, redo=redo)
    if not isinstance(values, dict):
        raise DataError(
            f"{path} must hold a JSON object, found {type(values).__name__}. It is damaged. {redo}"
        )
    return values


@contextmanager
def values_of(path: Path, *, redo: str, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Within it the values of a file are used: where they do not fit, the file is damaged.

    For a file that a stage wrote, whose values need no check of their own as its hash was checked.
    With ``-v`` the log says where they did not fit: it may be a fault of this program.

    Args:
        path: The file.
        redo: What to do where it is damaged, a sentence.
        also: Exceptions beside `UNFIT` that say so.

    Raises:
        DataError: They do not fit; the message names the file.
    """
    try:
        yield
    except UNFIT + also as error:
        raise DataError(unfit(path, error, redo=redo)) from error


def unfit(path: Path, error: Exception, *, redo: str) -> str:
    """Word that the values of a file do not fit, and log where; see :func:`values_of`."""
    _log.info("%s does not fit", path, exc_info=error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    cause = "".join(one if one.isprintable() else " " for one in what)
    return f"{path} is damaged: its values do not fit ({_brief(cause, 120)}). {redo}"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its fields (a hook of :func:`json.loads`).

    Raises:
        ValueError: A field is there twice, of which JSON readers silently take the last.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"an object has the field {names.most_common(1)[0][0]!r} twice")
    return values


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} is 0x{content[error.start]:02X}, which is not UTF-8"
        ) from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {_brief(digits)} is too large")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(
            f"the whole number {_brief(digits)} has {len(digits)} digits, {MOST_DIGITS} at most"
        )
    return int(digits)


def _brief(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _check_depth(values: Any) -> None:
    """Look at one level after the other, so that no stack grows with them."""
    level, depth = [values], 0
    while level:
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [one for one in value.values() if isinstance(one, dict | list)]
            elif isinstance(value, list):
                inner += [one for one in value if isinstance(one, dict | list)]
        level, depth = inner, depth + 1
        if level and depth >= MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")
