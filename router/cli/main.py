"""The program `m3router`."""

from __future__ import annotations

import ast
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from m3router.data.progress import silence
from m3router.router.cli.exit_codes import DEFECT, STOPPED
from m3router.router.cli.failures import (
    one_message,
    show_defect,
    show_stopped,
    show_wrong_use,
)
from m3router.router.cli.renamed import refuse_renamed
from m3router.router.cli.streams import out
from m3router.router.cli.values import USAGE_ERROR, read_strictly
from m3router.router.serve.logs import LogFormat, start_logging
from m3router.router.version import PACKAGE, __version__

COMMANDS: dict[str, str] = {
    "fetch": "m3router.router.cli.fetch:fetch",
    "label": "m3router.router.cli.label:label",
    "judge": "m3router.router.cli.judge:judge",
    "import": "m3router.router.cli.import_:app",
    "advise": "m3router.router.cli.advise:advise",
    "inspect": "m3router.router.cli.inspect:inspect",
    "featurize": "m3router.router.cli.featurize:featurize",
    "tune": "m3router.router.cli.tune:tune",
    "train": "m3router.router.cli.train:train",
    "calibrate": "m3router.router.cli.calibrate:calibrate",
    "evaluate": "m3router.router.cli.evaluate:evaluate",
    "report": "m3router.router.cli.report:report",
    "monitor": "m3router.router.cli.monitor:monitor",
    "traffic": "m3router.router.cli.traffic:app",
    "compare": "m3router.router.cli.compare:compare",
    "study": "m3router.router.cli.study:app",
    "export": "m3router.router.cli.export:export",
    "push": "m3router.router.cli.push:push",
    "route": "m3router.router.cli.route:route",
    "ask": "m3router.router.cli.ask:ask",
    "look": "m3router.router.cli.look:look",
    "serve": "m3router.router.cli.serve:serve",
    "demo": "m3router.router.cli.demo:demo",
    "quickstart": "m3router.router.cli.quickstart:quickstart",
    "check": "m3router.router.cli.check:check",
    "keys": "m3router.router.cli.keys:app",
    "finetune": "m3router.router.cli.finetune:finetune",
    "convert": "m3router.router.cli.convert:convert",
    "cost": "m3router.router.cli.cost:cost",
}
"""Name -> "module:function", or "module:app" for a group of subcommands; in the order of use."""


class LazyCommand(TyperCommand):
    """A command whose module is imported when it is called, not when it is listed."""

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name)
        self.target = target

    def make_context(
        self, info_name: str | None, args: Sequence[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The context of the real command."""
        if not extra.get("resilient_parsing"):  # as it is while a shell completes
            refuse_renamed(str(self.name), args)
        return self.load().make_context(info_name, list(args), parent=parent, **extra)

    def load(self) -> Any:
        """The real command."""
        module, _, attribute = self.target.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function = found
            found = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            found.command(self.name)(function)
        command = typer.main.get_command(found)
        command.name = self.name
        read_strictly(command)
        return command


def _summary(target: str) -> str:
    """The first line of a function's docstring, or of a group's module; nothing is run."""
    module, _, attribute = target.partition(":")
    source = find_spec(module).loader.get_source(module)  # type: ignore[union-attr]
    tree = ast.parse(source or "")
    functions = (one for one in tree.body if isinstance(one, ast.FunctionDef))
    found = next((one for one in functions if one.name == attribute), tree)
    return (ast.get_docstring(found) or "").partition("\n")[0]


class _Group(TyperGroup):
    """Shows this project's errors as one message, without a traceback."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: LazyCommand(name, target) for name, target in COMMANDS.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what stops it is one message and an exit code."""
        with one_message():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                show_stopped(ctx.invoked_subcommand)
                raise typer.Exit(STOPPED) from None

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the program; words that it does not take are one message too."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal may not have all our letters
                stream.reconfigure(errors="backslashreplace")
        extra["standalone_mode"] = False  # what ends it is told here, not by typer
        if not standalone_mode:
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **extra)
        except USAGE_ERROR as error:
            code = show_wrong_use(error)
        sys.exit(code or 0)

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of use; from here on each has its summary."""
        for name, target in COMMANDS.items():
            self.commands[name].short_help = _summary(target)
        return list(self.commands)


class _Program(typer.Typer):
    """Says of a defect that it is one, in one message: the edge of the program."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        try:
            return typer.main.get_command(self)(*args, **kwargs)
        except Exception as error:
            show_defect(error)
            sys.exit(DEFECT)


app = _Program(
    cls=_Group,
    name="m3router",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"{PACKAGE} {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and end.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Answer image questions with as few visual tokens as they need.

    `fetch` writes a published benchmark as examples, `label` asks a frozen model every question at
    every option, `judge` has answers scored by a language model, `import` reads what another tool
    answered, `advise` says of such a log whether routing would pay, `tune` searches for a router's
    setting, `train` learns which option suffices,
    `calibrate` sets a budget, `evaluate` and `report` say what was saved and what was lost,
    `traffic` keeps what a server recorded, `monitor` judges a policy on it, `route` decides without
    asking a model, `ask` answers, `look` draws what a model sees, `demo` shows it all in a browser.
    `quickstart` does it all on drawn scenes.

    Fractions are written `1%` or `0.01`, and options that take several values are repeated.

    ```
    m3router quickstart --out quickstart/
    m3router train --help
    ```
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if quiet:
        silence()
    if not verbose:  # what a hub that cannot be reached means is told once, by the error
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        os.environ.setdefault("DATASETS_VERBOSITY", "error")
    level = logging.INFO if verbose else logging.WARNING
    start_logging(LogFormat.TEXT, level, times=verbose)


if __name__ == "__main__":
    app(prog_name="m3router")
