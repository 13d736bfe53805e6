"""From the bytes of a body to a `ChatRequest`, or to one sentence about the field that is wrong.

Places are told as OpenAI tells them: ``messages[0].content[1].image_url.url``. What came is told
back only where it is short and cannot be an image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from m3router.router.serve.errors import ApiError
from m3router.router.serve.http.schema import BRANCHES, ChatRequest, kind_of, shown

LONGEST_PLACE = 200
"""Characters of a wrong field's name that are shown: the client may have made it up."""
MOST_FIELDS = 256
"""Of one object; OpenAI's largest has about 40, so that more are an attack or a mistake."""
MOST_ENTRIES = 2_048
"""Of one list; a long conversation is still called one."""

CODES = {
    "bool_type": "invalid_type",
    "dict_type": "invalid_type",
    "float_type": "invalid_type",
    "int_type": "invalid_type",
    "list_type": "invalid_type",
    "model_type": "invalid_type",
    "string_type": "invalid_type",
    "finite_number": "invalid_value",
    "greater_than": "decimal_below_min_value",
    "greater_than_equal": "integer_below_min_value",
    "less_than": "decimal_above_max_value",
    "less_than_equal": "integer_above_max_value",
    "history": "unsupported_value",
    "invalid_image_url": "invalid_image_url",
    "literal_error": "invalid_value",
    "missing": "missing_required_parameter",
    "not_offered": "unsupported_parameter",
    "string_too_long": "string_above_max_length",
    "string_unicode": "invalid_value",
    "too_long": "array_above_max_length",
    "too_short": "empty_array",
    "unknown_field": "unknown_parameter",
    "unknown_part": "invalid_value",
}
"""Type of a validation error to what OpenAI calls it, for programs."""

_WANTED = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "string_type": "a string",
}
_SENTENCES = {
    "finite_number": "It must be a finite number.",
    "greater_than": "It must be greater than {gt:g}, not {input}.",
    "greater_than_equal": "It must be at least {ge:g}, not {input}.",
    "less_than": "It must be less than {lt:g}, not {input}.",
    "less_than_equal": "It must be at most {le:g}, not {input}.",
    "literal_error": "It must be {expected}, not {input}.",
    "missing": "It is missing.",
    "string_too_long": "It is longer than {max_length} characters.",
    "string_unicode": "It holds half of a surrogate pair (such as \\ud83d alone), which is no "
    "character.",
    "too_long": "It has more than {max_length} entries.",
    "too_short": "It must not be empty.",
}


def chat_request(body: bytes) -> ChatRequest:
    """Read a body.

    Raises:
        ApiError: 400, which names the first field that is wrong.
    """
    given = without_nulls(json_of(body))
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        # One is told; there are few, since unknown fields and long lists end the reading early.
        first = error.errors(include_url=False)[0]
        raise _told(first) from None


def json_of(body: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises:
        ApiError: 400 if it is none.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):  # digits beyond Python's limit are a ValueError, too
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(
            400, f"The body must be a JSON object, not {kind_of(value)}.", code="invalid_type"
        )
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def without_nulls(value: Any, place: tuple[str | int, ...] = ()) -> Any:
    """A JSON value without the fields that are null: they were not given.

    Args:
        value: As it came.
        place: Where it stands.

    Raises:
        ApiError: 400 if an object has very many fields, or a list very many entries.
    """
    if isinstance(value, list):
        _check_size(value, MOST_ENTRIES, "A list", "entries", place)
        return [
            without_nulls(one, (*place, number)) if isinstance(one, dict | list) else one
            for number, one in enumerate(value)
        ]
    if isinstance(value, dict):
        _check_size(value, MOST_FIELDS, "An object", "fields", place)
        return {
            name: without_nulls(one, (*place, name)) if isinstance(one, dict | list) else one
            for name, one in value.items()
            if one is not None
        }
    return value


def _check_size(value: Any, most: int, what: str, of: str, place: tuple[str | int, ...]) -> None:
    if len(value) > most:
        where = place_of(place)
        told = f"{where or 'The body'}: {what} must not have more than {most} {of}."
        raise ApiError(400, told, param=where or None, code="array_above_max_length")


def place_of(parts: Sequence[str | int]) -> str:
    """A place in a request, as OpenAI writes it.

    >>> place_of(["messages", 0, "content", 1, "image_url", "url"])
    'messages[0].content[1].image_url.url'
    """
    told = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    # Half of a surrogate pair cannot be sent back.
    return told.removeprefix(".")[:LONGEST_PLACE].encode("ascii", "backslashreplace").decode()


def _told(error: Any) -> ApiError:
    """One of pydantic's errors, in a sentence and with its place."""
    kind, context = error["type"], error.get("ctx") or {}
    parts: list[str | int] = [part for part in error["loc"] if part not in BRANCHES]
    at = context.get("at", "")
    where = place_of([*parts, at] if at != "" else parts)
    came = shown(error["input"])
    if kind == "float_type" and isinstance(error["input"], int):
        kind = "finite_number"  # too large for one
    if kind == "problem":
        kind, sentence = context["kind"], context["sentence"]
    elif kind in _WANTED:
        wrong = came if isinstance(error["input"], float) else kind_of(error["input"])
        sentence = f"It must be {_WANTED[kind]}, not {wrong}."
    else:
        template = _SENTENCES.get(kind, "{message}.")
        sentence = template.format(**{"message": error["msg"], "input": came, **context})
        sentence = sentence.replace(" False,", " false,")
    return ApiError(
        400, f"{where or 'The body'}: {sentence}", param=where or None, code=CODES.get(kind)
    )
