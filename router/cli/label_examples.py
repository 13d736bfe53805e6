"""The examples of `label`: read, their images looked for, and compared with what a run has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.log.checks import ASKED
from m3router.data.log.journal import latest_rows
from m3router.data.sources.examples import Examples, load_examples
from m3router.data.sources.image_check import check_images
from m3router.m3core.labelling.growth import read_record, scored_otherwise
from m3router.m3core.labelling.rows import LabelMode
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.options import OptionModel
from m3router.router.cli.streams import out as console
from m3router.router.runs.run import Run
from m3router.router.text.agreement import agreement_sentence
from m3router.router.text.words import Words

IMAGES = "images"
"""Folder of a run for images that came inside a table or dataset."""


def read_examples(
    source: Path, run: Run, *, images: Path | None, skip_missing: bool, quiet: bool = False
) -> Examples:
    """Read examples, say what was assumed, and look for their images before anything is asked.

    Args:
        source: File or folder of the examples.
        run: Receives images that are inside the source; what it has asked already needs none.
        images: Folder that image paths start from; None to look beside the source.
        skip_missing: Go on however many images are missing.
        quiet: Say nothing, as processes other than the first.

    Raises:
        DataError: The examples cannot be read, or more than a tenth of the images are missing.
    """
    examples = load_examples(source, images=images, store=run.root / IMAGES)
    if not quiet:
        for note in examples.notes:
            console.print(Text(f"{note[0].upper()}{note[1:]}."), style="dim")
        if images is None:
            console.print(Text(f"Folder of the images: {examples.images}"), style="dim")
    check = check_images((one.image for one in examples), examples.images)
    if check.text:
        asked = {row["example_id"] for row in latest_rows(run.log_folder)}
        check = check_images(
            (one.image for one in examples if one.id not in asked), examples.images
        )
    if check.is_hopeless and not skip_missing:
        raise DataError(
            f"{check.text} Nothing was asked. With --skip-missing the others are, and these become "
            "error records."
        )
    if check.text and not quiet:
        console.print(Text(f"{check.text} They become error records."), style="yellow")
    return examples


def say_agreement(mode: LabelMode, model: MultiScaleModel | OptionModel) -> None:
    """Say how answers are scored where there are no reference answers."""
    words = Words(scales=isinstance(model, MultiScaleModel))
    if told := agreement_sentence({ASKED: mode.value}, words):
        console.print(Text(told), style="yellow")


class Growth:
    """What a run had before it was labelled with other examples.

    Args:
        run: As it is before.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        recorded = read_record(run.log_folder)
        self.before = recorded.in_log if recorded else {}

    def show(self, examples: Sequence[Example]) -> None:
        """Say what was added, changed and left out, and what is of the log before; or nothing."""
        now = {one.id: one for one in examples}
        both = now.keys() & self.before.keys()
        counts = {
            "added": len(now.keys() - both),
            "left out": len(self.before.keys() - both),
            "scored again": sum(bool(scored_otherwise(now[one], self.before[one])) for one in both),
        }
        if not self.before or not any(counts.values()):
            return
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        console.print(Text(f"Examples: {told}; the answers to {len(both)} stayed as they were."))
        later = (self.run.arm(), self.run.policies_folder, self.run.evaluation_folder)
        if any(folder.is_dir() for folder in later):
            console.print(
                Text(
                    "Router, policies and evaluation in this folder are of the examples before: "
                    f"run `m3router train {self.run.root}`, then calibrate, evaluate and report."
                ),
                style="yellow",
            )
