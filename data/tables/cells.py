"""How a cell of a table is read: one way, whatever the file's format and whoever reads it.

Missing is what the file itself marks as missing: an empty cell where there are only texts, null, or
a number that is NaN. No word is: ``None``, ``NA``, ``nan`` and ``null`` are texts like others,
although pandas reads them as missing by default.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

EXACT = 2**53
"""From here on not every whole number is a floating-point number."""

TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""Words that stand for right and wrong, in any case."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")


@dataclass(frozen=True)
class Nested:
    """A cell that is neither text nor number: a list, an object or bytes."""

    value: Any

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if isinstance(self.value, Mapping):
            return f"an object with the fields {', '.join(map(str, self.value)) or '(none)'}"
        if isinstance(self.value, bytes | bytearray | memoryview):
            return f"{len(self.value)} bytes"
        return f"a list of {len(self.value)} values"


Cell = str | Nested | None


def text_of(value: object) -> Cell:
    """Read a typed value as text; missing as None.

    Texts lose outer white space, whole numbers their ``.0``: Excel and pandas write numbers as
    floating-point ones as soon as a cell of their column is empty. For the same reason a date loses
    a time of midnight.

    >>> text_of(" 007 "), text_of(12.0), text_of(0.5), text_of(False), text_of(float("nan"))
    ('007', '12', '0.5', 'False', None)
    >>> text_of(datetime(2024, 1, 2)), text_of(datetime(2024, 1, 2, 10, 30))
    ('2024-01-02', '2024-01-02 10:30:00')
    """
    if isinstance(value, str):
        return value.strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes | bytearray | memoryview | Mapping | list | tuple | np.ndarray):
        return Nested(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return None
        return str(int(number)) if number.is_integer() else str(value)
    if isinstance(value, Decimal):
        if value.is_nan():
            return None
        return str(int(value)) if value.is_finite() and value == int(value) else f"{value:f}"
    if isinstance(value, datetime):
        return str(value).removesuffix(" 00:00:00")
    return str(value).strip()


def number_of(text: str) -> float | None:
    """Read a number written with a decimal point and without separators of thousands.

    >>> number_of("1e3"), number_of("-.5"), number_of("1,5"), number_of("1_000"), number_of("nan")
    (1000.0, -0.5, None, None, None)
    """
    return float(text) if _NUMBER.fullmatch(text) else None


def verdict_of(text: str) -> float | None:
    """Read a number, or a word for right or wrong.

    >>> verdict_of("TRUE"), verdict_of("no"), verdict_of("0.5"), verdict_of("maybe")
    (1.0, 0.0, 0.5, None)
    """
    return TRUTH.get(text.lower(), number_of(text))


def key_of(text: str) -> str:
    r"""Write an identifier as it is compared: without outer white space, composed (NFC).

    >>> key_of(" Cafe\u0301") == "Caf\u00e9"
    True
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text.strip())


def whole_of(text: str) -> str:
    """Write a whole number without ``.0``; any other text as it is.

    >>> whole_of("12.0"), whole_of("012.0"), whole_of("1.10"), whole_of("-0.0")
    ('12', '012.0', '1.10', '0')
    """
    match = _WHOLE.fullmatch(text)
    if match is None:
        return text
    return "0" if match[1] == "-0" else match[1]


def keys_of(cells: Sequence[Cell]) -> list[Cell]:
    """Read a column of identifiers.

    In a column of nothing but numbers whole ones lose their ``.0``, as :func:`text_of` does where
    the file has types: a text file does not tell 12 that was written as ``12.0`` from a text.

    Args:
        cells: The column's cells.

    Returns:
        Identifiers as they are compared, see :func:`key_of`.

    >>> keys_of(["1.0", None, "2.0"]), keys_of(["1.0", "q2"]), keys_of(["007", "1.0"])
    (['1', None, '2'], ['1.0', 'q2'], ['007', '1.0'])
    """
    distinct = dict.fromkeys(cell for cell in cells if isinstance(cell, str))
    texts = {cell: key_of(cell) for cell in distinct}
    if all(_PLAIN.fullmatch(text) for text in texts.values()):
        texts = {cell: whole_of(text) for cell, text in texts.items()}
    changed = {cell: text for cell, text in texts.items() if text != cell}
    if not changed:
        return list(cells)
    return [changed.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
