"""Why generations failed: error texts that differ only in names and numbers, counted together."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

_PATH = re.compile(r"\S*[/\\]\S*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, kw_only=True)
class ErrorGroup:
    """One kind of error.

    Attributes:
        cause: The text, with names of files as "…" and numbers as "#".
        rows: Failed (example, scale) pairs.
        examples: Examples among them.
        datasets: Their datasets, sorted.
        scales: Their scales, in the log's order.
        example: The first example's id.
        text: That example's error in full.
    """

    cause: str
    rows: int
    examples: int
    datasets: tuple[str, ...]
    scales: tuple[str, ...]
    example: str
    text: str


def general(text: str, image: str = "") -> str:
    """An error text without the names and numbers of one example.

    >>> general("Image pics/a 1.png cannot be read: 0 bytes", "a 1.png")
    'Image … cannot be read: # bytes'
    """
    if image:
        text = text.replace(image, "…")
    return _NUMBER.sub("#", _PATH.sub("…", text)).strip()


def group_errors(failed: pd.DataFrame) -> list[ErrorGroup]:
    """Group error rows, most frequent cause first.

    Args:
        failed: What `OracleLog.errors` gives.
    """
    if failed.empty:
        return []
    known: dict[tuple[str, str], str] = {}
    causes = []
    for text, image in zip(failed["error"], failed["image"], strict=True):
        if (text, image) not in known:
            known[text, image] = general(text, image)
        causes.append(known[text, image])
    found = []
    for cause, rows in failed.assign(cause=causes).groupby("cause", sort=False):
        first = rows.iloc[0]
        found.append(
            ErrorGroup(
                cause=str(cause),
                rows=len(rows),
                examples=rows["example_id"].nunique(),
                datasets=tuple(sorted(rows["dataset"].unique())),
                scales=tuple(rows["scale"].unique()),
                example=str(first["example_id"]),
                text=str(first["error"]),
            )
        )
    return sorted(found, key=lambda one: -one.rows)
