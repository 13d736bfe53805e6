"""The stage that writes the report of an evaluated run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateError

from m3router.data.errors import DataError, MismatchError
from m3router.data.json_files import UNFIT, read_json_object, unfit
from m3router.data.manifest import read_manifest
from m3router.data.paths import StrPath, as_path_or_none
from m3router.data.plain_files import is_there
from m3router.router.evaluation.documents import DOCUMENT, REDO, Document
from m3router.router.evaluation.studies.learning_curve import DOCUMENT as STUDY
from m3router.router.evaluation.studies.learning_curve import STAGE as LEARNING
from m3router.router.evaluation.studies.leave_one_out import STAGE as LEFT_OUT
from m3router.router.reports.html import PAGE, Extras, write_report
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.stages.evaluating import read_document
from m3router.router.stages.importance import DOCUMENT as IMPORTANCE
from m3router.router.stages.importance import STAGE, importance_stage

UNSHOWN: tuple[type[Exception], ...] = (*UNFIT, TemplateError)
"""What drawing and writing raise where a value is missing, or of another kind than is needed."""
EXTRAS = (
    ("importance", STAGE, IMPORTANCE),
    ("learning", LEARNING, STUDY),
    ("left_out", LEFT_OUT, STUDY),
)
"""What is shown beside an evaluation: field of `Extras`, folder in the run, file."""


def report_stage(run: AnyRun, *, images: StrPath | None = None, reuse: bool = False) -> Path:
    """Write the HTML report, its figures and its tables.

    Args:
        run: must hold an evaluation; receives `report/`.
        images: folder of the images, to show those of lost questions.
        reuse: keep what was reported from the same evaluation with the same options.

    Returns:
        Path of report.html.

    Raises:
        DataError: when the evaluation is missing or damaged.
        MismatchError: when the run changed since it was evaluated.
    """
    run = as_run(run)
    images = as_path_or_none(images)
    run = run.opened()
    document = read_document(run)
    importance = importance_stage(run, reuse=True)
    studies, notes = _studies(run)
    inputs = run.inputs("evaluation")
    inputs |= {kind: run.root / kind / STUDY for kind in studies}
    params = {"pictures": images is not None}
    page = run.report_folder / PAGE
    if reuse and run.is_current(run.report_folder, "report", inputs=inputs, params=params):
        return page
    extras = Extras(
        importance=importance,
        learning=studies.get(LEARNING),
        left_out=studies.get(LEFT_OUT),
        notes=tuple(notes),
    )
    evaluated = read_manifest(run.evaluation_folder, stage="evaluate")
    try:
        files = write_report(
            document, run.report_folder, extras=extras, manifest=evaluated, images=images
        )
    except UNSHOWN as error:
        raise DataError(_damaged(run, document, extras, error)) from error
    run.record(run.report_folder, "report", inputs=inputs, params=params, files=files)
    return page


def _damaged(run: Run, document: Document, extras: Extras, error: Exception) -> str:
    """Say which file cannot be shown: the evaluation, or what cannot be shown beside it."""
    if not _shown(document, Extras()):
        for field, folder, file in EXTRAS:
            part = getattr(extras, field)
            if part is not None and (found := _shown(document, Extras(**{field: part}))):
                place = run.root / folder
                return unfit(place / file, found, redo=f"Remove {place}, or make it again.")
    return unfit(run.evaluation_folder / DOCUMENT, error, redo=REDO)


def _shown(document: Document, extras: Extras) -> Exception | None:
    """Write a report for nobody; returns why that fails."""
    with TemporaryDirectory() as folder:
        try:
            write_report(document, Path(folder), extras=extras)
        except UNSHOWN as error:
            return error
    return None


def _studies(run: Run) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Studies of this very router, and what to say about those of another."""
    found, notes = {}, []
    for kind in (LEARNING, LEFT_OUT):
        path = run.root / kind / STUDY
        if not is_there(path):
            continue
        try:
            run.verify(run.root / kind, kind)
        except (DataError, MismatchError) as error:
            notes.append(f"The study {kind!r} is not shown: {error}")
        else:
            found[kind] = read_json_object(path, redo=f"Run `m3router study {kind}` again.")
    return found, notes
