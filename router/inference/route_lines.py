"""Questions as JSON Lines, decided in batches: one record out for each line in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from m3router.data.errors import DataError, M3RouterError
from m3router.data.json_files import parse_json
from m3router.data.media_files import file_in
from m3router.data.videos import open_media
from m3router.router.inference.decision import Decision
from m3router.router.inference.router import CHUNK, Router
from m3router.router.policies.policy import Policy
from m3router.router.text.familiarity import image_note


@dataclass(frozen=True)
class _Asked:
    id: str
    image: Image.Image | None
    question: str


def route_lines(
    router: Router,
    lines: Iterable[bytes],
    *,
    images: Path | None = None,
    policy: str | Policy | None = None,
    budget: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Decide for every line; what cannot be decided becomes an error record.

    Args:
        router: That decides.
        lines: JSON objects, UTF-8, with ``question``, and ``image`` or ``video`` where there is
            one, and ``id``; without one, the number of the line is the id. Other fields are not
            read, blank lines are skipped.
        images: Folder that image paths start from; None for questions without images.
        policy: See :meth:`m3router.router.inference.router.Router.decide_many`.
        budget: See there.

    Yields:
        In the order of the lines, :func:`record_of` with ``id`` before it, or ``id`` and ``error``.

    Raises:
        DataError: If the budget cannot be met, or the policy does not exist.
    """
    batch: list[_Asked | dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            batch.append(_read(line, number, images, router))
        if len(batch) == CHUNK:
            yield from _decided(router, batch, policy, budget)
            batch = []
    yield from _decided(router, batch, policy, budget)


def record_of(decision: Decision) -> dict[str, Any]:
    """A decision as JSON values: ``option``, ``estimates``, ``costs``, ``cost_unit``, and more.

    ``reason``, and where there is something to say ``guarantee``, ``fallback``, ``escalates``,
    ``familiarity``, and ``unlike``: that the image is unlike those of the training, or outside what
    the model can read, a sentence.
    """
    found: dict[str, Any] = {
        "option": decision.option,
        "estimates": dict(decision.estimates),
        "costs": dict(decision.costs),
        "cost_unit": decision.cost_unit,
        "reason": decision.reason,
    }
    for name in ("guarantee", "fallback", "escalates", "familiarity"):
        if value := getattr(decision, name):
            found[name] = value
    if told := image_note(decision.familiarity, outside=decision.outside):
        found["unlike"] = told
    return found


def _decided(
    router: Router,
    batch: list[_Asked | dict[str, Any]],
    policy: str | Policy | None,
    budget: float | None,
) -> Iterator[dict[str, Any]]:
    asked = [one for one in batch if isinstance(one, _Asked)]
    decisions = iter(
        router.decide_many(
            [one.image for one in asked],
            [one.question for one in asked],
            policy=policy,
            budget=budget,
        )
    )
    for one in batch:
        if isinstance(one, _Asked):
            yield {"id": one.id, **record_of(next(decisions))}
        else:
            yield one


def _read(line: bytes, number: int, images: Path | None, router: Router) -> _Asked | dict[str, Any]:
    """A line with its image opened, or its error record."""
    name = str(number)
    try:
        values = parse_json(line.decode("utf-8"), nan=True)
        if not isinstance(values, Mapping):
            raise DataError(f"line {number} is not a JSON object")
        name = str(values["id"]) if values.get("id") is not None else name
        question = values.get("question")
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"line {number} has no question: it needs a text under 'question'")
        return _Asked(name, _opened(values, number, images, router), question)
    except ValueError as error:
        return {"id": name, "error": f"line {number} is not JSON: {error}"}
    except M3RouterError as error:
        return {"id": name, "error": str(error)}


def _opened(
    values: Mapping[str, Any], number: int, images: Path | None, router: Router
) -> Image.Image | None:
    named = values.get("image") or values.get("video")
    if named is None:
        if router.needs_image:
            raise DataError(f"line {number} has no image, but the router reads images")
        return None
    if not isinstance(named, str):
        raise DataError(f"line {number} names its image by {named!r}: it must be a path")
    if images is None:
        if router.needs_image:
            raise DataError(f"line {number} names an image, but no folder of images was given")
        return None
    return open_media(file_in(images, named), frames=router.frames)
