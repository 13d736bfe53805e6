"""The program `m3router`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperGroup

from data.errors import M3RouterError
from router.cli import (
    ask,
    calibrate,
    check,
    compare,
    convert,
    cost,
    demo,
    evaluate,
    export,
    featurize,
    fetch,
    finetune,
    import_,
    inspect,
    keys,
    label,
    look,
    monitor,
    push,
    quickstart,
    report,
    serve,
    study,
    traffic,
    train,
    tune,
)
from router.cli.console import err, out

COMMANDS: dict[str, Callable[..., None]] = {
    "fetch": fetch.fetch,
    "label": label.label,
    "import": import_.import_log,
    "inspect": inspect.inspect,
    "featurize": featurize.featurize,
    "tune": tune.tune,
    "train": train.train,
    "calibrate": calibrate.calibrate,
    "evaluate": evaluate.evaluate,
    "report": report.report,
    "monitor": monitor.monitor,
    "traffic": traffic.traffic,
    "compare": compare.compare,
    "study": study.study,
    "export": export.export,
    "push": push.push,
    "ask": ask.ask,
    "look": look.look,
    "serve": serve.serve,
    "demo": demo.demo,
    "quickstart": quickstart.quickstart,
    "check": check.check,
    "keys": keys.keys,
    "finetune": finetune.finetune,
    "convert": convert.convert,
    "cost": cost.cost,
}


class _Group(TyperGroup):
    """Shows this project's errors as one message, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a M3RouterError becomes exit code 1."""
        try:
            return super().invoke(ctx)
        except M3RouterError as error:
            err.print(Text.assemble(("Error: ", "bold red"), (str(error), "red")))
            raise typer.Exit(1) from error

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of use."""
        return list(COMMANDS)


app = typer.Typer(
    cls=_Group,
    name="m3router",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from router.version import PACKAGE, __version__

        out.print(f"{PACKAGE} {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and end.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Answer picture questions with as few visual tokens as they need.

    `fetch` writes a published benchmark as examples, `label` asks a frozen multi-scale model
    every question at every scale, `tune` searches for a router's setting, `train` learns which
    scale suffices, `calibrate` sets a budget, `evaluate` and `report` say what was saved and what
    was lost, `traffic` keeps what a server recorded, `monitor` judges a policy on it, `ask`
    answers, `look` draws what a model sees, `demo` shows it all in a browser. `quickstart` does it
    all on drawn scenes.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not err.is_terminal:
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars are noise in a log file
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_path=False, show_time=verbose)],
        force=True,
    )


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


if __name__ == "__main__":
    app(prog_name="m3router")
