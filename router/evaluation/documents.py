"""Evaluations that were written before, as the present code reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3router.data.json_files import read_json_object, values_of
from m3router.data.log.checks import scored_by_agreement
from m3router.router.evaluation.usage import tower_sentence
from m3router.router.evaluation_document import Evaluation
from m3router.router.text.words import words_in

Document = Mapping[str, Any]
"""An evaluation; see `m3router.router.evaluation.evaluate.evaluate`."""
DOCUMENT = "evaluation.json"
"""Its file."""
REDO = "Run `m3router evaluate` again."
"""What to do where an evaluation's file is damaged."""
REFERENCED = 4
"""The schema from which on an evaluation names its reference option."""
BY_OPTION = 6
"""The schema from which on the vision tower's cost is told by option."""
_RENAMED = {
    "minus_finest": "minus_reference",
    "sufficiency_finest": "sufficiency_reference",
    "answer_finest": "answer_reference",
    "score_finest": "score_reference",
}


def by_agreement(document: Document) -> bool:
    """Whether there are no reference answers, so that right means to agree with the last option."""
    return scored_by_agreement(document.get("provenance", {}).get("log", {}))


def measure(document: Document) -> str:
    """What scores are: "accuracy", or "agreement" with the last option."""
    return "agreement" if by_agreement(document) else "accuracy"


def column_words(document: Document) -> dict[str, str]:
    """What titles of columns leave open: the unit of costs, what scores are, and the reference.

    The reference is "finest" where it is the last option, whatever its name; else its name.
    """
    option = document["reference"]["option"]
    last = option == document["options"][-1]
    return {
        "unit": str(document["cost_unit"]),
        "measure": measure(document),
        "reference": words_in(document).of("finest") if last else str(option),
    }


def upgraded(document: Mapping[str, Any]) -> Evaluation:
    """An evaluation of any schema with the names of the present one.

    Before schema 4 the reference of everything was the last option, and before schema 6 the vision
    tower cost the same at every option.
    """
    return Evaluation(_with_tower(_referenced(document)))


def evaluation_in(path: Path) -> Evaluation:
    """Read an evaluation's file, of any schema.

    Raises:
        DataError: It cannot be read, or is no evaluation.
    """
    document = read_json_object(path, redo=REDO)
    with values_of(path, redo=REDO):
        return upgraded(document)


def _with_tower(document: dict[str, Any]) -> dict[str, Any]:
    if document.get("schema", 0) >= BY_OPTION:
        return document
    each = document.get("vision_gflops")
    options = document["options"]
    tower = {"once": True, "gflops": dict.fromkeys(options, each), "encoder_gflops": 0.0}
    images = document.get("words", {}).get("images", True)
    found = {"finest": options[-1], "tower": {**tower, "text": ""}, **document}
    if images and not found["tower"]["text"]:
        found["tower"] = {**tower, "text": tower_sentence(tower)}
    if each is not None:
        found["rows"] = [_with_total(row, float(each)) for row in document["rows"]]
    return found


def _with_total(row: Mapping[str, Any], tower: float) -> dict[str, Any]:
    """A row with what it used in all: the tower's cost was one number, without an interval."""

    def alone(value: float) -> dict[str, float | None]:
        return {"value": value, "low": None, "high": None}

    found, work = {"tower_gflops": alone(tower), **row}, row.get("gflops")
    if work is not None and work["value"] is not None:
        found.setdefault("total_gflops", alone(work["value"] + tower))
    return found


def _referenced(document: Mapping[str, Any]) -> dict[str, Any]:
    if document.get("schema", 0) >= REFERENCED:
        return dict(document)
    last = document["options"][-1]
    found: dict[str, Any] = _renamed(document)
    found["reference"] = {
        "option": last,
        "text": f"Reference option: {last}, the last one, as it was when this was evaluated.",
    }
    for policy in _policies(found):
        policy.setdefault("reference", last)
        if policy.get("kind") == "finest":
            policy["kind"] = "fixed"
    for lost in found.get("lost", {}).values():
        lost.setdefault("reference", last)
        for example in lost.get("examples", ()):
            example.setdefault("reference", last)
    return found


def _renamed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_RENAMED.get(key, key): _renamed(one) for key, one in value.items()}
    return [_renamed(one) for one in value] if isinstance(value, list) else value


def _policies(value: Any) -> Iterator[dict[str, Any]]:
    """Every policy that some row, at whatever depth, was made by."""
    if isinstance(value, list):
        for one in value:
            yield from _policies(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key == "policy" and isinstance(one, dict):
                yield one
            else:
                yield from _policies(one)
