"""Examples of the user's own, in whatever file or object they are.

JSON Lines, a JSON list, CSV, TSV, Parquet, Excel, a dataset of the ``datasets`` library or the
folder that it was saved to, a DataFrame, or a list of objects: all are read as rows of the same
columns. What a table's cell holds is read in one way (:mod:`m3router.data.tables.cells`): an empty
one is not given, and numbers are the texts they are written as.
"""

from __future__ import annotations

import difflib
import os
import string
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, listed
from m3router.data.example import Example
from m3router.data.json_files import parse_json
from m3router.data.media_files import brief, find_file, leaves_folder
from m3router.data.paths import StrPath, as_path_or_none
from m3router.data.scoring.metrics import AGREEMENT
from m3router.data.sources.benchmarks.base import LETTER, lettered, placed
from m3router.data.sources.image_files import PRIVATE, content_name, save_bytes
from m3router.data.sources.image_values import image_in
from m3router.data.sources.jsonl import METADATA, RECORDED, SHOWN
from m3router.data.sources.rows import Rows, Values, plain, read_rows
from m3router.data.tables.cells import number_of

ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "index", "question_id"),
    "image": ("image", "video", "img", "images", "image_path", "file_name"),
    "answers": ("answers", "answer"),
    "choices": ("choices", "options"),
}
"""Field of an example -> the names that a column of it may have; the first that is filled in
counts. The others have one name."""
_FIELDS = tuple(field.name for field in fields(Example))
_NAMES = {alias: name for name in _FIELDS for alias in ALIASES.get(name, (name,))}
_NOT_READ = frozenset({METADATA, *RECORDED})
_HINT = "hint"
_LETTERS = string.ascii_uppercase
_ALIKE = 0.8
_SHORT = 64
"""Longest text of an image that may be the id of another row, whose image it is (VLMEvalKit)."""


class Examples(list[Example]):
    """Examples, and what is known of where they came from.

    Attributes:
        images: The folder that their image paths start from.
        notes: What was assumed while they were read, in sentences.
    """

    images: Path
    notes: tuple[str, ...]

    def __init__(self, examples: Iterable[Example], *, images: Path, notes: Iterable[str]) -> None:
        super().__init__(examples)
        self.images = images
        self.notes = tuple(notes)


def load_examples(
    source: Any,
    *,
    images: StrPath | None = None,
    store: StrPath | None = None,
    looks: bool = True,
) -> Examples:
    """Read examples, whatever they are in.

    Columns are the fields of :class:`m3router.data.example.Example`; ``image`` and ``question`` are
    needed. Small and capital letters are alike. Also read are ``answer`` for ``answers``,
    ``video``, ``image_path`` and others for ``image`` (see :data:`ALIASES`), and choices in columns
    ``A``, ``B``, ``C`` ..., which the question is then asked with. Several answers or choices in a
    cell of text are a JSON list. Without ``id`` the number of the row is the id. Examples without
    answers are scored by agreement with the finest option. Other columns are not used, and that is
    noted; one whose name is nearly that of a field is refused.

    Images are paths, or the images themselves: bytes, base64, objects with ``bytes`` as the
    ``datasets`` library has them, or Pillow's. These are written to ``store``, each once, under the
    name of its content; so questions about the same image share a group.

    Args:
        source: Path of a file (.jsonl, .json, .csv, .tsv, .parquet, .xlsx, or any other name) or of
            a folder that a dataset was saved to; or a ``datasets.Dataset``, a
            ``pandas.DataFrame``, or objects (mappings or examples).
        images: Folder that relative image paths start from. None looks beside the file, and in its
            folder ``images``. Absolute paths may lead elsewhere: then the folder of the result is
            the nearest one above all images.
        store: Folder that images in the source are written to; it is made when it is missing.
        looks: Whether the images are of interest; else none is written.

    Returns:
        The examples in the order of the source, with the folder of their images.

    Raises:
        DataError: The source cannot be read, or rows are bad: up to 20 of them are listed with
            their numbers.
    """
    folder = as_path_or_none(images)
    if folder is not None and not os.path.isdir(folder):
        raise DataError(f"The images folder {folder} does not exist. Check the path.")
    rows = read_rows(source, raw=frozenset(ALIASES["image"]))
    reader = _Reader(rows, store=as_path_or_none(store), looks=looks)
    found = reader.read()
    names, base = _placed(reader, found, folder)
    examples: list[Example] = []
    first: dict[str, int] = {}
    for name, (number, values) in zip(names, found, strict=True):
        try:
            if isinstance(name, DataError):
                raise name
            example = Example.from_dict({**values, "image": name})
        except DataError as error:
            reader.problems[number] = str(error)
            continue
        before = first.setdefault(example.id, number)
        if before != number:
            reader.problems[number] = f"duplicate id {example.id!r}, first on {rows.unit} {before}."
        examples.append(example)
    if reader.problems:
        raise DataError(_report(rows, reader.problems))
    if not examples:
        raise DataError(f"{rows.source} holds no examples.")
    return Examples(examples, images=base, notes=reader.notes(examples))


class _Reader:
    """Turns rows into the fields of examples, whose images are paths as they were given."""

    def __init__(self, rows: Rows, *, store: Path | None, looks: bool) -> None:
        self.rows = rows
        self.store = store
        self.looks = looks
        self.problems: dict[int, str] = {}
        self.stored: set[str] = set()
        self._unused: dict[str, None] = {}
        self._columns: dict[tuple[str, ...], dict[str, list[str]]] = {}
        self._numbered: set[int] = set()

    def read(self) -> list[tuple[int, Values]]:
        """The rows that can be read; the others are in :attr:`problems`."""
        found: list[tuple[int, Values]] = []
        by_id: dict[str, str] = {}
        places: list[int] = []
        for place, (number, values) in enumerate(self.rows.rows, start=1):
            if isinstance(values, DataError):
                self.problems[number] = str(values)
                continue
            try:
                one = self._fields(values, place)
            except DataError as error:
                self.problems[number] = str(error)
                continue
            if one["image"] in self.stored:
                by_id.setdefault(one["id"], one["image"])
            found.append((number, one))
            places.append(place)
        for _, one in found:
            if len(one["image"]) <= _SHORT and one["image"] not in self.stored:
                one["image"] = by_id.get(one["image"], one["image"])
        without = sum(place in self._numbered for place in places)
        if 0 < without < len(found):
            raise DataError(
                f"{self.rows.source}: {without} of {len(found)} {self.rows.unit}s have no id. Give "
                "all of them one, or none."
            )
        return found

    def notes(self, examples: list[Example]) -> list[str]:
        """What was assumed."""
        told = []
        if self._numbered:
            told.append(
                "there is no column of ids: the numbers of the rows are the ids, so add examples "
                "at the end only"
            )
        if self._unused:
            one = len(self._unused) == 1
            named = listed(list(self._unused), 8)
            lacking = all(example.metric == AGREEMENT for example in examples)
            told.append(
                f"the column{'' if one else 's'} {named} {'is' if one else 'are'} not used"
                f"{'; right answers are read from a column called answers' if lacking else ''}"
            )
        if self.stored and self.store is not None:
            count = len(self.stored)
            what = "image is a file" if count == 1 else "images are files"
            told.append(f"the source holds its images: {count} {what} in {self.store} now")
        return told

    def _fields(self, values: Values, place: int) -> Values:
        columns = self._columns_of(tuple(map(str, values)))
        given = {
            name: self._first(name, [values[one] for one in names])
            for name, names in columns.items()
            if name in _NAMES.values() and name != "image"
        }
        found = {name: value for name, value in given.items() if value not in (None, "")}
        for name in ("id", "metric", "dataset", "group"):
            if isinstance(found.get(name), str):
                found[name] = found[name].strip()
        self._letters(values, columns, found)
        for name in ("answers", "choices"):
            if name in found:
                found[name] = _texts(found[name])
        if not found.get("answers"):
            if found.setdefault("metric", AGREEMENT) == AGREEMENT:
                found["answers"] = []
            else:
                found.pop("answers", None)
        for name in ("max_new_tokens", "chance"):
            if isinstance(found.get(name), str):
                found[name] = _number(found[name])
        if "id" not in found:
            self._numbered.add(place)
            found["id"] = str(place)
        return {**found, "image": self._image(found["id"], columns, values)}

    def _first(self, name: str, given: list[Any]) -> Any:
        """The first value that is there; answers may not be told twice."""
        there = [one for one in map(plain, given) if not _is_blank(one)]
        if name == "answers" and len(there) > 1:
            raise DataError("has both 'answer' and 'answers'.")
        return there[0] if there else None

    def _letters(self, values: Values, columns: dict[str, list[str]], found: Values) -> None:
        """Choices in columns A, B, C ... are part of the question, as benchmarks ask it."""
        if _LETTERS not in columns or "choices" in found or "question" not in found:
            return
        cells = [plain(values[name]) for name in columns[_LETTERS]]
        choices = placed([None if _is_blank(cell) else cell for cell in cells])
        if len(choices) < 2:
            return
        hints = [plain(values[name]) for name in columns.get(_HINT, ())]
        hint = "".join(f"{one}\n" for one in hints if not _is_blank(one))
        found["choices"] = list(choices)
        found["question"] = f"{hint}{found['question']}\n{lettered(choices)}\n{LETTER.strip()}"
        if found.get("answers") is not None:
            found.setdefault("metric", "choice")

    def _image(self, owner: str, columns: dict[str, list[str]], values: Values) -> str:
        held = None
        for name in columns.get("image", ()):
            try:
                held = image_in(values[name])
            except DataError as error:
                raise DataError(f"Example {owner!r}: {name!r} {str(error).rstrip('.')}.") from error
            if held is not None:
                break
        if held is None:
            if not self.looks:
                return "none"
            raise DataError(f"Example {owner!r}: missing image.")
        if isinstance(held, str):
            return held
        name = content_name(held)
        if self.looks:
            if self.store is None:
                raise DataError(
                    f"Example {owner!r} holds its image itself: say where images are to be "
                    "written (store=FOLDER)."
                )
            name = save_bytes(self.store, held, mode=PRIVATE)
        self.stored.add(name)
        return name

    def _columns_of(self, names: tuple[str, ...]) -> dict[str, list[str]]:
        """Field -> the columns that may hold it, best first; and the letters of choices."""
        if names in self._columns:
            return self._columns[names]
        folded: dict[str, str] = {}
        for name in names:
            own = _folded(name)
            if own in folded:
                raise DataError(f"has two columns that read as {own!r}: rename one of them.")
            folded[own] = name
        found: dict[str, list[str]] = {}
        for alias, name in _NAMES.items():
            if alias in folded:
                found.setdefault(name, []).append(folded[alias])
        letters = [name for name in _LETTERS if name in folded.values()]
        if letters[:2] == ["A", "B"] and "choices" not in found:
            found[_LETTERS] = letters
            found[_HINT] = [folded[_HINT]] if _HINT in folded else []
        used = {one for group in found.values() for one in group}
        for own, name in folded.items():
            if name in used or own in _NOT_READ:
                continue
            close = difflib.get_close_matches(own, _NAMES, n=1, cutoff=_ALIKE)
            if close and _NAMES[close[0]] not in found:
                kind = "field" if self.rows.unit == "line" else "column"
                raise DataError(f"Unknown {kind} {name!r}. Did you mean {close[0]!r}?")
            self._unused[name] = None
        missing = [name for name in ("image", "question") if name not in found]
        if missing and self.looks:
            have = listed(list(names), 12)
            raise DataError(f"there is no {' and no '.join(missing)}; the columns are {have}.")
        self._columns[names] = found
        return found


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _texts(value: Any) -> list[Any]:
    """A list of texts of a cell: one text, or a JSON list of texts or numbers."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            read = parse_json(value)
        except ValueError:
            return [value]
        if not all(one is None or isinstance(one, str | int | float) for one in read):
            return [value]
        value = plain(read)
    if not isinstance(value, list):
        return [value]
    # As VQAv2 has them: an object for each of ten people.
    return [one["answer"] if isinstance(one, Mapping) and "answer" in one else one for one in value]


def _number(text: str) -> int | float | str:
    """A number of a cell, with a point or (as in sheets with semicolons) a comma."""
    found = number_of(text.strip().replace(",", "."))
    if found is None:
        return text
    return int(found) if found.is_integer() and found else found


def _placed(
    reader: _Reader, found: list[tuple[int, Values]], images: Path | None
) -> tuple[list[str | DataError], Path]:
    """Image paths from one folder, and that folder."""
    named = [str(values["image"]) for _, values in found]
    if not reader.looks:
        return list(named), images or reader.rows.home or Path()
    relative = [one for one in named if one not in reader.stored and not os.path.isabs(one)]
    base = images or _beside(reader.rows.home or Path(), relative)
    if images is not None or not any(map(leaves_folder, relative)):
        if len(relative) == len(named):
            return [_inside(one) for one in named], base
        if not relative and not any(map(os.path.isabs, named)) and reader.store is not None:
            return list(named), reader.store
    whole: list[str | DataError] = []
    for one in named:
        start = reader.store if one in reader.stored else None
        path: str | DataError = one
        if images is not None and start is None and not os.path.isabs(one):
            path = _inside(one)
        if isinstance(path, str):
            path = os.path.abspath(os.path.join(start or base, one))
        whole.append(path)
    there = [one for one in whole if isinstance(one, str)]
    root = os.path.abspath(base)
    started = images is not None or bool(relative)
    if not (started and all(one.startswith(os.path.join(root, "")) for one in there)):
        root = os.path.commonpath([os.path.dirname(one) for one in there])
    names: list[str | DataError] = [
        one if isinstance(one, DataError) else Path(os.path.relpath(one, root)).as_posix()
        for one in whole
    ]
    return names, base if root == os.path.abspath(base) else Path(root)


def _inside(name: str) -> str | DataError:
    climbs = leaves_folder(name)
    if not climbs:
        return name
    return DataError(
        f"image {brief(name)!r} {climbs}; give a path inside the images folder, or an absolute one."
    )


def _beside(home: Path, names: list[str]) -> Path:
    """The folder of the file, or its folder ``images`` where more of the images are there."""
    places = (home, home / "images")
    counts = [sum(os.path.lexists(find_file(place / one)) for one in names) for place in places]
    return places[counts.index(max(counts))]


def _report(rows: Rows, problems: Mapping[int, str]) -> str:
    """List the first problems, one a line; one that all rows share is told once."""
    count, unit = len(problems), rows.unit
    if count > 1 and len(set(problems.values())) == 1:
        return f"{rows.source}: {next(iter(problems.values()))}"
    shown = "\n  ".join(f"{unit} {n}: {one}" for n, one in list(problems.items())[:SHOWN])
    rest = f"\n  ... and {count - SHOWN} more" if count > SHOWN else ""
    many = unit if count == 1 else f"{unit}s"
    return f"{rows.source}: {count} bad {many}; no example was taken.\n  {shown}{rest}"
