"""From a name to a multi-scale model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from m3router.m3core.checkpoints.families.base import Source
from m3router.m3core.checkpoints.families.table import get_family, recognise
from m3router.m3core.checkpoints.file_checks import check_files
from m3router.m3core.checkpoints.placement import Placement
from m3router.m3core.checkpoints.places import EMBEDDED, FAKE, resolve
from m3router.m3core.devices import chosen_device
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.models.anyres import parse_grid
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.pooling import AVERAGE, check_pooling

logger = logging.getLogger(__name__)


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    device_map: str | None = None,
    bits: int | None = None,
    pooling: str = AVERAGE,
    grids: Sequence[str] | None = None,
    unlisted_grids: bool = False,
    max_new_tokens: int | None = None,
) -> MultiScaleModel:
    """Load a multi-scale model.

    Args:
        name: ``embedded``, a folder, a hub id, or ``fake`` (no weights, for trying the tools).
            Folders and hub ids may have the original LLaVA layout or that of Hugging Face.
        device: A torch device, or ``auto``: a GPU where there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device_map: ``auto`` spreads a large model over all GPUs and the CPU's memory.
        bits: 8 or 4 to quantise the language model by bitsandbytes; needs a GPU.
        pooling: How coarser scales are made, a name in
            :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
        grids: For LLaVA-NeXT, how images may be cut into crops, such as ``["2x2", "3x3"]``
            (rows x columns; M3, Table 5); None takes the grids of the checkpoint.
        unlisted_grids: Allow ``grids`` that the checkpoint does not list.
        max_new_tokens: Tokens of its longest answer, where a request names no other limit; None
            for the usual :data:`m3router.m3core.matryoshka.base.ANSWER_TOKENS`.

    Raises:
        ModelError: If it cannot be found, read, or if any weight is missing, unexpected or of
            another shape.
        MismatchError: If its scales do not nest in its tower's grid, or there is no such pooling
            or grid for it.
    """
    check_pooling(pooling)
    device = chosen_device(device)
    placement = Placement(device=device, dtype=dtype, device_map=device_map, bits=bits)
    if name == FAKE:
        return _with_longest(FakeModel(pooling=pooling), max_new_tokens)
    folder = resolve(name)
    check_files(folder)
    checkpoint = recognise(folder)
    family = get_family(checkpoint.family)
    if not checkpoint.says_matryoshka and not family.always_matryoshka:
        logger.warning(
            "%s does not say that it was trained at several scales (no matryoshka_vis_token_scale "
            "or matryoshka entry in config.json): its scales were not trained, and answers from "
            'few tokens will degrade. If it was, add {"matryoshka": {"scales": %s}} there.',
            checkpoint.folder,
            list(checkpoint.scales),
        )
    short = name if name == EMBEDDED else Path(name).name or name
    source = Source(
        checkpoint=checkpoint,
        placement=placement,
        name=short,
        pooling=pooling,
        grids=None if grids is None else tuple(map(parse_grid, grids)),
        unlisted_grids=unlisted_grids,
    )
    return _with_longest(family.build(source), max_new_tokens)


def _with_longest(model: MultiScaleModel, max_new_tokens: int | None) -> MultiScaleModel:
    if max_new_tokens is not None:
        model.max_new_tokens = max_new_tokens
    return model
