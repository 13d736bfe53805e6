"""Writes docs/cli.md from the commands' own help: `python -m m3router.router.cli.docs [--check]`.

Read from the commands themselves rather than from printed help, so that the page does not depend
on the width of a terminal.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from m3router.router.cli.main import app
from m3router.router.cli.streams import out

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def markdown() -> str:
    """The page."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Written by `make docs` from the commands' own help; `make lint` fails when it is stale.",
        _clean(group.help),
        "Exit codes: 0 when all went well, 1 for a defect of the program or a `check` that found "
        "something wrong, 2 for what cannot be done as it was asked for (one message says what to "
        "do), 3 when it is done but some items could not be used, 4 and 5 as `monitor` says, 130 "
        "after Ctrl-C. [Troubleshooting](troubleshooting.md) has the messages.",
    ]
    for name, listed in group.commands.items():
        parts += _sections(f"m3router {name}", listed.load(), level=2)
    return "\n\n".join(parts) + "\n"


def _sections(path: str, command: Any, *, level: int) -> list[str]:
    """What a command does and takes, and the same of its subcommands."""
    parts = [f"{'#' * level} {path}", _clean(command.help)]
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return [*parts, _parameters(command)]
    for name, one in subcommands.items():
        parts += _sections(f"{path} {name}", one, level=level + 1)
    return parts


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` only say whether it is fresh."""
    text = markdown()
    if arguments == ["--check"]:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        if not fresh:
            out.print("docs/cli.md is stale: run `make docs` and commit it.")
        return 0 if fresh else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    out.print(f"written: {PAGE.name}")
    return 0


def _clean(text: str | None) -> str:
    return inspect.cleandoc(text or "")


def _parameters(command: Any) -> str:
    """A table of what a command takes, or one for each heading of its help."""
    tables: dict[str, list[str]] = {}
    for parameter in command.params:
        if parameter.name == "help":
            continue
        is_option = parameter.param_type_name == "option"
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
        shown = f"`{name}`" if is_option else f"`{parameter.name.upper()}`"
        text = (parameter.help or "").replace("|", "\\|")
        heading = getattr(parameter, "rich_help_panel", None) or ""
        lines = tables.setdefault(heading, ["| option | what it is | default |", "|---|---|---|"])
        lines.append(f"| {shown} | {text} | {_default(parameter)} |")
    return "\n\n".join(
        (f"**{heading}**\n\n" if heading else "") + "\n".join(lines)
        for heading, lines in sorted(tables.items(), key=lambda one: one[0] != "")
    )


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default == []:
        return ""
    return "on" if default is True else f"`{getattr(default, 'value', default)}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
