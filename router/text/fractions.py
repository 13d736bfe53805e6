"""Fractions, written the same way in every option: `1%` or `0.01`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import typer

from m3router.data.errors import DataError

METAVAR = "FRACTION"


def fraction(text: str | float) -> float:
    """A fraction from 0 to 1.

    A bare 1 is refused: it may mean one per cent or all.

    >>> fraction("1%"), fraction("0.01"), fraction("100%"), fraction("0")
    (0.01, 0.01, 1.0, 0.0)

    Args:
        text: As typed; a number is an option's default and stays as it is.

    Raises:
        BadParameter: If it is not a number, has no clear unit, or is not from 0 to 1.
    """
    value = signed_fraction(text)
    if value < 0:
        raise typer.BadParameter(f"{text!r} is below 0")
    return value


def signed_fraction(text: str | float) -> float:
    """A fraction from -1 to 1, such as a change of accuracy.

    >>> signed_fraction("-0.5%")
    -0.005
    """
    if not isinstance(text, str):
        return text
    number = text.strip().removesuffix("%").rstrip()
    percent = text.rstrip().endswith("%")
    try:
        value = Decimal(number)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise typer.BadParameter(f"{text!r} is not a fraction; write it as 1% or 0.01")
    if value.copy_abs() > 100:
        raise typer.BadParameter(f"{text!r} is more than 100%")
    if percent:
        value = value.scaleb(-2)  # exact, so that 0.2% is the same float as 0.002
    elif abs(value) >= 1:
        hint = f"{number}% or {value.scaleb(-2).normalize():f}"
        everything = ", and 100% for all" if abs(value) == 1 else ""
        raise typer.BadParameter(
            f"{text!r} is not clear as a fraction: for per cent write {hint}{everything}"
        )
    if abs(value) > 1:
        raise typer.BadParameter(f"{text!r} is more than 100%")
    return float(value) or 0.0  # never -0.0


def check_within(flag: str, value: float | None, *, such: str) -> None:
    """Refuse a share that is nothing or all.

    Args:
        flag: What it was given by.
        value: The share, as a fraction; None where it was not given.
        such: One that would do, as it is written.

    Raises:
        DataError: If it is not between 0 and 1.
    """
    if value is not None and not 0 < value < 1:
        raise DataError(
            f"{flag} must lie between 0 % and 100 %, such as {such}; it is {100 * value:g} %."
        )
