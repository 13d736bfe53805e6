"""A benchmark's own table as the source of groups: which of its questions share an image.

Such as the table that VLMEvalKit downloads (``LMUData/POPE.tsv``). Its ``image`` holds base64, or
the index of another row whose image it is (``vlmeval/dataset/image_base.py``).
"""

from __future__ import annotations

import hashlib

from m3router.data.errors import DataError, listed
from m3router.data.paths import StrPath, as_path
from m3router.data.tables.table import read_cells

IDS = ("index", "doc_id", "id", "question_id", "questionId")
GROUPS = ("group", "image_id", "imageId", "image_source", "image_path", "image_name", "image")
LONGEST_REFERENCE = 64
"""Longest text of an ``image`` that may be another row's index."""


def read_groups(path: StrPath) -> dict[str, str]:
    """Read which questions share an image.

    Args:
        path: A table in any format that :mod:`m3router.data.tables.table` names, with one of the
            columns :data:`IDS` and one of :data:`GROUPS`; the first that it has counts. Equal
            images are one group.

    Returns:
        Id -> group; rows without either are left out.

    Raises:
        DataError: The table cannot be read or has no such columns.
    """
    table = read_cells(as_path(path))
    ids = next((name for name in IDS if name in table.names), None)
    groups = next((name for name in GROUPS if name in table.names), None)
    if ids is None or groups is None:
        raise DataError(
            f"{path} does not tell which questions share an image: it needs one of the columns "
            f"{' or '.join(IDS)} and one of {' or '.join(GROUPS)}; it has "
            f"{listed(table.names, 12)}."
        )
    cells = zip(table.keys(ids), table.cells(groups), strict=True)
    known = {str(key): str(cell) for key, cell in cells if key is not None and cell is not None}
    return {key: _named(_meant(cell, known)) for key, cell in known.items()}


def _meant(cell: str, known: dict[str, str]) -> str:
    """The image of the row that a cell refers to, else the cell."""
    return known.get(cell, cell) if len(cell) <= LONGEST_REFERENCE else cell


def _named(image: str) -> str:
    """An image's name, or the hash of what is no name."""
    if len(image) <= LONGEST_REFERENCE:
        return image
    return hashlib.sha256(image.encode()).hexdigest()[:16]
