"""What goes into a page: pictures, numbers and the scripts that it may run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from data.errors import DataError
from data.media_files import file_in
from data.videos import open_picture

THUMBNAIL = 192  # pixels, the longer side
_NEUTRAL = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}


def as_json(value: Any) -> Markup:
    """A value as JSON that can stand in a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, code in _NEUTRAL.items():
        text = text.replace(letter, code)
    return Markup(text)


def allowed_scripts(*scripts: str) -> str:
    """The sources of a Content-Security-Policy's script-src that allow just these scripts.

    Raises:
        DataError: when a script has something that would end or change its element.
    """
    for script in scripts:
        found = [word for word in ("</script", "<!--", "\r", "\0") if word in script]
        if found:
            raise DataError(f"A script with {found} cannot be put into a page.")
    hashes = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts]
    return " ".join(f"'sha256-{base64.b64encode(one).decode('ascii')}'" for one in hashes)


def thumbnails(
    examples: list[dict[str, Any]], images: Path | None, *, frames: int
) -> dict[str, str]:
    """Example id -> data URI of its picture, for those that can be read."""
    found: dict[str, str] = {}
    if images is None or not os.path.isdir(images):
        return found
    for example in examples:
        try:
            picture = open_picture(file_in(images, example["image"]), frames=frames)
        except DataError:
            continue
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        found[example["id"]] = f"data:image/png;base64,{encoded}"
    return found
