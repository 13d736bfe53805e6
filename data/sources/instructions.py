r"""Instructions in LLaVA's format: a JSON list of conversations, most of them about an image.

    [{"id": "1", "image": "coco/1.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "What colour?"}, {"from": "gpt", "value": "Grey."}]}]

Source: haotian-liu/LLaVA, ``docs/Finetune_Custom_Data.md`` and ``llava/train/train.py``
(``preprocess_multimodal``, ``preprocess_v1``).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.media_files import leaves_folder
from m3router.data.paths import StrPath, as_path

IMAGE_TAG = "<image>"
HUMAN, MODEL = "human", "gpt"
SHOWN = 20
_READ = ("image", "conversations", "id")
_MEDIA = frozenset({"images", "video", "videos", "audio"})


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Questions about one image, or about none, each with its answer.

    Attributes:
        id: The entry's own id, or its number where it has none; need not be unique.
        image: Path of the image inside the images folder, or None.
        turns: (question, answer) pairs, stripped; the question without its image tag.
    """

    id: str
    image: str | None
    turns: tuple[tuple[str, str], ...]


def load_instructions(path: StrPath) -> list[Conversation]:
    """Read a file of instructions.

    As in LLaVA, a first value that is not a human's is skipped, and a last question without an
    answer teaches nothing and is left out. The image tag may stand anywhere in the first
    question: it is moved to its front. NOTE: LLaVA takes several images in one conversation;
    here there is one, asked about first. Further fields are ignored, as LLaVA's own files have
    some, but not ones that look like a misspelled ``image`` or ``conversations``, or like a
    ``video``. Images are not opened.

    Args:
        path: The file, UTF-8.

    Returns:
        The conversations, in the order of the file.

    Raises:
        DataError: The file cannot be read, is not a JSON list, or entries are bad: up to 20 of them
            are listed with their numbers, from 1, and ids.
    """
    path = as_path(path)
    entries = _read_list(path)
    conversations: list[Conversation] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, start=1):
        try:
            conversations.append(_read_entry(entry, number))
        except DataError as error:
            name = f" (id {entry['id']!r})" if isinstance(entry, dict) and "id" in entry else ""
            problems.append(f"entry {number}{name}: {error}")
    if problems:
        shown = "\n  ".join(problems[:SHOWN])
        more = len(problems) - SHOWN
        rest = f"\n  ... and {more} more" if more > 0 else ""
        raise DataError(f"{path}: {len(problems)} bad entries; none was taken.\n  {shown}{rest}")
    if not conversations:
        raise DataError(f"{path} holds no conversations: expected a JSON list of at least one.")
    return conversations


def _read_list(path: Path) -> list[Any]:
    try:
        values = parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"Instructions {path} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text. Save the file as UTF-8.") from error
    except ValueError as error:
        raise DataError(
            f"{path} is not valid JSON ({error}). Instructions are one JSON list, not one object "
            "a line."
        ) from error
    if not isinstance(values, list):
        raise DataError(
            f"{path} must hold a JSON list of conversations, got {_kind(values)}; put the entries "
            "into [ ]."
        )
    return values


def _read_entry(entry: Any, number: int) -> Conversation:
    if not isinstance(entry, dict):
        raise DataError(f"must be a JSON object, got {_kind(entry)}.")
    _check_names(entry)
    image = entry.get("image")
    if image is not None:
        if not isinstance(image, str) or not image.strip():
            raise DataError(f"'image' must be one path, got {image!r}; leave it out for text only.")
        if how := leaves_folder(image):
            raise DataError(f"image {image!r} {how}; give a path inside the images folder.")
    pairs = _pairs(entry.get("conversations"))
    return Conversation(
        id=str(entry.get("id", number)), image=image, turns=_turns(pairs, image is not None)
    )


def _check_names(entry: dict[str, Any]) -> None:
    """Refuse a field that was perhaps meant to be one that is read."""
    for name in entry:
        if name in _READ:
            continue
        if name.lower() in _MEDIA:
            raise DataError(f"has the field {name!r}; an entry is about one image, named 'image'.")
        if close := difflib.get_close_matches(name.lower(), _READ[:2], n=1, cutoff=0.75):
            raise DataError(f"has the field {name!r}. Did you mean {close[0]!r}?")


def _pairs(messages: Any) -> list[tuple[str, str]]:
    """Raw (question, answer) pairs of a list of messages."""
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"'conversations' must be a list of messages, got {_kind(messages)}"
            f"{' without any' if messages == [] else ''}."
        )
    said = [_message(message, place) for place, message in enumerate(messages, start=1)]
    skipped = int(said[0][0] != HUMAN)
    for place, (speaker, _) in enumerate(said[skipped:]):
        wanted = (HUMAN, MODEL)[place % 2]
        if speaker != wanted:
            raise DataError(
                f"message {place + skipped + 1} is from {speaker!r} where {wanted!r} must speak: "
                "questions and answers alternate."
            )
    texts = [text for _, text in said[skipped:]]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))  # a last question may lack its answer
    if not pairs:
        raise DataError("no question has an answer; there is nothing to learn. Remove the entry.")
    return pairs


def _message(message: Any, place: int) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise DataError(f"message {place} must be a JSON object, got {_kind(message)}.")
    speaker, text = message.get("from"), message.get("value")
    if speaker not in (HUMAN, MODEL):
        raise DataError(f"message {place} is 'from' {speaker!r}; must be {HUMAN!r} or {MODEL!r}.")
    if not isinstance(text, str):
        raise DataError(f"message {place} must have a text as 'value', got {_kind(text)}.")
    return speaker, text


def _turns(pairs: list[tuple[str, str]], has_image: bool) -> tuple[tuple[str, str], ...]:
    """Check tags and emptiness; strip."""
    tags = [question.count(IMAGE_TAG) for question, _ in pairs]
    wanted = [int(has_image)] + [0] * (len(pairs) - 1)
    if tags != wanted:
        rule = (
            f"an entry with an image has {IMAGE_TAG} once, in its first question"
            if has_image
            else f"an entry without 'image' has no {IMAGE_TAG}"
        )
        raise DataError(f"{rule}; its questions have {tags} of them.")
    turns = tuple((q.replace(IMAGE_TAG, "").strip(), a.strip()) for q, a in pairs)
    for place, (question, answer) in enumerate(turns, start=1):
        for what, text in (("question", question), ("answer", answer)):
            if not text:
                raise DataError(f"{what} {place} is empty. Fill it in, or remove the turn.")
    return turns


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
