"""Numbers, shares and intervals as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

MISSING = "–"
_UNITS = ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s"))
"""Seconds of a unit, and of the one that is said with it; their names."""


def number(value: float | None, *, digits: int = 3) -> str:
    """A number with few digits: 576, 36.4, 0.0123.

    >>> number(576.0), number(36.42), number(0.01234), number(1234567.0), number(None)
    ('576', '36.4', '0.0123', '1,234,567', '–')
    >>> number(149.6, digits=2), number(0.00001523), number(9.96, digits=2)
    ('150', '0.0000152', '10')
    """
    if value is None:
        return MISSING
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{Decimal(text):f}" if "e" in text else text


def plain(value: float) -> str:
    """A number as it was given, such as a budget: six digits.

    >>> plain(12.5), plain(1e6), plain(0.95)
    ('12.5', '1,000,000', '0.95')
    """
    return number(value, digits=6)


def percent(value: float | None, *, signed: bool = False, digits: int = 1) -> str:
    """A share in [0, 1] in per cent, or a difference of shares in points.

    >>> percent(0.8456), percent(-0.012, signed=True), percent(-1e-9, signed=True), percent(None)
    ('84.6', '-1.2', '+0.0', '–')
    """
    if value is None:
        return MISSING
    return f"{100 * value:+z.{digits}f}" if signed else f"{100 * value:z.{digits}f}"


def interval(estimate: Mapping[str, float | None], *, signed: bool = False, digits: int = 1) -> str:
    """The ends of an interval, in per cent or points.

    >>> interval({"value": 0.5, "low": 0.42, "high": 0.61})
    '42.0 to 61.0'
    >>> interval({"value": 0.5, "low": None, "high": None})
    '–'
    """
    low, high = estimate["low"], estimate["high"]
    if low is None and high is None:
        return MISSING
    ends = (percent(end, signed=signed, digits=digits) for end in (low, high))
    return " to ".join(ends)


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> [duration(one) for one in (0.0004, 0.15, 1.5, 59.96, 130, 3720, 90000)]
    ['0.4 ms', '150 ms', '1.5 s', '1 min', '2 min 10 s', '1 h 2 min', '1 d 1 h']
    """
    if round(seconds, 1) < 60:
        if seconds >= 0.9995:
            return f"{seconds:.1f} s"
        return f"{number(1000 * seconds, digits=2)} ms"
    whole = round(seconds)
    for large, small, name, rest in _UNITS:
        if whole >= large:
            more = whole % large // small
            return f"{whole // large} {name}" + (f" {more} {rest}" if more else "")
    return f"{whole} s"


def count(many: int, one: str, several: str | None = None) -> str:
    """How many there are of something: the right one of its two forms, thousands set apart.

    >>> count(1, "image"), count(12300, "image"), count(2, "study", "studies")
    ('1 image', '12,300 images', '2 studies')
    """
    return f"{many:,} {one if many == 1 else several or f'{one}s'}"


def round_up(value: float) -> int:
    """A number of two digits that is not below.

    >>> round_up(1495.0), round_up(295.0), round_up(20.0)
    (1500, 300, 20)
    """
    unit = 10 ** max(len(str(math.ceil(value))) - 2, 0)
    return math.ceil(value / unit) * unit
