"""A log as one page to look through: it loads nothing but, where asked, images beside it.

The log is packed into the page: columns as base64, every text once; `templates/browse_filter.js` is
the other side. Notation: N examples, K options; columns of cells are (N * K,), examples one after
the other.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m3router.data.errors import DataError
from m3router.data.log.checks import LENGTH
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import atomic_write_text
from m3router.data.media_files import file_in, find_file, leaves_folder
from m3router.data.plain_files import real_path
from m3router.data.videos import FRAMES
from m3router.router.metrics.choices import Floats
from m3router.router.metrics.oracles import NEVER, answer_codes, smallest_sufficient
from m3router.router.reports.log_summary import total
from m3router.router.reports.log_summary_tables import shown_tables
from m3router.router.reports.log_summary_types import Inspection
from m3router.router.reports.page_parts import allowed_scripts, script_json, thumbnail
from m3router.router.text.expected import expected_text
from m3router.router.text.words import words_of

TEMPLATE = "browse.html"
SCRIPTS = ("browse_filter.js", "browse_page.js")
THUMBNAIL = 96  # pixels, the longer side
THUMBNAILS = 2000
QUALITY = 70  # of the JPEG

Progress = Callable[[int, int, str], None]
Column = dict[str, Any]

_DIGITS = re.compile(r"(\d+)")
_FEW = 65_536  # distinct numbers that are worth a table


class Texts:
    """Gives every distinct text one number; 0 stands for no text."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def codes(self, texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
        """Numbers of texts, in their order."""
        number = self.number
        found = [0 if text is None else number.setdefault(text, len(number) + 1) for text in texts]
        return np.array(found, dtype=np.int64)

    def list(self) -> list[str]:
        """All texts, by number."""
        return ["", *self.number]


def pack_codes(codes: npt.NDArray[np.integer]) -> Column:
    """Whole numbers of at least 0, in as few bytes as their largest needs."""
    largest = int(codes.max(initial=0))
    kind = next(kind for kind in ("u1", "u2", "u4") if largest <= np.iinfo(np.dtype(kind)).max)
    return {"type": kind, "data": _base64(codes.astype("<" + kind))}


def pack_numbers(values: Floats) -> Column:
    """Numbers or NaN: exactly by a table where few differ, else in single precision."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    distinct, codes = np.unique(flat, return_inverse=True)
    if len(distinct) <= _FEW and 2 * len(distinct) <= max(len(flat), 2):
        table = [value if np.isfinite(value) else None for value in distinct.tolist()]
        return {**pack_codes(codes.reshape(-1)), "values": table}
    return {"type": "f4", "data": _base64(flat.astype("<f4"))}


def pack_log(log: OracleLog, rules: Sequence[str]) -> dict[str, Any]:
    """Everything that the page shows of the examples, as JSON values.

    Args:
        log: Any log.
        rules: Names in `m3router.router.metrics.oracles.RULES`; one that cannot be applied is left
            out.

    Returns:
        "options", "option" (what one is called), "unit", "rules", "datasets", "ids", "strings",
        "images" (relative paths; "" where there is none or it leaves its folder), and packed
        columns: "examples" (dataset,
        question, image, expected, metric, cost, flops), "cells" (answer, said, error, cut, score,
        confidence, cost, flops, answer_tokens, text_tokens), "smallest" (per rule: option, K for
        never, K + 1 for an example with a gap) and "orders" (id, cost, disagreement: example
        numbers).
    """
    texts = Texts()
    said = answer_codes(log.laid_out("answer"))
    datasets = {name: code for code, name in enumerate(dict.fromkeys(log.datasets.tolist()))}
    images = {name: code for code, name in enumerate(dict.fromkeys(log.images.tolist()))}
    cost, flops = total(log.costs), total(log.flops)
    numbers = ("score", "confidence", "cost", "flops", "answer_tokens", "text_tokens")
    smallest = {rule: _smallest(log, rule, said) for rule in rules}
    usable = [rule for rule, column in smallest.items() if column is not None]
    return {
        "options": list(log.options),
        "option": words_of(log).of("scale"),
        "unit": log.cost_unit,
        "rules": usable,
        "datasets": list(datasets),
        "ids": list(log.ids),
        "images": ["" if leaves_folder(name) else name for name in images],
        "examples": {
            "dataset": pack_codes(np.array([datasets[name] for name in log.datasets])),
            "question": pack_codes(texts.codes(log.questions)),
            "image": pack_codes(np.array([images[name] for name in log.images])),
            "expected": pack_codes(texts.codes([expected_text(one) for one in log.references])),
            "metric": pack_codes(texts.codes(log.metrics)),
            "cost": pack_numbers(cost),
            "flops": pack_numbers(flops),
        },
        "cells": {
            "answer": pack_codes(texts.codes(log.laid_out("answer").ravel())),
            "error": pack_codes(texts.codes(log.laid_out("error").ravel())),
            "said": pack_codes(said.ravel() + 1),
            "cut": pack_codes((log.laid_out("finish") == LENGTH).ravel().astype(np.int64)),
            **{name: pack_numbers(log.laid_out(name)) for name in numbers},
        },
        "smallest": {rule: pack_codes(smallest[rule]) for rule in usable},
        "orders": {name: pack_codes(order) for name, order in orders(log, said).items()},
        "strings": texts.list(),
    }


def orders(log: OracleLog, said: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.intp]]:
    """Example numbers (N,): by id, by falling cost, by falling number of different answers.

    Ties stay as logged; where cost and GFLOPs are unknown, an example comes last. GFLOPs are
    the cost where any are known.
    """
    flops = total(log.flops)
    spent = flops if np.isfinite(flops).any() else total(log.costs)
    ranked = np.sort(said, axis=1)
    known = ranked >= 0
    new = np.diff(ranked, axis=1, prepend=-1) != 0
    return {
        "id": np.array(sorted(range(len(log)), key=[_natural(one) for one in log.ids].__getitem__)),
        "cost": np.argsort(-np.nan_to_num(spent, nan=-1.0), kind="stable"),
        "disagreement": np.argsort(-(new & known).sum(axis=1), kind="stable"),
    }


def _smallest(log: OracleLog, rule: str, said: npt.NDArray[np.integer]) -> Any:
    """Smallest sufficient option (N,), K for never, K + 1 for gaps; None where not applicable."""
    whole, options = log.complete, len(log.options)
    if not whole.any() or (rule == "matches_full" and (said[whole] < 0).any()):
        return None
    found = smallest_sufficient(rule, log.scores[whole], log.costs[whole], said[whole])
    column = np.full(len(log), options + 1)
    column[whole] = np.where(found == NEVER, options, found)
    return column


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Numbers in a text count as numbers: e2 before e10."""
    parts = enumerate(_DIGITS.split(text))
    return [(1, int(part), "") if odd % 2 else (0, 0, part) for odd, part in parts]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A page that was written.

    Attributes:
        path: The file.
        size: Its bytes.
        inside: Images that are in the page.
        linked: Images that the page loads from the images folder when they are looked at.
        unreadable: Images that could not be read, with the cause of the first.
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
        images: Folder of the images; without it none are shown.
        thumbnails: At most so many images go into the page, in the log's order; the others
            are found by their path relative to the page.
        notes: What a reader should know about the log.
        progress: Called with (done, total, note) while images are read.

    Raises:
        DataError: The images folder does not exist, or the page cannot be written.
    """
    if images is not None and not os.path.isdir(images):
        raise DataError(f"{images} is not a folder: give the one that the image paths start from.")
    packed = pack_log(log, inspection.rules)
    inside: dict[int, str] = {}
    broken: dict[int, str] = {}
    if images is not None:
        frames = log.metadata.get("frames", FRAMES)
        wanted = [(code, name) for code, name in enumerate(packed["images"]) if name][:thumbnails]
        for done, (code, name) in enumerate(wanted, 1):
            try:
                inside[code] = thumbnail(
                    file_in(images, name),
                    pixels=THUMBNAIL,
                    kind="JPEG",
                    frames=frames,
                    quality=QUALITY,
                )
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
        loader=PackageLoader("m3router.router.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = page_script()
    return environment.get_template(TEMPLATE).render(
        script=Markup(script),
        allowed=Markup(allowed_scripts(script)),
        data=Markup(script_json(packed)),
        tables=shown_tables(inspection),
        notes=notes,
        examples=inspection.parts[0].examples,
        scales=len(inspection.options),
        worded=inspection.words.of,
    )


def page_script() -> str:
    """The page's script: filters first, then what draws."""
    folder = files("m3router.router.reports") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


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
        path = Path(os.path.relpath(real_path(folder), real_path(page).parent)).as_posix()
    except ValueError:
        return ""
    return quote(f"./{path}/", safe="/.")
