"""What a receipt's lines say about its four key fields: rules, the same at every image size.

They were written and settled on the receipts of the fit and tune splits (seed 0); none was chosen
by receipts that are calibrated or tested on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

NOT_FOUND = "not found"
COMPANY_LETTERS = 10
ADDRESS_LETTERS = 8
"""So many letters and digits of a name must be read; where its end is, annotators disagree."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A piece of text that a reader found in an image.

    Attributes:
        text: What it read.
        confidence: How sure it is, in [0, 1].
        left: Smallest x of its box, pixels.
        top: Smallest y.
        bottom: Largest y.
    """

    text: str
    confidence: float
    left: float
    top: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """A field's value, in the form that it is compared in.

    Attributes:
        text: The value, or :data:`NOT_FOUND`.
        confidence: That of the line that it was read from; 0 where nothing was found.
    """

    text: str
    confidence: float


Rows = Sequence[Sequence[Line]]
"""Lines side by side, from left to right; rows from top to bottom."""


def rows_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Put lines that stand side by side in one row: the middle of one is inside of the other."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.top + line.bottom):
        last = rows[-1][-1] if rows else None
        if last and (line.top + line.bottom) / 2 < last.bottom - 0.25 * (last.bottom - last.top):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]


# What is found -----------------------------------------------------------------------------------


def find_total(rows: Rows) -> Found:
    """The amount of the last row that names a total which is no part of it; else the largest."""
    named: list[Found] = []
    every: list[Found] = []
    for place, row in enumerate(rows):
        text = _joined(row)
        if _SUMMARY.search(text):
            break
        every.extend(_amounts(row))
        if _TOTAL.search(text) and not _NO_TOTAL.search(text):
            here = _amounts(row) or _amounts(rows[place + 1] if place + 1 < len(rows) else ())
            named.extend(here[-1:])
    if named:
        return named[-1]
    return max(every, key=lambda found: float(found.text), default=_NOTHING)


def find_date(rows: Rows) -> Found:
    """The first thing that looks like a date."""
    for line in _lines(rows):
        date = date_of(line.text)
        if date is not None:
            return Found(text=date, confidence=line.confidence)
    return _NOTHING


def find_company(rows: Rows) -> Found:
    """The first of the upper lines that says what kind of company it is; else the first one."""
    top = [line for line in _lines(rows) if len(beginning(line.text, 4)) == 4][:UPPER_LINES]
    named = [line for line in top if _COMPANY.search(line.text)]
    return _begins((named or top)[:1], COMPANY_LETTERS)


def find_address(rows: Rows) -> Found:
    """The first line below the company that begins like an address; else one that names a street."""
    lines = list(_lines(rows))[: 3 * UPPER_LINES]
    begins = [line for line in lines if _ADDRESS.match(line.text)]
    street = [line for line in lines if _STREET.search(line.text)]
    return _begins((begins or street)[:1], ADDRESS_LETTERS)


FIELDS: Mapping[str, Callable[[Rows], Found]] = {
    "total": find_total,
    "date": find_date,
    "company": find_company,
    "address": find_address,
}
"""Field -> the rule that finds it."""

UPPER_LINES = 6
_NOTHING = Found(text=NOT_FOUND, confidence=0.0)
_TOTAL = re.compile(r"t[o0]ta[l1i]|amount\s?due|jumlah", re.IGNORECASE)
_NO_TOTAL = re.compile(
    r"sub|qty|quantity|item|saving|disc|excl|exclud|tax\s?total|total\s?(gst|tax)|point", re.IGNORECASE
)
_SUMMARY = re.compile(r"gst\s?summary|tax\s?summary|gst\s?analysis", re.IGNORECASE)
_COMPANY = re.compile(
    r"bhd|s/b|enterprise|trading|restoran|restaurant|hardware|stationery|mart\b|kedai|perniagaan"
    r"|syarikat|shop|cafe|company|co\.", re.IGNORECASE
)
_ADDRESS = re.compile(r"\s*(lot|no\b|no[.,:]?\s?\d|\d+\w?[-&,. /]|level|unit|ground|blok|block|pt)", re.I)
_STREET = re.compile(r"jalan|jln|taman|lorong|persiaran", re.IGNORECASE)


def _joined(row: Sequence[Line]) -> str:
    return " ".join(line.text for line in row)


def _lines(rows: Rows) -> Iterator[Line]:
    return (line for row in rows for line in row)


def _amounts(row: Sequence[Line]) -> list[Found]:
    found = ((amount_of(line.text), line.confidence) for line in row)
    return [Found(text=text, confidence=sure) for text, sure in found if text is not None]


def _begins(lines: Sequence[Line], letters: int) -> Found:
    found = [Found(text=beginning(one.text, letters), confidence=one.confidence) for one in lines]
    return next((one for one in found if one.text), _NOTHING)


# What is compared ---------------------------------------------------------------------------------


def amount_of(text: str) -> str | None:
    """The last amount with two decimals in a text, such as ``"1234.50"``."""
    found = _AMOUNT.findall(text.translate(_DIGITS))
    if not found:
        return None
    whole, cents = found[-1]
    return f"{int(re.sub(r'[ ,]', '', whole))}.{cents}"


def date_of(text: str) -> str | None:
    """The first date in a text as ``YYYY-MM-DD``; the day stands first where both are possible."""
    for match in _DATE.finditer(text):
        one, two, three = (part for part in match.groups() if part is not None)
        if len(one) == 4:
            year, month, day = one, two, three
        else:
            day, month, year = one, two, three
        first, second = int(day), _MONTHS.get(month[:3].upper()) or int(month)
        if second > 12 >= first:
            first, second = second, first
        if 1 <= second <= 12 and 1 <= first <= 31:
            return f"{year if len(year) == 4 else '20' + year}-{second:02d}-{first:02d}"
    return None


def beginning(text: str, letters: int) -> str:
    """The first letters and digits of a text, in small letters; 0 is o, 1 and i are l."""
    return re.sub(r"[^a-z0-9]", "", text.lower().translate(_ALIKE))[:letters]


_DIGITS = str.maketrans({"O": "0", "o": "0"})
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l"})
_AMOUNT = re.compile(r"(?<![\d.])(\d{1,3}(?:[ ,]\d{3})+|\d{1,6})\s?[.,]\s?(\d{2})(?!\d|[.,/]\d)")
_DATE = re.compile(
    r"(?<!\d)(20\d\d|\d{1,2})\s?(?:[-/.]\s?(\d{1,2})\s?[-/.]|[-/., ]?\s?"
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/., ]?)\s?"
    r"(20\d\d|\d{2})(?:(?=\d{1,2}:\d\d)|(?!\d))|(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)",
    re.IGNORECASE,
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1
    )
}
