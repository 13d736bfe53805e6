"""The BlindTest log: four commercial models asked at three resolutions.

"Vision language models are blind" (Rahmanzadehgervi et al., 2024, arXiv 2407.06581), its
line-intersection and touching-circle tasks: ``oracle.jsonl`` beside the folder ``images``.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.log.oracle_log import OracleLog
from m3router.data.paths import StrPath, as_path
from m3router.data.registry import unknown_name

FILE = "oracle.jsonl"
OPTIONS = ("384px", "768px", "1152px")
CHANCE = {"circles": 1 / 2, "lines": 1 / 3}


def read_blindtest(folder: StrPath, *, model: str | None = None) -> OracleLog:
    """Read the log; every (image, prompt, model) is an example.

    The options are the three resolutions in ascending order of pixels. NOTE: the circle images
    are 769 and 1155 pixels wide where the line images are 768 and 1152; both stand under the
    nominal name, with their true pixels as cost. Chance is one of the two answers for circles
    (yes, no) and one of the three for lines (0, 1 or 2 intersections).

    Args:
        folder: Holds ``oracle.jsonl``; image paths are relative to it.
        model: Keep only this model's records.

    Returns:
        The log, cost in pixels, datasets named ``task/model``, grouped by image.

    Raises:
        DataError: The file is missing or not of this form, or there is no such model.
    """
    folder = as_path(folder)
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"The BlindTest log {path} cannot be read: {reason}.") from error
    rows: list[dict[str, Any]] = []
    models: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, nan=True)
            models.add(record["model"])
            if model is None or record["model"] == model:
                rows += _rows(record)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} line {number} is not a BlindTest record: {error!r}. Expected id, group, "
                f"dataset, model, image, question and {len(OPTIONS)} scales."
            ) from error
    if model is not None and model not in models:
        raise DataError(unknown_name("BlindTest model", model, models))
    return OracleLog(
        pd.DataFrame(rows, columns=list(_COLUMNS)),
        options=OPTIONS,
        cost_unit="pixels",
        metadata={"source": "BlindTest (arXiv 2407.06581)", "model": model or sorted(models)},
    )


_COLUMNS = (
    "example_id",
    "group",
    "dataset",
    "question",
    "image",
    "scale",
    "cost",
    "score",
    "chance",
)


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Lay one record out as a row per resolution."""
    scales = sorted(record["scales"], key=lambda scale: float(scale["pixels"]))
    if len(scales) != len(OPTIONS):
        raise ValueError(f"{len(scales)} scales")
    shared = {
        "example_id": str(record["id"]),
        "group": str(record["group"]),
        "dataset": f"{record['dataset']}/{record['model']}",
        "question": str(record["question"]),
        "image": str(record["image"]),
        "chance": CHANCE.get(record["dataset"], 0.0),
    }
    return [
        {
            **shared,
            "scale": option,
            "cost": float(scale["pixels"]),
            "score": float(scale["correct"]),
        }
        for option, scale in zip(OPTIONS, scales, strict=True)
    ]
