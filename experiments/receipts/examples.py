"""Four questions about each receipt, from the file of its annotated keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.receipts.reader import QUESTIONS
from experiments.receipts.rules import (
    ADDRESS_LETTERS,
    COMPANY_LETTERS,
    amount_of,
    beginning,
    date_of,
)
from m3router.data.errors import DataError
from m3router.data.example import Example


def reference(field: str, annotated: str) -> str | None:
    """An annotated value in the form that answers have; None where it holds nothing of the kind.

    >>> reference("total", "RM 9.00"), reference("date", "14 MAR 2018"), reference("total", "")
    ('9.00', '2018-03-14', None)
    """
    if field == "total":
        return amount_of(annotated)
    if field == "date":
        return date_of(annotated)
    letters = COMPANY_LETTERS if field == "company" else ADDRESS_LETTERS
    return beginning(annotated, letters) or None


def read_keys(path: Path) -> list[Example]:
    """One example for each receipt and field; what is not annotated is left out.

    Args:
        path: JSON Lines with ``image``, a file name, and the four fields as texts.

    Raises:
        DataError: When the file cannot be read, or a line is no such object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"The keys {path} cannot be read: {error.strerror or error}.") from error
    examples = [example for n, line in enumerate(lines, 1) for example in _examples(line, path, n)]
    if not examples:
        raise DataError(f"{path} holds no keys: expected one JSON object a line.")
    return examples


def _examples(line: str, path: Path, number: int) -> Iterator[Example]:
    if not line.strip():
        return
    try:
        values = json.loads(line)
        image, annotated = values["image"], {field: str(values[field]) for field in QUESTIONS}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}, line {number}: expected an object with image, {', '.join(QUESTIONS)} "
            f"({error!r})."
        ) from error
    for field, text in annotated.items():
        answer = reference(field, text)
        if answer is not None:
            yield Example(
                id=f"{image}/{field}",
                image=image,
                question=QUESTIONS[field],
                answers=(answer,),
                metric="exact",
                dataset=field,
            )
