"""Whether a cell of a table names an image file; what else people put there is said in words.

Images themselves (bytes, base64, data URLs), lists of images and addresses are not paths. A log
names files, so they are refused at import, not when no file of such a name is found.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from m3router.data.tables.cells import Cell, Nested

LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Most bytes of a file's or folder's name, and of a path, that common file systems take."""

_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*[;,]", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OBJECT = re.compile(r"<.+>|(?:array|tensor)\(.*\)", re.DOTALL | re.IGNORECASE)
_BYTES = re.compile(r"""b(['"]).*\1""", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_HEAD = 32
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")
_FILE = "Write the images to files and name these"


def image_path(cell: Cell) -> tuple[str, str]:
    """Read the path of an image from a cell.

    An object of a path and no bytes, as the ``datasets`` library writes images that it did not
    embed, is its path.

    Args:
        cell: What the table holds.

    Returns:
        The path, empty where the cell is; and why it is none, in words, empty where it is one.

    >>> image_path("a/b.png")
    ('a/b.png', '')
    >>> image_path("data:image/png;base64,iVBORw0KGgo=")[1]
    'holds a data URL. Write the images to files and name these'
    """
    if cell is None:
        return "", ""
    if isinstance(cell, Nested):
        return _nested_path(cell)
    return cell, _text_problem(cell)


def _nested_path(cell: Nested) -> tuple[str, str]:
    value = cell.value
    if isinstance(value, Mapping) and {"path"} <= set(value) <= {"path", "bytes"}:
        path = value["path"]
        if not value.get("bytes"):
            return ("", "") if path is None else (str(path), _text_problem(str(path)))
        return "", f"holds an image itself ({len(value['bytes'])} bytes). {_FILE}"
    if isinstance(value, Mapping):
        return "", f"holds {cell.kind}. Name one file"
    if isinstance(value, bytes | bytearray | memoryview):
        return "", f"holds {cell.kind}. {_FILE}"
    return "", f"holds {cell.kind}. Name one file"


def _text_problem(text: str) -> str:
    """Say why a text is not a path."""
    if "\0" in text:
        return "holds a NUL character, which no path can"
    if _DATA_URL.match(text):
        return f"holds a data URL. {_FILE}"
    if _ADDRESS.match(text):
        return "holds an address. Download the images and name the files"
    if text[:1] + text[-1:] in ("[]", "{}"):
        return "holds a list or object written as text. Name one file"
    if _OBJECT.fullmatch(text):
        return f"holds an object of Python's written as text. {_FILE}"
    if _BYTES.fullmatch(text):
        return f"holds bytes written as text. {_FILE}"
    if is_base64(text):
        return f"holds an image in base64. {_FILE}"
    if _too_long(text):
        return (
            f"has a name of {len(text.encode(errors='replace'))} bytes; a file's name has at most "
            f"{LONGEST_NAME} and a path {LONGEST_PATH}"
        )
    return ""


def _too_long(text: str) -> bool:
    size = len(text.encode(errors="replace"))
    if size <= LONGEST_NAME:
        return False
    names = re.split(r"[/\\]", text)
    return size > LONGEST_PATH or any(
        len(name.encode(errors="replace")) > LONGEST_NAME for name in names
    )


def is_base64(text: str) -> bool:
    """Whether a text is base64 of an image file: its letters alone, and what it begins with.

    >>> is_base64("iVBORw0KGgoAAAANSUhEUgAA"), is_base64("photos/cat")
    (True, False)
    """
    if "." in text[-8:]:  # has an ending
        return False
    bare = "".join(text.split())
    if _BASE64.fullmatch(bare) is None:
        return False
    head = base64.b64decode(
        bare[:_HEAD].ljust(_HEAD, "="), altchars=b"-_" if "-" in bare or "_" in bare else b"+/"
    )
    # "BM" alone is a weak sign: a folder's name may decode to it.
    strong = head.startswith(_STARTS[:-1]) or head[4:8] == b"ftyp"
    return strong or (head.startswith(_STARTS[-1]) and len(bare) > LONGEST_NAME)
