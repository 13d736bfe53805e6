"""From a log to whether routing would pay: import, featurize, train, calibrate, evaluate, report.

Every stage keeps what is there and still true, so that an interrupted advice goes on where it
stopped, and the same one again takes seconds.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.errors import DataError, NotLearnableError
from m3router.data.importers.costs import RANK
from m3router.data.importers.recognition import MARKER, RUN, Recognised
from m3router.data.importers.usage import QUANTITIES
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import log_warnings
from m3router.data.manifest import MANIFEST, atomic_write_text
from m3router.data.plain_files import is_there
from m3router.data.splits.split import FRACTIONS, SPLITS
from m3router.m3core.checkpoints import EMBEDDED
from m3router.router.evaluation.summary_text import FEW_IMAGES, advice, verdict_of
from m3router.router.features.groups import IMAGE, QUESTION, SIZE
from m3router.router.features.question import HASHED
from m3router.router.policies.guarantee import (
    CONFIDENCE,
    LOSSES,
    UncertifiedError,
    certifiable_loss,
)
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.labelling import featurize_stage, import_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage
from m3router.router.stages.splitting import Splitting
from m3router.router.text.words import words_of

OBSERVED = 0.01
"""Loss of accuracy that the policy "default" may be seen to have."""
POLICY, CERTIFIED = "default", "certified"

Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How to advise, beside what the log is.

    Attributes:
        images: folder that image paths start from; None looks at no image.
        encoder: name of an image encoder, see `m3router.m3core.encoders.load_encoder`; None reads
            no more of an image than its size.
        max_loss: what to certify; None for the strictest of
            `m3router.router.policies.guarantee.LOSSES` that the images may be enough for.
        max_regret: what to certify instead of a loss.
        confidence: of the certificate.
        seed: of the split and of the estimator.
        importing: what the importer takes, such as costs, prices and columns.
    """

    images: Path | None = None
    encoder: str | None = None
    max_loss: float | None = None
    max_regret: float | None = None
    confidence: float = CONFIDENCE
    seed: int = 0
    importing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What came of a log.

    Attributes:
        log: as it was read.
        sentences: the five of `m3router.router.evaluation.summary_text.advice`; one, or two, where
            nothing could be learned.
        notes: what to be careful about.
        page: the report; None where nothing could be learned.
    """

    log: OracleLog
    sentences: tuple[str, ...]
    notes: tuple[str, ...] = ()
    page: Path | None = None


def default_folder(found: Recognised) -> Path:
    """Where an advice is kept unless somebody says otherwise: beside the log, named after it.

    Several paths have a common folder; the advice is in it.
    """
    paths = [path.resolve() for path in found.given]
    if len(paths) == 1:
        (path,) = paths
        return path.parent / f"{path.name.partition('.')[0] or path.name}-advice"
    return Path(os.path.commonpath([path.parent for path in paths])) / "advice"


def claim_folder(folder: Path, found: Recognised) -> bool:
    """Take a folder for an advice, and write in it on what; returns whether it is a new one.

    Raises:
        DataError: when it holds something else, or the advice on another log.
    """
    told = {
        "kind": found.kind,
        "sources": sorted(
            os.path.relpath(path.resolve(), folder.resolve()) for path in found.given
        ),
    }
    marker = folder / MARKER
    if marker.is_file():
        before = _marked(marker)
        if before != told:
            raise DataError(
                f"{folder} holds the advice on {', '.join(before['sources'])} ({before['kind']}). "
                "Name another folder: --out RUN."
            )
        return False
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} holds something else. Name another folder: --out RUN.")
    try:
        atomic_write_text(marker, json.dumps(told, indent=1) + "\n")
    except DataError as error:
        raise DataError(
            f"{str(error).removesuffix('.')}. Name another folder: --out RUN."
        ) from error
    return True


def _marked(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        return {"kind": str(found["kind"]), "sources": [str(one) for one in found["sources"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{marker} is damaged: remove its folder, or name another one (--out RUN)."
        ) from error


def _read(run: Run, found: Recognised, wishes: Wishes) -> OracleLog:
    """The log, now in the run folder."""
    if isinstance(found.source, Path) and found.kind == RUN:
        log = _copied(Run(found.source), run, wishes)
    else:
        options = {name: one for name, one in wishes.importing.items() if one}
        log = import_stage(run, found.kind, found.source, **options)
    if len(log.options) == 1:
        raise DataError(
            f"The log has one option, {log.options[0]}, so there is nothing to choose between: add "
            "what another option answered."
        )
    if log.cost_unit == RANK or not np.nanmax(log.costs, initial=0.0) > 0:
        raise DataError(_costs_wanted(log, found))
    return log


def _copied(given: Run, run: Run, wishes: Wishes) -> OracleLog:
    """Take another run's log over, with its features where they are of it."""
    refused = sorted(name for name, one in wishes.importing.items() if one)
    if refused:
        raise DataError(
            f"{given.root} is a run folder, whose log was read before: {', '.join(refused)} cannot "
            "be changed any more. Import or label again."
        )
    for folder in (run.log_folder, run.features_folder):
        shutil.rmtree(folder, ignore_errors=True)
    if wishes.encoder is None and is_there(given.features_folder / MANIFEST):
        given.copy_data(run.root)
    else:
        given.log(as_labelled=True).write(run.log_folder)
    return run.log()


def _costs_wanted(log: OracleLog, found: Recognised) -> str:
    """What to pass where a log does not tell what answers cost."""
    if found.kind == RUN:
        return (
            "The log of this run does not tell what an answer costs at each option. Import it "
            f"again with {_numbers(log)}."
        )
    frame = log.frame
    counted = [name for name in QUANTITIES if name in frame.columns and frame[name].notna().all()]
    measured = f" The log counts {', '.join(counted)}: --cost {counted[0]}." if counted else ""
    return (
        f"The log does not tell what an answer costs, and without that nothing can be saved. Give "
        f"each option a number, in seconds, tokens, money or billions of parameters: "
        f"{_numbers(log)}. Or give prices (--price OPTION=INPUT,OUTPUT) or a column that holds the "
        f"cost (--cost COLUMN).{measured}"
    )


def _numbers(log: OracleLog) -> str:
    return " ".join(f"--cost {shlex.quote(name)}=NUMBER" for name in log.options)


def advise_stage(
    run: Run,
    found: Recognised,
    wishes: Wishes,
    *,
    step: Step = lambda name: None,
    on_log: Callable[[OracleLog], None] = lambda log: None,
) -> Advice:
    """Read a log, learn from it, and say whether routing would pay.

    Args:
        run: a new folder, or one that holds the advice on this log.
        found: the log.
        wishes: how.
        step: called with what is done next, a word or two.
        on_log: called with the log when it is read.

    Raises:
        DataError: when the folder holds something else, the log cannot be read, has one option or
            does not tell what answers cost, images are missing, or a part of the run is damaged.
    """
    new = claim_folder(run.root, found)
    step("reading")
    try:
        log = _read(run, found, wishes)
    except DataError:
        if new:  # so that the same folder can be named when the mistake is mended
            shutil.rmtree(run.root, ignore_errors=True)
        raise
    on_log(log)
    warnings = tuple(log_warnings(log))
    if not _can_split(log, seed=wishes.seed):
        return Advice(log=log, sentences=(_too_few(log),))
    step("features")
    if not (found.kind == RUN and is_there(run.features_folder / MANIFEST)):
        _featurize(run, wishes)
    step("training")
    try:
        train_stage(run, seed=wishes.seed, gaps="drop", reuse=True)
    except NotLearnableError as error:
        return Advice(log=log, sentences=_unlearned(log, str(error)), notes=warnings)
    step("calibrating")
    _calibrate(run, wishes)
    step("evaluating")
    document = evaluate_stage(run, reuse=True)
    step("drawing the report")
    page = report_stage(run, images=wishes.images, reuse=True)
    return Advice(
        log=log,
        sentences=tuple(advice(document, run=str(run.root))),
        notes=tuple(dict.fromkeys([*document["warnings"], *warnings])),
        page=page,
    )


def _too_few(log: OracleLog) -> str:
    """What to say of a log that cannot be split."""
    images = len(set(log.groups[np.asarray(log.complete)].tolist()))
    told = (
        f"{images} image{'' if images == 1 else 's'} with an answer at every option: too few to "
        "say anything, since a router is learned on some images, calibrated on others and judged "
        "on others again"
    )
    return f"{words_of(log).of(told)}; {_takes(log)}."


def _takes(log: OracleLog) -> str:
    """How many images a verdict takes."""
    whole = round(FEW_IMAGES / FRACTIONS[-1])
    return words_of(log).of(f"a verdict takes about {whole} images in all")


def _can_split(log: OracleLog, *, seed: int) -> bool:
    """Whether every part of the split gets a question with an answer at every option."""
    if len(set(log.groups.tolist())) < len(SPLITS):
        return False
    split, complete = Splitting().apply(log, seed=seed), np.asarray(log.complete)
    return all(complete[split.part(part)].any() for part in SPLITS)


def _featurize(run: Run, wishes: Wishes) -> None:
    """The question, and of images their size and what an encoder sees."""
    groups = [QUESTION]
    if wishes.images is not None:
        groups += [SIZE] if wishes.encoder is None else [SIZE, IMAGE]
    featurize_stage(
        run,
        images=wishes.images,
        encoder=wishes.encoder or EMBEDDED,
        questions=HASHED if wishes.encoder is None else None,
        feature_groups=groups,
    )


def _calibrate(run: Run, wishes: Wishes) -> None:
    """A policy that is seen to lose little, and one that is certified to, where images suffice.

    A target that the images are too few for even without a loss gives way to the next. That goes by
    how many they are and by no label, so that the guarantee holds.
    """
    calibrate_stage(run, name=POLICY, max_loss_observed=OBSERVED)
    images = len(np.unique(CalibrationData.read(run).calibrate.groups))
    asked = wishes.max_regret if wishes.max_loss is None else wishes.max_loss
    name = "max_loss" if wishes.max_regret is None else "max_regret"
    first = certifiable_loss(images, confidence=wishes.confidence)
    tried = [asked] if asked is not None else [one for one in LOSSES if first and one >= first]
    run.policy_file(CERTIFIED).unlink(missing_ok=True)
    for loss in tried:
        knobs: Any = {name: loss, "confidence": wishes.confidence}
        try:
            calibrate_stage(run, name=CERTIFIED, **knobs)
        except UncertifiedError:
            continue
        return


def _unlearned(log: OracleLog, why: str) -> tuple[str, ...]:
    """What to say where no router can be learned."""
    few = len(set(log.groups[np.asarray(log.complete)].tolist())) < FEW_IMAGES
    return (verdict_of(log).text, why, *([f"Next: label more; {_takes(log)}."] if few else []))
