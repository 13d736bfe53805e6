"""`m3router quickstart`: the stages one after the other, on drawn scenes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from m3router.data.images import open_image
from m3router.data.json_files import values_of
from m3router.data.log.parts import part_rows
from m3router.data.progress import waiting
from m3router.data.scenes.export import LABEL_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.router.cli import next_steps
from m3router.router.cli.answers import show_answer
from m3router.router.cli.console import progress, show_headline, show_verdict
from m3router.router.cli.exit_codes import STOPPED
from m3router.router.cli.labelling import (
    kept_when_stopped,
    label_with_progress,
    show_errors,
)
from m3router.router.cli.options import Device, folder_to_write, seed_option
from m3router.router.cli.streams import out as results
from m3router.router.cli.toys import say_if_toy
from m3router.router.evaluation.documents import DOCUMENT, REDO
from m3router.router.evaluation.evaluate import default_budgets
from m3router.router.evaluation.showcase import held_out
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage
from m3router.router.text.numbers import duration

if TYPE_CHECKING:
    from m3router.m3core.matryoshka.base import MultiScaleModel

QUESTIONS = 8
MOST = 100_000
"""Scenes at most; drawing and answering more takes days."""
POLICIES = ("frugal", "default", "generous")


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("quickstart"),
    scenes: Annotated[int, typer.Option(min=20, max=MOST, help="Images to draw.")] = 1000,
    model: Annotated[str, typer.Option(help="embedded, fake, a folder, or a hub id.")] = "embedded",
    seed: Annotated[int, seed_option("Seed of the split and of the estimator.")] = 0,
    device: Device = "auto",
) -> None:
    """Show the whole idea on drawn scenes: label, train, calibrate, evaluate, report, ask.

    What is complete and unchanged is not done again.

    ```
    m3router quickstart --out quickstart/
    ```
    """
    began = time.monotonic()
    folder_to_write(out)
    folder, run = out / "scenes", Run(out / "run")
    first = LABEL_SEEDS.start
    with waiting("loading the model"):  # first, so that a wrong name is told at once
        loaded = load_model(model, device=device)
    say_if_toy(model)
    with progress("drawing") as advance:
        seeds = range(first, first + scenes)
        path = write_scenes(
            folder, seeds, questions=QUESTIONS, progress=lambda d, n: advance(d, n, "scenes")
        )
    examples = load_jsonl(path, images=folder / "images")
    with kept_when_stopped(terminated=STOPPED):
        log = label_with_progress(run, examples, images=folder / "images", model=loaded)
    show_errors(log)
    run = run.opened()
    _learn(run, seed=seed)
    page = _measure(run, folder / "images")
    _answer(run, folder / "images", loaded)
    results.print(
        f"\n[bold]report[/bold]  {page}\n[bold]figure[/bold]  {run.report_folder / 'pareto.png'}"
    )
    results.print(f"{duration(time.monotonic() - began)} in all", style="dim")
    (image, question), *_ = held_out(run)
    next_steps.show_next("ask", run.root, folder / "images" / image, question)


def _learn(run: Run, *, seed: int) -> None:
    """Train, then calibrate one policy for each default budget."""
    with progress("training") as advance:
        train_stage(
            run,
            seed=seed,
            gaps="drop",
            reuse=True,
            progress=lambda name, done, total: advance(done, total, name),
        )
    log = run.log()
    rows = part_rows(log, run.split(log), "calibrate", gaps="drop")
    for name, budget in zip(POLICIES, default_budgets(log.costs[rows]), strict=True):
        calibrate_stage(run, name=name, budget=budget)


def _measure(run: Run, images: Path) -> Path:
    """Evaluate, print the table, write the report."""
    with progress("evaluating") as advance:
        document = evaluate_stage(run, reuse=True, progress=advance)
    results.print()
    with values_of(run.evaluation_folder / DOCUMENT, redo=REDO):  # it may be one that was there
        show_verdict(document)
        show_headline(document)
    with waiting("drawing"):
        return report_stage(run, images=images, reuse=True)


def _answer(run: Run, images: Path, model: MultiScaleModel) -> None:
    """Answer three held-out questions with the scale and why."""
    pipeline = AutoScalePipeline.load(run.root, model=model)
    for name, question in held_out(run):
        results.print(Text(f"\n{images / name}\n{question}", style="bold"))
        (answer,) = pipeline.answer([open_image(images / name)], [question])
        show_answer(answer)
