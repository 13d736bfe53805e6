"""What goes into a page that loads nothing: data, the scripts that may run, small images."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from m3router.data.errors import DataError
from m3router.data.videos import open_media


def script_json(document: Mapping[str, Any]) -> str:
    """JSON that can stand in a `<script>` element: nothing in it ends the element or opens one.

    Lone surrogates, which UTF-8 does not have, become JSON's own escapes.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


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


def thumbnail(path: Path, *, pixels: int, kind: str, frames: int, quality: int = 75) -> str:
    """An image or video as a small image in a data URI.

    Args:
        path: of the file.
        pixels: most of the longer side.
        kind: "JPEG", or "PNG" where it is to keep its colours.
        frames: of a video.
        quality: of a JPEG.

    Raises:
        DataError: It cannot be read.
    """
    image = open_media(path, frames=frames)
    image.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    how: dict[str, Any] = {"quality": quality} if kind == "JPEG" else {"optimize": True}
    image.save(buffer, format=kind, **how)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def unbroken(text: str) -> Markup:
    """A sentence in which no line ends within a command's option, as `--max-loss`."""
    parts = re.split(r"(--[a-z][a-z-]*)", text)
    return Markup("").join(
        Markup('<span class="unbroken">{}</span>').format(part) if k % 2 else part
        for k, part in enumerate(parts)
    )
