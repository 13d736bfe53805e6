"""A log as one page to look through: it loads nothing but, where asked, pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data.errors import DataError
from data.log.oracle_log import OracleLog
from data.manifest import atomic_write_text
from data.media_files import file_in, find_file
from data.videos import FRAMES, open_picture
from router.analysis.browse_data import pack_log, script_json
from router.analysis.inspected import Inspection
from router.analysis.inspection_tables import shown_tables

TEMPLATE = "browse.html"
SCRIPTS = ("browse_filter.js", "browse_page.js")
THUMBNAIL = 96  # pixels, the longer side
THUMBNAILS = 2000
QUALITY = 70  # of the JPEG

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A page that was written.

    Attributes:
        path: The file.
        size: Its bytes.
        inside: Pictures that are in the page.
        linked: Pictures that the page loads from the images folder when they are looked at.
        unreadable: Pictures that could not be read, with the cause of the first.
    """

    path: Path
    size: int
    inside: int
    linked: int
    unreadable: int
    cause: str


def write_page(
    log: OracleLog,
    inspection: Inspection,
    page: Path,
    *,
    images: Path | None = None,
    thumbnails: int = THUMBNAILS,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Written:
    """Write the page.

    Args:
        log: What is shown.
        inspection: Of this log; its tables stand on top.
        page: The file.
        images: Folder of the pictures; without it none are shown.
        thumbnails: At most so many pictures go into the page, in the log's order; the others
            are found by their path relative to the page.
        notes: What a reader should know about the log.
        progress: Called with (done, total, note) while pictures are read.

    Raises:
        DataError: The images folder does not exist, or the page cannot be written.
    """
    if images is not None and not os.path.isdir(images):
        raise DataError(f"{images} is no folder: give the one that the image paths start from.")
    packed = pack_log(log, inspection.rules)
    inside: dict[int, str] = {}
    broken: dict[int, str] = {}
    if images is not None:
        frames = log.metadata.get("frames", FRAMES)
        wanted = [(code, name) for code, name in enumerate(packed["images"]) if name][:thumbnails]
        for done, (code, name) in enumerate(wanted, 1):
            try:
                inside[code] = thumbnail(file_in(images, name), frames=frames)
            except DataError as error:
                broken[code] = str(error)
            if progress:
                progress(done, len(wanted), "")
        packed["folder"] = relative_url(images, page)
        packed["files"] = spelled_otherwise(images, packed["images"])
    packed["thumbnails"] = {**inside, **dict.fromkeys(broken, "")}
    text = render(packed, inspection, notes=notes)
    atomic_write_text(page, text)
    named = sum(1 for name in packed["images"] if name)
    return Written(
        path=page,
        size=page.stat().st_size,
        inside=len(inside),
        linked=named - len(inside) - len(broken) if images is not None else 0,
        unreadable=len(broken),
        cause=next(iter(broken.values()), ""),
    )


def render(packed: dict[str, Any], inspection: Inspection, *, notes: Sequence[str] = ()) -> str:
    """The page as a text.

    Only the script whose hash stands in the page's policy can run, and it writes texts of the
    log as text only.
    """
    environment = Environment(
        loader=PackageLoader("router.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = page_script()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(TEMPLATE).render(
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=Markup(script_json(packed)),
        tables=shown_tables(inspection),
        notes=notes,
        examples=inspection.parts[0].examples,
        scales=len(inspection.options),
        worded=inspection.words.of,
    )


def page_script() -> str:
    """The page's script: filters first, then what draws."""
    folder = files("router.analysis") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


def thumbnail(path: Path, *, frames: int = FRAMES) -> str:
    """A picture or video as a small JPEG in a data URI.

    Raises:
        DataError: It cannot be read.
    """
    picture = open_picture(path, frames=frames)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spelled_otherwise(images: Path, names: Sequence[str]) -> dict[int, str]:
    """Number of an image path -> path of its file, where that is not spelled the same."""
    found = {code: find_file(images / name) for code, name in enumerate(names) if name}
    return {
        code: path.relative_to(images).as_posix()
        for code, path in found.items()
        if path != images / names[code]
    }


def relative_url(folder: Path, page: Path) -> str:
    """The address of a folder as seen from a page, with a slash at its end; "" on other drives."""
    try:
        path = Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()
    except ValueError:
        return ""
    return quote(f"./{path}/", safe="/.")
