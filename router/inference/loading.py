"""The models and rules of a router, as they were when it was trained and calibrated."""

from __future__ import annotations

from collections.abc import Iterable

from m3router.data.errors import MismatchError, ModelError
from m3router.data.plain_files import is_there
from m3router.m3core.checkpoints import load_model
from m3router.m3core.encoders import ImageEncoder, load_encoder
from m3router.m3core.labelling.rows import longest_in
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.pooling import AVERAGE
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.features.featurizer import source_of
from m3router.router.features.groups import FEATURE_GROUPS, QUESTION
from m3router.router.features.question import MODEL
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter


def load_labelled_model(name: str, router: ScaleRouter, *, device: str = "auto") -> MultiScaleModel:
    """Load the model of a router's log with the settings that the log was labelled with.

    Args:
        name: Its name, folder or hub id.
        router: Trained on that log.
        device: Where it is loaded.

    Raises:
        ModelError: If it cannot be loaded.
    """
    visual = router.metadata.get("features", {}).get("visual", {})
    return load_model(
        name,
        device=device,
        pooling=visual.get("pooling", AVERAGE),
        grids=visual["grids"].split() if "grids" in visual else None,
        unlisted_grids=True,  # the run was labelled with these
        max_new_tokens=longest_in(router.metadata.get("log", {})),
    )


def read_rule(run: Run, name: str) -> tuple[Policy, Cascade | None]:
    """A policy of a run, and the cascade that goes with it, which then decides.

    Raises:
        DataError: If there is none of that name, or it is damaged.
    """
    path = cascade_path(run.root, name)
    return Policy.read(run.need_policy(name)), Cascade.read(path) if is_there(path) else None


def reads_own_model(router: ScaleRouter) -> bool:
    """Whether the model that answered the router's log made its features."""
    return router.reads_own_model


def load_encoder_of(
    router: ScaleRouter, name: str | None = None, *, device: str = "auto"
) -> ImageEncoder | MultiScaleModel | None:
    """Load what a router's features are made with; None where that needs no model.

    Where the model that answers made them, all of it is loaded, language model included: a
    checkpoint's tower and projector cannot be loaded by themselves, and its encodings say what the
    scales cost.

    Args:
        router: What reads the features.
        name: Folder or hub id of the encoder; None for the name that it was called by then.
        device: Where it is loaded.

    Raises:
        ModelError: If it cannot be loaded.
        MismatchError: If it is not the one that made the features.
    """
    features, own = router.metadata.get("features", {}), reads_own_model(router)
    if not own and not _looks(router.blocks, str(features.get("question_encoder", MODEL))):
        return None
    known, revision = _source(router)
    wanted = name or known
    try:
        loaded: ImageEncoder | MultiScaleModel = (
            load_labelled_model(wanted, router, device=device)
            if own
            else load_encoder(wanted, device=device)
        )
    except ModelError as error:
        if name:
            raise
        raise ModelError(
            f"The image encoder {known!r} that the router reads cannot be loaded: "
            f"{str(error).rstrip('.')}. Give its folder or hub id (--encoder)."
        ) from error
    if loaded.revision[:16] != revision:
        raise MismatchError(
            f"The router was trained on features of {known}@{revision}, but the encoder is "
            f"{source_of(loaded)}. Give the encoder that made them (--encoder), or featurize and "
            "train with this one."
        )
    return loaded


def _source(router: ScaleRouter) -> tuple[str, str]:
    """Name, and the beginning of the revision, of what made the features."""
    source = str(router.metadata.get("features", {}).get("source", ""))
    name, _, revision = source.rpartition("@")
    return name, revision


def _looks(blocks: Iterable[str], questions: str) -> bool:
    return any(
        (name in FEATURE_GROUPS and FEATURE_GROUPS[name].of_encoding is not None)
        or (name == QUESTION and questions == MODEL)
        for name in blocks
    )
