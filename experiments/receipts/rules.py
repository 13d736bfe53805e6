"""What a receipt's lines say about its four key fields: rules, the same at every image size.

They were written and settled on the receipts of the fit and tune splits (seed 0); none was chosen
by receipts that are calibrated or tested on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

NOT_FOUND = "not found"
LEAST_LOGPROB = -100.0
"""Log-probability of an answer that was not found."""
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
        line: Where it was read; None where nothing was found.
    """

    text: str
    line: Line | None

    @property
    def confidence(self) -> float:
        """How sure the reader is of the line, in [0, 1]; 0 where nothing was found."""
        return 0.0 if self.line is None else self.line.confidence

    @property
    def logprob(self) -> float:
        """Natural logarithm of the line's probability, were each character as sure as the mean."""
        if self.line is None:
            return LEAST_LOGPROB
        return max(LEAST_LOGPROB, len(self.line.text) * math.log(max(self.confidence, 1e-9)))


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
    """The amount of the last row that names a total which is no part of it; else the largest.

    What was paid and given back is not looked at; nor is what stands below a summary of taxes.
    """
    named: list[Found] = []
    every: list[Found] = []
    expected = False  # whether the row above named a total and had no amount
    for row in rows:
        text = _joined(row)
        if _SUMMARY.search(text):
            break
        amounts = [] if _PAID.search(text) else _amounts(row)
        every.extend(amounts)
        is_total = bool(_TOTAL.search(text)) and not _NO_TOTAL.search(text)
        if expected or is_total:
            named.extend(amounts[-1:])
        expected = is_total and not amounts
    if named:
        return named[-1]
    return max(every, key=lambda found: float(found.text), default=_NOTHING)


def find_date(rows: Rows) -> Found:
    """The first thing that looks like a date."""
    for line in _lines(rows):
        date = date_of(line.text)
        if date is not None:
            return Found(text=date, line=line)
    return _NOTHING


def find_company(rows: Rows) -> Found:
    """The first of the upper lines that is mostly letters, and not about something else."""
    lines = list(_lines(rows))
    place = _company_place(lines)
    return _NOTHING if place is None else _begins(lines[place:], COMPANY_LETTERS)


def find_address(rows: Rows) -> Found:
    """The first line below the company that begins like an address; else one with a street."""
    lines = list(_lines(rows))
    start = _company_place(lines)
    lines = lines[0 if start is None else start + 1 :]
    lines = [line for line in lines if _letters(line.text) >= LEAST_LETTERS]
    for pattern in (_ADDRESS, _STREET):
        for place, line in enumerate(lines[: 2 * UPPER_LINES]):
            if pattern.search(line.text):
                return _begins(lines[place:], ADDRESS_LETTERS)
    return _NOTHING


FIELDS: Mapping[str, Callable[[Rows], Found]] = {
    "total": find_total,
    "date": find_date,
    "company": find_company,
    "address": find_address,
}
"""Field -> the rule that finds it."""

UPPER_LINES = 6
LEAST_LETTERS = 4
_NOTHING = Found(text=NOT_FOUND, line=None)
_TOTAL = re.compile(r"t[o0]ta[l1i]|amount\s?due|jumlah", re.IGNORECASE)
_NO_TOTAL = re.compile(
    r"sub|qty|quantity|item|saving|disc|exc[l1]|includes|tax\s?total|total\s?(gst|tax)|point",
    re.IGNORECASE,
)
_PAID = re.compile(r"cash|tender|change|paid|payment|balance", re.IGNORECASE)
_SUMMARY = re.compile(r"(gst|tax)\s?(summary|analysis)", re.IGNORECASE)
_NO_NAME = re.compile(
    r"invoice|receipt|gst|tax|tel\b|tel:|reg\b|date|www|licensee|welcome|shopping", re.IGNORECASE
)
_ADDRESS = re.compile(
    r"^\W*(lot|no\b|no[.,:]?\s?\d|[a-z]?-?\d+\w{0,2}[-&,./ ]"
    r"|leve[l1]|unit|ground|b[l1]o[ck]k|pt\b)",
    re.IGNORECASE,
)
_STREET = re.compile(r"ja[l1]an|j[l1]n|taman|lorong|persiaran", re.IGNORECASE)


def _joined(row: Sequence[Line]) -> str:
    return " ".join(line.text for line in row)


def _lines(rows: Rows) -> Iterator[Line]:
    return (line for row in rows for line in row)


def _amounts(row: Sequence[Line]) -> list[Found]:
    found = ((amount_of(line.text), line) for line in row)
    return [Found(text=text, line=line) for text, line in found if text is not None]


def _letters(text: str) -> int:
    return sum(character.isalpha() and character.isascii() for character in text)


def _mostly_letters(text: str) -> bool:
    return _letters(text) >= max(LEAST_LETTERS, sum(one.isalnum() for one in text) / 2)


def _company_place(lines: Sequence[Line]) -> int | None:
    for place, line in enumerate(lines[:UPPER_LINES]):
        if _mostly_letters(line.text) and not _NO_NAME.search(line.text):
            return place
    return None


def _begins(lines: Sequence[Line], letters: int) -> Found:
    """How the first line begins; the next one goes on where that is short."""
    text = beginning(" ".join(line.text for line in lines[:2]), letters)
    return Found(text=text or NOT_FOUND, line=lines[0])


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
