"""How the values of options and arguments are read: what is refused, and in which words.

Typer takes `nan` for a number, "" for the present folder and the last of two values of one option,
and speaks of a "valid float". All of it is changed where the commands are loaded, so that no
command has to think of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from m3router.data.registry import unknown_name

USAGE_ERROR: Any = typer.BadParameter.__base__
"""Typer's error for words that a command does not take; it has no public name."""
_KIND = re.compile(r"valid (?P<kind>float|number|integer)")
_CHOICE = re.compile(r"is not one of (?P<known>'.*')", re.DOTALL)
_RANGE = re.compile(r"Input should be (?P<rule>.*)")


def read_strictly(command: Any) -> None:
    """Let no parameter of a command, and of its subcommands, be a number without end or no path.

    An option that takes one value is not taken twice either: the last one would win unseen.
    """
    for one in _commands(command):
        one.make_parser = _once(one.make_parser)
        for parameter in one.params:
            parameter.process_value = _checked(parameter, parameter.process_value)


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from _commands(one)


def _once(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What makes a command's parser, one that refuses what is given twice and counts once."""

    def made(context: Any) -> Any:
        parser = make(context)
        parse = parser.parse_args

        def parsed(*args: Any, **extra: Any) -> Any:
            values, others, order = parse(*args, **extra)
            for parameter in () if context.resilient_parsing else order:
                if order.count(parameter) > 1 and _takes_one(parameter):
                    told = f"{_named(parameter)} is given more than once and counts once; give one"
                    raise USAGE_ERROR(told, ctx=context)
            return values, others, order

        parser.parse_args = parsed
        return parser

    return made


def _takes_one(parameter: Any) -> bool:
    """Whether giving an option again changes what was given, as a mere flag does not."""
    if parameter.param_type_name != "option" or parameter.multiple or parameter.count:
        return False
    return bool(parameter.secondary_opts) or not parameter.is_flag


def _checked(parameter: Any, process: Any) -> Any:
    """What reads a parameter's value, as typer does but for what is refused here."""
    option = _named(parameter)

    def processed(context: Any, value: Any) -> Any:
        given = list(value) if isinstance(value, list | tuple) else [value]
        try:
            found = process(context, value)
        except typer.BadParameter as error:
            told = in_plain_words(option, [str(one) for one in given], str(error.message))
            if told is None:
                raise
            raise USAGE_ERROR(told, ctx=context) from None
        for raw, one in zip(given, found if isinstance(found, list) else [found], strict=False):
            if isinstance(one, float) and not math.isfinite(one):
                raise USAGE_ERROR(f"{option} must be a finite number, not {raw}", ctx=context)
            if isinstance(one, Path) and raw == "":  # as of a variable that is not set
                told = f"{option} is empty; the present folder is written as ."
                raise USAGE_ERROR(told, ctx=context)
        return found

    return processed


def _named(parameter: Any) -> str:
    """`--budget`, or the name of an argument in capitals."""
    option: str = parameter.opts[0]
    return option if option.startswith("-") else option.upper()


def in_plain_words(option: str, given: list[str], told: str) -> str | None:
    """What typer says of a value, with what to write instead; None where it is well said.

    >>> in_plain_words("--budget", ["1,5"], "'1,5' is not a valid float.")
    "--budget: '1,5' is not a number; write 1.5"
    >>> in_plain_words("--gaps", ["dorp"], "'dorp' is not one of 'error', 'drop'.")
    "--gaps: Unknown value 'dorp'. Did you mean 'drop'? Known: drop, error."
    """
    if found := _CHOICE.search(told):
        known = re.findall(r"'(.*?)'", found["known"])
        wrong = next((one for one in given if one not in known), given[0])
        return f"{option}: {unknown_name('value', wrong, known)}"
    if found := _KIND.search(told):
        whole = found["kind"] == "integer"
        wrong = next((one for one in given if not _is_number(one, whole=whole)), given[0])
        what = "a whole number" if whole else "a number"
        return f"{option}: {wrong!r} is not {what}{_instead(wrong.strip(), whole=whole)}"
    if found := _RANGE.search(told):
        return f"{option} must be {found['rule'].rstrip('.')}, not {', '.join(given)}"
    return None


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        return math.isfinite(int(text) if whole else float(text))
    except ValueError:
        return False


def _instead(value: str, *, whole: bool) -> str:
    """What was perhaps meant by a text that is no number."""
    plain = value.rstrip("%").rstrip().replace(",", ".", 1)
    if not _is_number(plain, whole=False):
        return ", such as 8" if whole else ", such as 64 or 0.5"
    return f"; write {float(plain):.0f}" if whole else f"; write {plain}"
