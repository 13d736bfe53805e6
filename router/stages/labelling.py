"""Stages that make an oracle log and features: label, import, featurize."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.importers import importer
from m3router.data.importers.joined import places
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.data.paths import StrPath, as_path, as_path_or_none
from m3router.data.plain_files import is_there
from m3router.data.progress import as_counted, watched
from m3router.data.videos import FRAMES
from m3router.m3core.checkpoints import EMBEDDED
from m3router.m3core.encoders import load_encoder
from m3router.m3core.labelling import LabelOptions, LabelProgress, label, verify
from m3router.m3core.labelling.ranks import Ranks
from m3router.m3core.labelling.verification import VERIFIED
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.options import OptionModel
from m3router.router.features.examples import FeatureInput, feature_inputs, with_errors
from m3router.router.features.extract import FeatureCollector, Progress
from m3router.router.features.featurizer import Featurizer, source_of
from m3router.router.features.groups import (
    FEATURE_GROUPS,
    IMAGE,
    PEEK,
    QUESTION,
    SIZE,
    USUAL,
    USUAL_BEFORE,
    WITHOUT_ENCODER,
    check_feature_groups,
)
from m3router.router.features.question import HASHED, MODEL, question_encoder
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import AnyRun, Run, as_run


def label_stage(
    run: AnyRun,
    examples: Sequence[Example],
    *,
    images: StrPath,
    model: MultiScaleModel | OptionModel,
    progress: Callable[[LabelProgress], None] | bool | None = True,
    questions: str = MODEL,
    feature_groups: Sequence[str] | None = None,
    encoder: str | None = None,
    **options: Unpack[LabelOptions],
) -> OracleLog:
    """Label every example at every option, and compute the features.

    A Matryoshka model's features come from the same pass; for any other model they are computed
    afterwards, from a small encoder or from images and questions alone. An interrupted run goes on
    where it stopped. Several processes started together share the work; the first one merges what
    all have kept and writes the features. Images and questions that cannot be used become error
    records.

    Args:
        run: receives `log/` and `features/`.
        examples: what to ask.
        images: folder that the examples' image paths start from.
        model: the frozen model.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called after every chunk of images.
        questions: name of a question encoder, see `m3router.router.features.question`.
        feature_groups: names of feature blocks, see `m3router.router.features.groups`; None for the
            usual ones.
        encoder: name of an image encoder, for a model that is no Matryoshka model; see
            `featurize_stage`. None looks at images without one.
        options: of `m3router.m3core.labelling.label`, such as `retry_errors`, `frames` and `ranks`.

    Raises:
        Stopped: SIGTERM came; what was labelled is kept.
        DataError: when there are no examples, or the disk is full (nothing is lost then).
        MismatchError: when the run folder holds other examples, another model, or videos at
            another number of frames.
    """
    run = as_run(run)
    images = as_path(images)
    ranks, frames = options.get("ranks") or Ranks(), options.get("frames", FRAMES)
    if not isinstance(model, MultiScaleModel):
        groups = _groups_without_model(feature_groups, encoder)
        log = label(
            examples,
            images=images,
            model=model,
            folder=run.log_folder,
            progress=progress,
            **options,
        )
        if ranks.is_first and log.complete.any():
            own = None if questions == MODEL else questions
            featurize_stage(
                run,
                images=images,
                encoder=encoder or EMBEDDED,
                questions=HASHED if own is None and encoder is None else own,
                feature_groups=groups,
                progress=progress is True,
            )
        return log
    wanted = tuple(USUAL if feature_groups is None else feature_groups)
    if options.get("grow"):  # what was made apart would not be there for examples that are new
        wanted += _made_apart(run, examples, wanted)
    featurizer = Featurizer(
        feature_groups=wanted,
        model=model,
        questions=question_encoder(questions, model),
        frames=frames,
    )
    asked = [FeatureInput(one.id, one.image, one.question) for one in examples]
    with ranks.first_then_others(
        lambda: FeatureCollector(
            run.features_folder, featurizer, asked, images=images, rank=ranks.index
        )
    ) as collector:
        log = label(
            examples,
            images=images,
            model=model,
            folder=run.log_folder,
            on_encoded=collector,
            progress=progress,
            **options,
        )
        if not ranks.is_first:
            return log
        answered = np.isfinite(log.costs).all(axis=1)
        collector.collect(str(name) for name in log.images[answered])
        lost = collector.left_out(log)
        if lost:  # an answer without features is of no use; the journal keeps it for a retry
            log = with_errors(log, lost)
            log.write(run.log_folder)
        if np.isfinite(log.costs).all(axis=1).any():
            collector.finish(log)
    return log


def _made_apart(run: Run, examples: Sequence[Example], wanted: Sequence[str]) -> tuple[str, ...]:
    """Feature groups that a run has beside those that are wanted, where examples are new to it."""
    if not is_there(run.features_folder / MANIFEST):
        return ()
    try:
        table = FeatureTable.read(run.features_folder)
    except DataError:  # it is made anew
        return ()
    if {one.id for one in examples} <= set(table.ids):
        return ()
    return tuple(name for name in table.blocks if name in FEATURE_GROUPS and name not in wanted)


def _groups_without_model(
    feature_groups: Sequence[str] | None, encoder: str | None
) -> Sequence[str] | None:
    """Feature groups for a model that encodes nothing for the router; None for the usual ones.

    Raises:
        DataError: when one needs an encoder and none is given, or there is no such encoder.
    """
    if encoder is not None:
        load_encoder(encoder)  # before hours of labelling, not after them
        return feature_groups
    wanted = check_feature_groups(WITHOUT_ENCODER if feature_groups is None else feature_groups)
    if IMAGE in wanted or PEEK in wanted:
        raise DataError(
            "The feature group 'image' reads an image encoder: give one (--encoder, the folder or "
            "hub id of a CLIP or SigLIP model), or choose other groups, such as question and size."
        )
    return wanted


def verify_stage(
    run: AnyRun,
    examples: Sequence[Example],
    *,
    images: StrPath,
    model: MultiScaleModel | OptionModel,
    count: int,
    seed: int = 0,
    frames: int = FRAMES,
    progress: Callable[[int, int], None] | bool | None = True,
) -> dict[str, Any]:
    """Ask a random part of the log again, one request at a time; see :func:`label_stage`.

    Args:
        run: must hold a log; its manifest receives the flip rate.
        examples: those that the log was made from.
        images: folder that their image paths start from.
        model: the model that made it.
        count: examples to ask again.
        seed: of the draw.
        frames: frames of a video's collage.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called with (examples done, examples in all).

    Returns:
        Flips, answers compared and flip rate, each by option.
    """
    run = as_run(run)
    images = as_path(images)
    with watched(progress, "asking again", as_counted) as show:
        log = verify(
            run.log(as_labelled=True),
            examples,
            images=images,
            model=model,
            count=count,
            seed=seed,
            frames=frames,
            progress=show,
        )
    log.write(run.log_folder)
    found: dict[str, Any] = log.metadata[VERIFIED]
    return found


def import_stage(
    run: AnyRun,
    kind: str,
    source: StrPath | Mapping[str, StrPath | Sequence[StrPath]],
    **options: Any,
) -> OracleLog:
    """Read an oracle log that another tool wrote into the run folder.

    Args:
        run: receives `log/`.
        kind: a name in `m3router.data.importers.IMPORTERS`.
        source: the other tool's file or folder; for kinds that read runs of each option, option ->
            its file or folder, or several of them.
        **options: what that importer takes.

    Raises:
        DataError: when the format is unknown or does not fit, or the run folder already holds
            a labelled log.
    """
    run = as_run(run)
    read = importer(kind)
    if (
        is_there(run.log_folder / MANIFEST)
        and "source" not in OracleLog.read(run.log_folder).metadata
    ):
        raise DataError(
            f"{run.log_folder} holds a log that was labelled here; import into a new folder."
        )
    log: OracleLog = read(source, **options)
    if isinstance(source, str | os.PathLike):
        paths = {"source": as_path(source)}
    else:
        given = {option: places(of) for option, of in source.items()}
        paths = {
            option if len(of) == 1 else f"{option}, {number}": path
            for option, of in given.items()
            for number, path in enumerate(of, start=1)
        }
    log.write(run.log_folder, inputs={name: path for name, path in paths.items() if path.is_file()})
    return log


def featurize_stage(
    run: AnyRun,
    *,
    images: StrPath | None = None,
    encoder: str = EMBEDDED,
    questions: str | None = None,
    feature_groups: Sequence[str] | None = None,
    progress: Progress | bool | None = True,
) -> tuple[FeatureTable, dict[str, str]]:
    """Compute features for any log; what is there already and still true is kept.

    Args:
        run: must hold `log/`; receives `features/`.
        images: folder that image paths start from; None for a log without images, or not to
            look at them.
        encoder: name of an image encoder, see `m3router.m3core.encoders.load_encoder`; not loaded
            where no feature group needs it.
        questions: name of a question encoder, see `m3router.router.features.question`; None takes
            the image encoder's own language model where it has one, else hashed words.
        feature_groups: names of feature blocks, see `m3router.router.features.groups`; None takes
            the usual ones that are available with or without images, with the images' size
            where the encoder is another model than answered.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called with (done, in all, of what).

    Returns:
        The table, and image or example -> cause for those that cannot be used.

    Raises:
        DataError: when there is no log, no image can be read, or a feature group is not available.
        MismatchError: when the folder holds further blocks of other examples or another encoder,
            or a peek is asked for by another model than answered.
    """
    run = as_run(run)
    images = as_path_or_none(images)
    if images is not None and not os.path.isdir(images):
        raise DataError(f"The images folder {images} does not exist. Check the path.")
    log = run.log(as_labelled=True)
    featurizer = _featurizer(log, images, encoder, questions, feature_groups)
    with (
        FeatureCollector(
            run.features_folder, featurizer, feature_inputs(log), images=images
        ) as collector,
        watched(progress, "features", as_counted) as show,
    ):
        collector.collect(progress=show)
        return collector.finish(log, show), collector.causes


def needs_encoder(
    images: Path | None, questions: str | None, feature_groups: Sequence[str] | None
) -> bool:
    """Whether `featurize_stage` loads the image encoder for what it is asked for."""
    wanted = None if feature_groups is None else set(feature_groups)
    looks = images is not None and (wanted is None or bool({IMAGE, PEEK} & wanted))
    return looks or (questions == MODEL and (wanted is None or QUESTION in wanted))


def _featurizer(
    log: OracleLog,
    images: Path | None,
    encoder: str,
    questions: str | None,
    feature_groups: Sequence[str] | None,
) -> Featurizer:
    """What the feature groups need, loaded; nothing else is."""
    wanted = None if feature_groups is None else check_feature_groups(feature_groups)
    blind = sorted({IMAGE, PEEK, SIZE} & set(wanted or ()))
    if images is None and blind:
        raise DataError(
            f"The feature groups {', '.join(blind)} look at images: give their folder with "
            "--images, or choose other feature groups, such as question and cheap."
        )
    used = needs_encoder(images, questions, wanted)
    loaded = load_encoder(encoder) if used else None
    model = loaded if isinstance(loaded, MultiScaleModel) else None
    answered = model is not None and model.revision == log.metadata.get("revision")
    if wanted is None:
        usual = USUAL if answered else USUAL_BEFORE
        wanted = tuple(name for name in usual if name == QUESTION or images is not None)
    if PEEK in wanted and model is not None and not answered:
        raise MismatchError(
            f"A peek is the prefill of the model that answered, but the log was made by "
            f"{log.metadata.get('model', 'an unknown model')} "
            f"({str(log.metadata.get('revision'))[:16]}) and --encoder is {source_of(model)}. "
            "Give that model, or choose other feature groups, such as image and question."
        )
    asked = None
    if QUESTION in wanted:
        asked = question_encoder(questions or (HASHED if model is None else MODEL), model)
    return Featurizer(
        feature_groups=wanted,
        model=loaded,
        questions=asked,
        images=images is not None,
        frames=log.metadata.get("frames", FRAMES),
    )
