"""What the imported log of these tests says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from m3router.router.cli.main import app
from m3router.router.runs.run import Run

SIZES = ((40, 30), (80, 60), (120, 200), (300, 200))
QUESTIONS = ("what is it?", "how many small red marks are there?")


@dataclass(frozen=True)
class Imported:
    run: Run
    images: Path
    encoder: str


def paid(size: tuple[int, int], option: str, question: str) -> float:
    """Tokens by area, and a little by what was asked, which no size tells."""
    tokens = size[0] * size[1] / 100
    return tokens * (0.2 if option == "low" else 1.0) + 2.0 * ("small" in question)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
