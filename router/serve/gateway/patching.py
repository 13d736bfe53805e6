"""An option applied to a body: nothing changes but what the option says."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.merge_patch import merge_patch
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.serve.gateway.bodies import Json, Place, ReadBody, written
from m3router.router.serve.gateway.wishes import FIELD

LOSSLESS = ("png", "webp:lossless")
LONG = 1024
"""Letters of a URL that is not looked at letter by letter."""

_MARK = secrets.token_hex(16)
"""Stands for a URL before anything is sent: nobody ever sees it, so that no text can hold it."""
_MARKED = re.compile(rf"{_MARK}-(\d+)-".encode())


@dataclass(frozen=True, kw_only=True)
class ImagePatch:
    """What becomes of one image's part.

    Attributes:
        image: Merge patch of the image's object.
        url: In place of the image's own; None to leave that.
    """

    image: Mapping[str, Any]
    url: str | None = None


def patched(
    body: Mapping[str, Any], option: EndpointOption, images: Mapping[Place, ImagePatch]
) -> Json:
    """A body as an option asks it.

    Args:
        body: As it came; not changed.
        option: Whose model and merge patch of the body are applied.
        images: Where an image's part is -> what becomes of it.

    Returns:
        A new body that shares what was not changed with the old one.
    """
    touched = merge_patch({name: body[name] for name in option.body if name in body}, option.body)
    new: Json = {}
    for name, value in body.items():
        if name == FIELD:
            continue
        if name not in option.body:
            new[name] = value
        elif name in touched:
            new[name] = touched[name]
    new.update(touched)
    if option.model is not None:
        new["model"] = option.model
    for place, patch in images.items():
        _change(new, place, partial(_part, patch))
    return new


def written_apart(
    body: Mapping[str, Any], places: Iterable[Place], came: ReadBody | None = None
) -> bytes:
    """The same bytes as :func:`.bodies.written` gives, without a look at each letter of an image.

    Args:
        body: To be written; not changed.
        places: Of parts with images.
        came: Of what it was made, see :func:`.bodies.written`.
    """
    new, texts = dict(body), list[bytes]()
    for place in places:
        name = str(place[0])
        if came is None or came.text_of(name, body[name]) is None:
            _change(new, place, partial(_shortened, texts))
    pieces = _MARKED.split(written(new, came))
    pieces[1::2] = (texts[int(number)] for number in pieces[1::2])
    return b"".join(pieces)


def _shortened(texts: list[bytes], part: Any) -> Any:
    """An image's part with a mark for its URL, where that is written as it is."""
    found = part.get("image_url")
    url = found.get("url") if isinstance(found, Mapping) else found
    if not isinstance(url, str) or len(url) < LONG or not url.isascii():
        return part
    text = url.encode("ascii")
    letters = np.frombuffer(text, np.uint8)
    if b'"' in text or b"\\" in text or letters.min() < ord(" ") or letters.max() > ord("~"):
        return part
    short = f"{_MARK}-{len(texts)}-"
    texts.append(text)
    return {**part, "image_url": short if found is url else {**found, "url": short}}


def _change(container: Any, place: Place, change: Callable[[Any], Any]) -> None:
    """Change the part at a place, in copies of all that is around it."""
    name, *rest = place
    inner = container[name]
    if not rest:
        container[name] = change(inner)
        return
    container[name] = list(inner) if isinstance(inner, list) else dict(inner)
    _change(container[name], tuple(rest), change)


def _part(patch: ImagePatch, part: Any) -> Any:
    """An image's part, changed.

    The object that is patched is ``image_url`` in chat bodies, also where a text stands for it, and
    the part itself where it is an ``input_image``, whose ``image_url`` is a text.
    """
    if not patch.image and patch.url is None:
        return part
    changed = dict(part)
    found = changed.get("image_url")
    if changed.get("type") == "input_image":
        changed = merge_patch(changed, patch.image)
        if patch.url is not None:
            changed["image_url"] = patch.url
        return changed
    inner = merge_patch(found if isinstance(found, Mapping) else {"url": found}, patch.image)
    if patch.url is not None:
        inner["url"] = patch.url
    changed["image_url"] = inner
    return changed


def re_encoded(sending: Sending, size: tuple[int, int], encodings: Collection[str]) -> bool:
    """Whether an image is encoded anew; else it goes on with the bytes that came.

    Args:
        sending: Of the option.
        size: Of the image, width and height.
        encodings: Of all options. Where they differ, a lossy one is part of what an option is.
    """
    if sending.size(*size) != size:
        return True
    return len(encodings) > 1 and sending.encoding not in LOSSLESS


def may_re_encode(sending: Sending, encodings: Collection[str]) -> bool:
    """Whether there are images that are encoded anew, so that an image's size must be known."""
    limited = sending.longest_side is not None or sending.max_pixels is not None
    return limited or (len(encodings) > 1 and sending.encoding not in LOSSLESS)
