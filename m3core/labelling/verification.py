"""Does a label depend on its batch? A sample of a log is asked again, one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from m3router.data.errors import ImageError
from m3router.data.example import Example
from m3router.data.log.checks import ASKED
from m3router.data.log.oracle_log import OracleLog
from m3router.data.media_files import file_in
from m3router.data.paths import StrPath, as_path
from m3router.data.videos import FRAMES, open_media
from m3router.m3core.labelling.labeller import Labeller
from m3router.m3core.labelling.progress import LabelStats
from m3router.m3core.labelling.rows import LabelMode
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.batching import Limits
from m3router.m3core.options import Answer, OptionModel, Request

VERIFIED = "verified"
"""Key of the result in a log's metadata."""


def verify(
    log: OracleLog,
    examples: Sequence[Example],
    *,
    images: StrPath,
    model: MultiScaleModel | OptionModel,
    count: int,
    seed: int = 0,
    frames: int = FRAMES,
    progress: Callable[[int, int], None] | None = None,
) -> OracleLog:
    """Ask examples of a log again, each image and each request alone, and count other answers.

    Args:
        log: Made by :func:`m3router.m3core.labelling.label`.
        examples: Those that it was made from.
        images: Folder that their image paths start from.
        model: The model that made it.
        count: Examples to ask again, drawn at random from those without a missing result; all if
            there are fewer.
        seed: Of the draw.
        frames: Frames of a video's collage.
        progress: Called with (examples done, examples in all).

    Returns:
        The log with the flip rate by scale in its metadata, under ``verified``: the share of
        examples whose answer (whose soft label by more than 0.001, where references were scored)
        is another one alone than in its batch. Examples whose image can no longer be read are
        left out and named there, under ``unreadable``.
    """
    images = as_path(images)
    known = {one.id: one for one in examples}
    mode = LabelMode(log.metadata.get(ASKED, LabelMode.ALL.value))
    answered = [row for row in range(len(log)) if _has_no_error(log, row)]
    drawn = np.random.default_rng(seed).permutation(answered)[:count]
    frame = log.frame
    before_by_cell = {
        (row["example_id"], row["scale"]): row
        for row in frame[frame["example_id"].isin({log.ids[row] for row in drawn})].to_dict(
            "records"
        )
    }
    ask: Callable[[Example, Image.Image], list[dict[str, Any]]]
    ask = _asked_by_scale(model, mode) if isinstance(model, MultiScaleModel) else _asked(model)
    flips = dict.fromkeys(log.options, 0)
    asked = dict.fromkeys(log.options, 0)
    unreadable: dict[str, str] = {}
    for done, row in enumerate(sorted(drawn.tolist()), start=1):
        example = _as_asked(known[log.ids[row]], log.max_new_tokens[row])
        try:
            image = open_media(file_in(images, example.image), frames=frames)
        except ImageError as error:
            unreadable[example.id] = str(error)
        else:
            for fresh in ask(example, image):
                before = before_by_cell[example.id, fresh["scale"]]
                if fresh["score"] is None and np.isnan(before["score"]):
                    continue
                asked[fresh["scale"]] += 1
                flips[fresh["scale"]] += _differs(before, fresh, mode)
        if progress:
            progress(done, len(drawn))
    result: dict[str, Any] = {
        "examples": len(drawn) - len(unreadable),
        "seed": seed,
        "flips": flips,
        "asked": asked,
        "flip_rate": {name: flips[name] / asked[name] for name in log.options if asked[name]},
    }
    if unreadable:
        result["unreadable"] = unreadable
    return OracleLog(
        log.frame,
        options=log.options,
        cost_unit=log.cost_unit,
        metadata={**log.metadata, VERIFIED: result},
    )


def _asked_by_scale(
    model: MultiScaleModel, mode: LabelMode
) -> Callable[[Example, Image.Image], list[dict[str, Any]]]:
    """Asks a Matryoshka model one request at a time."""
    alone = Labeller(model, mode, limits=Limits(requests=1), stats=LabelStats())

    def ask(example: Example, image: Image.Image) -> list[dict[str, Any]]:
        (encoding,) = model.encode([image])
        return alone.rows([example], {example.image: encoding}, {})

    return ask


def _asked(model: OptionModel) -> Callable[[Example, Image.Image], list[dict[str, Any]]]:
    """Asks any model one request at a time."""

    def ask(example: Example, image: Image.Image) -> list[dict[str, Any]]:
        rows = []
        for option in model.options:
            request = Request(
                image=image,
                question=example.question,
                option=option.name,
                max_new_tokens=example.max_new_tokens,
            )
            (told,) = model.answer([request])
            if isinstance(told, Answer):  # a server that gave none says nothing about answers
                score = example.score(told.text)
                rows.append({"scale": option.name, "answer": told.text, "score": score})
        return rows

    return ask


def _as_asked(example: Example, longest: float) -> Example:
    """An example with the longest answer that it was asked with; logs may not tell it."""
    return example if np.isnan(longest) else replace(example, max_new_tokens=int(longest))


def _has_no_error(log: OracleLog, row: int) -> bool:
    return bool(np.isfinite(log.costs[row]).all())


def _differs(before: dict[Any, Any], fresh: dict[str, Any], mode: LabelMode) -> bool:
    if mode is LabelMode.REFERENCES:
        return bool(abs(float(before["score"]) - fresh["score"]) > 1e-3)
    return bool(before["answer"] != fresh["answer"])
