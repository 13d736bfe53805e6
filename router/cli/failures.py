"""How a command ends that cannot go on: what is said, and with which exit code.

What a user can cause is one message of one to three lines with what to do. Anything else is a
defect of this program, which says so, and how to see where.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.text import Text

from m3router.data.errors import M3RouterError
from m3router.data.registry import unknown_name
from m3router.router.cli.exit_codes import UNREAD, WRONG_USE
from m3router.router.cli.streams import err, write_to_nobody

MENDS = {
    errno.ENOENT: "Check the path.",
    errno.EISDIR: "Give a file, not a folder.",
    errno.ENOTDIR: "Give another place.",
    errno.EACCES: "Give another place, or change who may use this one.",
    errno.EPERM: "Give another place, or change who may use this one.",
    errno.EROFS: "Give another place.",
    errno.ELOOP: "Give another place.",
    errno.ECONNREFUSED: "Start the server, or check its address.",
}
"""What to do about what a system says of a file, added where a message ends with that."""
OPENING = re.compile(
    "(an?|answer|at|every|expected|give|image|it|line|message|model|no|nobody|none|not|nothing|"
    "only|option|question|say|scale|sizes|the|there|these|this|two|unknown|what|while) "
    "(?!does not exist|cannot be|is not a |is a |holds |has )"  # then it is the name of a file
)
"""Words that a message may begin with in small letters, as it stands after a colon elsewhere."""
LINES = 3
"""Lines of a message at most."""
KEPT = {
    "advise": "What is complete is kept",
    "featurize": "The features of the images that are done are kept",
    "fetch": "The images that are there are kept",
    "finetune": "The last saved state is kept",
    "judge": "Every verdict that came is kept",
    "label": "Every answer that came is kept",
    "quickstart": "What is done is kept",
    "study": "Every training that is done is kept",
    "tune": "Every trial that is done is kept",
}
"""Command -> what is kept of its work where it is stopped, so that the same command goes on."""


def show_error(text: str) -> None:
    """Print one message about what went wrong: three lines at most."""
    text = re.sub(r"\[Errno -?\d+\] ", "", text)
    for number, mend in MENDS.items():
        if text.rstrip("). ").endswith(os.strerror(number)):
            text = f"{text.rstrip('. ')}. {mend}"
    begins = OPENING.match(text)
    if begins and not os.path.lexists(begins[1]):  # else it may be a name
        text = text[0].upper() + text[1:]
    first, *others = text.rstrip().splitlines() or ["it failed without a reason"]
    if len(others) >= LINES:
        others = [*others[: LINES - 2], "  and more of the kind"]
    text = "\n".join([first, *others])
    err.print(Text.assemble(("Error: ", "bold red"), (text, "red")))


@contextmanager
def one_message() -> Iterator[None]:
    """Make one message and an exit code of everything that a user can cause.

    Raises:
        Exit: The command cannot go on.
    """
    try:
        yield
    except M3RouterError as error:
        show_error(str(error))
        raise typer.Exit(WRONG_USE) from error
    except BrokenPipeError as error:
        write_to_nobody()
        raise typer.Exit(UNREAD) from error
    except OSError as error:
        if (text := _about_file(error)) is None:
            raise
        show_error(text)
        raise typer.Exit(WRONG_USE) from error
    except MemoryError as error:
        show_error("The memory is full. Close other programs, or give fewer or smaller files.")
        raise typer.Exit(WRONG_USE) from error


def _about_file(error: OSError) -> str | None:
    """What is wrong with a file or disk; None where it is neither's fault."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {os.fsdecode(error.filename)}" if error.filename else ""
        return f"The disk is full{where}. Make room and run the same command again."
    if error.filename is None:  # a pipe that nobody reads, or no fault of a file's
        return None
    return f"{os.fsdecode(error.filename)} cannot be read or written: {reason}."


def show_stopped(command: str | None) -> None:
    """Say after Ctrl-C what is kept and how to go on."""
    kept = KEPT.get(command or "")
    err.print(Text(f"Stopped. {kept}; run the same command to go on." if kept else "Stopped."))


def show_wrong_use(error: Any) -> int:
    """Say what words a command does not take, and where its help is; returns the exit code."""
    context = getattr(error, "ctx", None)
    told = error.format_message().strip()
    if not told:  # a group without a command shows its help
        error.show()
        return int(error.exit_code)
    text = _unknown(error, context) or told.removeprefix("Invalid value: ")
    text = text if text.endswith((".", "?", "!")) else f"{text}."
    show_error(f"{text} Help: {context.command_path if context else 'm3router'} --help")
    return WRONG_USE


def _unknown(error: Any, context: Any) -> str | None:
    """Of a command or option that there is not, the nearest and the known ones."""
    if context is None:
        return None
    if option := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
        known = {
            one
            for parameter in context.command.get_params(context)
            for one in (*parameter.opts, *parameter.secondary_opts)
            if one.startswith("--")
        }
        return unknown_name(f"option of {context.command_path}", option, known)
    if command := re.match(r"No such command '(.*?)'\.", error.format_message()):
        return unknown_name("command", command[1], context.command.commands)
    return None


def show_defect(error: Exception) -> None:
    """Say that it is a defect of this program, and how to see where.

    Raises:
        Exception: The error itself where `--verbose` asked for more.
    """
    if logging.getLogger().isEnabledFor(logging.INFO):
        raise error
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    show_error(
        f"Something that this program did not foresee: {kind}{text and ': '}{text}\n"
        "This is a defect of m3router. `m3router --verbose COMMAND ...` shows where; please report "
        "it with that."
    )
