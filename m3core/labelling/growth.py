"""Which examples a folder's answers are about, and what of other examples goes with them.

A folder may be labelled again with more examples: new ones are asked, and answers that are there
stay. An id stands for one question about one image. What only scores its answers (references,
choices, metric) may change, and the answers are then scored again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example, fingerprint
from m3router.data.json_files import parse_json
from m3router.data.manifest import atomic_write_text
from m3router.data.plain_files import is_there, read_bytes
from m3router.data.scoring.judged import is_waiting
from m3router.data.scoring.metrics import is_judged
from m3router.data.videos import is_video
from m3router.m3core.labelling.rows import LONGEST, LabelMode, scored

RECORD = "examples.jsonl"
"""The examples as they were asked, beside the journal; the first line says where images were."""
_FRAMES = "frames"
_OF_EXAMPLES = frozenset({"examples_sha256", "n_examples", LONGEST, _FRAMES})
"""What of a run's metadata depends on its examples."""
_DROPPED = "dropped"
_SCORING = ("answers", "choices", "metric")
_REDO = "Label into another folder."


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a folder's answers are about.

    Attributes:
        examples: Id -> example, those of :attr:`dropped` too.
        images: Id -> folder that its image's path started from, absolute.
        longest: Id -> tokens of its longest answer.
        dropped: Ids that were left out of the log later; their answers are kept.
    """

    examples: Mapping[str, Example]
    images: Mapping[str, str]
    longest: Mapping[str, int]
    dropped: frozenset[str]

    @property
    def in_log(self) -> dict[str, Example]:
        """Id -> example, those of the log."""
        return {name: one for name, one in self.examples.items() if name not in self.dropped}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a folder's answers are to be about.

    Attributes:
        examples: All of them.
        images: Folder that their images' paths start from.
        longest: Id -> tokens of its longest answer.
        mode: What is asked.
    """

    examples: Sequence[Example]
    images: Path
    longest: Mapping[str, int]
    mode: LabelMode


def read_record(folder: Path) -> Recorded | None:
    """What is recorded in a log's folder; None where nothing is, as in those of old versions.

    Raises:
        DataError: It is damaged.
    """
    path = folder / RECORD
    if not is_there(path):
        return None
    try:
        head, *lines = map(parse_json, read_bytes(path).splitlines())
        by_id = {str(line["example"]["id"]): line for line in lines}
        return Recorded(
            examples={name: Example.from_dict(line["example"]) for name, line in by_id.items()},
            images={name: str(line.get("images", head["images"])) for name, line in by_id.items()},
            longest={name: int(line[LONGEST]) for name, line in by_id.items()},
            dropped=frozenset(name for name, line in by_id.items() if line.get(_DROPPED)),
        )
    except (ValueError, LookupError, TypeError, DataError) as error:
        raise DataError(f"{path} is damaged ({error}). {_REDO}") from error


def write_record(folder: Path, asked: Asked, recorded: Recorded | None) -> None:
    """Record what is asked; nothing is written where it says that already.

    Args:
        folder: Of the log.
        asked: All examples of the log.
        recorded: What is there: what of it is gone stays recorded as such.

    Raises:
        DataError: It cannot be written.
    """
    head = {"images": os.path.abspath(asked.images)}
    lines: list[dict[str, Any]] = [
        {"example": one.to_dict(), LONGEST: asked.longest[one.id]} for one in asked.examples
    ]
    for name, one in (recorded.examples if recorded else {}).items():
        if recorded and name not in asked.longest:
            kept = {LONGEST: recorded.longest[name], "images": recorded.images[name]}
            lines.append({"example": one.to_dict(), **kept, _DROPPED: True})
    text = "".join(json.dumps(line) + "\n" for line in (head, *lines))
    path = folder / RECORD
    if not is_there(path) or read_bytes(path) != text.encode():
        atomic_write_text(path, text)


def may_differ(recorded: Recorded, asked: Asked) -> frozenset[str]:
    """Keys of a run's metadata that may be others now; frames only where videos came or went."""
    sides = (recorded.in_log.values(), asked.examples)
    both = all(any(is_video(one.image) for one in examples) for examples in sides)
    return _OF_EXAMPLES - {_FRAMES} if both else _OF_EXAMPLES


def rescored_ids(recorded: Recorded, asked: Asked, *, drop_removed: bool) -> set[str]:
    """Check that a folder's answers go with these examples.

    Args:
        recorded: What they are about.
        asked: What they are to be about.
        drop_removed: Whether examples may be gone.

    Returns:
        Ids of which the answers are to be scored again.

    Raises:
        MismatchError: Examples are gone, or are other ones; the message says what to do.
    """
    examples, mode = asked.examples, asked.mode
    ids = {one.id for one in examples}
    removed = [name for name in recorded.in_log if name not in ids]
    sides = _sides(recorded, examples)
    if removed and not drop_removed:
        raise MismatchError(
            f"There are answers to {len(removed)} examples that are not among these "
            f"{len(examples)}, such as {removed[0]!r}. Give them too, leave them out of the log "
            f"with --drop-removed, or label into another folder {sides}."
        )
    changed: dict[str, str] = {}
    rescored: set[str] = set()
    for one in examples:
        before = recorded.examples.get(one.id)
        if before is None or before == one:
            continue
        what = _asked_otherwise(before, one, recorded.images[one.id], os.path.abspath(asked.images))
        others = scored_otherwise(before, one)
        fixed = mode in (LabelMode.UNTIL_CORRECT, LabelMode.REFERENCES)
        if not what and others and (fixed or is_judged(before.metric) != is_judged(one.metric)):
            what = others
        if what:
            changed[one.id] = what
        elif others:
            rescored.add(one.id)
    if changed:
        name, what = next(iter(changed.items()))
        numbered = " Their ids are numbers: were rows put in between?" if name.isdigit() else ""
        raise MismatchError(
            f"{len(changed)} examples have another {what} than the answers under their ids, such "
            f"as {name!r}.{numbered} Give them other ids, or label into another folder {sides}."
        )
    return rescored


def same_lengths(recorded: Recorded, longest: Mapping[str, int]) -> bool:
    """Whether the examples that are there have the longest answers that they had."""
    return all(longest.get(name, length) == length for name, length in recorded.longest.items())


def scored_otherwise(before: Example, now: Example) -> str:
    """What of an example scores its answers otherwise than before: a field's name, or ""."""
    return next((one for one in _SCORING if getattr(before, one) != getattr(now, one)), "")


def rescored_rows(
    rows: Iterator[dict[str, Any]], examples: Mapping[str, Example], mode: LabelMode
) -> Iterator[dict[str, Any]]:
    """Score the answers of these examples as they are now; rows without one are passed over."""
    for row in rows:
        example = examples.get(row["example_id"])
        if example is None or row.get("answer") is None or mode is LabelMode.AGREEMENT:
            continue
        if row.get("error") is None or is_waiting(row["error"]):
            yield {**row, **of_example(example), **scored(example, row["answer"])}


def of_example(example: Example) -> dict[str, Any]:
    """What of a log's row an example says by itself."""
    return {
        "group": example.group,
        "dataset": example.dataset,
        "question": example.question,
        "image": example.image,
        "chance": example.chance_level,
        "references": example.answers,
        "metric": example.metric,
    }


def _asked_otherwise(before: Example, now: Example, old_images: str, images: str) -> str:
    """What a model is asked that is not as it was: a field's name, or ""."""
    if before.question != now.question:
        return "question"
    same = os.path.join(old_images, before.image) == os.path.join(images, now.image)
    return "" if same or before.image == now.image else "image"


def _sides(recorded: Recorded, examples: Sequence[Example]) -> str:
    """Both sets of examples by their hashes, for a message."""
    before, now = fingerprint(recorded.in_log.values()), fingerprint(examples)
    return f"(examples_sha256: journal {before[:12]}, now {now[:12]})"
