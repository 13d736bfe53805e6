"""Which questions of a benchmark share an image, where the file does not name it.

VLMEvalKit writes one image file for every question, so that its name does not tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

Row = Mapping[str, str | None]

PARTS = ("adversarial", "popular", "random")
_ASKED, _RIGHT = 6, 3
_ROTATION = re.compile(r"_rot\d+$", re.IGNORECASE)


def shared_images(dataset: str, rows: Sequence[Row]) -> dict[str, str] | None:
    """Find groups by what is known of the benchmark.

    Args:
        dataset: Its name.
        rows: The table in its own order, with ``index``, ``question``, ``answer``, ``category``
            and ``image_path`` where it has them.

    Returns:
        Index -> group; None where nothing is known.
    """
    if dataset.lower().startswith("pope"):
        return _pope(dataset, rows)
    turned = _ROTATION.sub("", dataset)
    if turned != dataset and not any(row.get("image_path") for row in rows):
        # The same questions about the same images, turned: they belong on one side of a split.
        return {str(row["index"]): f"{turned}/{row['index']}" for row in rows}
    return None


def _pope(dataset: str, rows: Sequence[Row]) -> dict[str, str] | None:
    """Groups of POPE by its own make-up (Li et al., 2023, arXiv 2305.10355).

    Each of its three parts asks six questions about an image, three of which are right to answer
    with yes. VLMEvalKit's table has the images one after another, and a question that stands in
    several parts once, with all of them in ``category``. So an image ends where each part has six;
    a table that does not come out even, image by image, is not grouped.
    """
    if len({row.get("image_path") for row in rows}) < len(rows):
        return None  # the paths tell
    groups: dict[str, str] = {}
    asked: Counter[str] = Counter()
    questions: set[str] = set()
    right = image = 0
    for row in rows:
        parts = [part.strip() for part in (row.get("category") or "").split(",")]
        question = row.get("question") or ""
        if not set(parts) <= set(PARTS) or question in questions:
            return None
        groups[str(row["index"])] = f"{dataset}/image {image}"
        asked.update(parts)
        questions.add(question)
        right += (row.get("answer") or "").lower() == "yes"
        if max(asked.values()) > _ASKED:
            return None
        if all(asked[part] == _ASKED for part in PARTS):
            if right != _RIGHT:
                return None
            asked.clear()
            questions.clear()
            right, image = 0, image + 1
    return None if asked else groups
