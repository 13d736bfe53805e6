"""Which kind of log lies at a place, read from the files themselves.

Nothing is guessed: what is of no kind, or of two, is refused with what was seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, listed
from m3router.data.importers.blindtest import FILE as BLINDTEST_FILE
from m3router.data.importers.lmms_eval import MARK, about_runs
from m3router.data.importers.table import REQUIRED
from m3router.data.importers.vlmevalkit import by_model, tables_in
from m3router.data.json_files import parse_json
from m3router.data.log.files import HUB_PARQUET, PARQUET
from m3router.data.manifest import MANIFEST
from m3router.data.registry import nearest, unknown_name
from m3router.data.tables.table import SUFFIXES, read_cells

TABLE, LMMS_EVAL, VLMEVALKIT = "table", "lmms-eval", "vlmevalkit"
BLINDTEST, EXPORTED, RUN = "blindtest", "exported", "run"

KINDS: dict[str, str] = {
    TABLE: f"a row for each question and option, with {', '.join(REQUIRED)}; {', '.join(SUFFIXES)}",
    LMMS_EVAL: f"a folder of runs with *{MARK}<task>.jsonl, or NAME=FOLDER for each option",
    VLMEVALKIT: "a folder of result tables, or NAME=FILE for each option",
    BLINDTEST: f"a folder with {BLINDTEST_FILE}",
    EXPORTED: "a folder that `m3router export` wrote",
    RUN: "a run folder",
}
"""Kind -> what it looks like. All but the last are importers' names."""

BY_OPTION = (LMMS_EVAL, VLMEVALKIT)
"""Kinds of which every option has files of its own."""
MARKER = "advice.json"
"""File of a folder that an advice is kept in: it lies beside logs, and is none of them."""
_SAMPLE_FIELDS = {"doc_id", "filtered_resps"}
_PREDICTIONS = {"index", "prediction"}
_SEEN = 6
_LOOKED_INTO = 20
"""Tables of a folder whose columns are read: those of one folder are of one kind."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A log that was found.

    Attributes:
        kind: A key of :data:`KINDS`.
        source: What its importer reads: a file or folder, or option -> files and folders.
        given: The paths that were named.
    """

    kind: str
    source: Path | Mapping[str, list[Path]]
    given: tuple[Path, ...]


@dataclass(frozen=True)
class _Given:
    """What was typed: paths without a name, and those of named options."""

    bare: list[Path] = field(default_factory=list)
    named: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        return [*self.bare, *(path for paths in self.named.values() for path in paths)]


def recognise(
    sources: Sequence[str], *, kind: str | None = None, columns: Mapping[str, str] | None = None
) -> Recognised:
    """Find out what kind of log some paths are.

    Args:
        sources: Paths, or NAME=PATH for what an option answered; ``*`` in a path stands for
            anything.
        kind: A key of :data:`KINDS`, to be told instead of finding out.
        columns: What a table calls our columns, where it calls them otherwise.

    Raises:
        DataError: A path does not exist, the kind is not known or cannot be told, or the paths are
            not what that kind needs. The message says what was seen and what kinds there are.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(unknown_name("kind of log", kind, KINDS))
    given = _given(sources)
    kind = kind or _one_kind(given, columns or {})
    if kind in BY_OPTION:
        return Recognised(kind=kind, source=_runs(kind, given), given=tuple(given.paths))
    if given.named or len(given.bare) != 1:
        raise DataError(
            f"{_told(given)}: of the kind {kind!r} one path is read, without NAME=. "
            f"NAME=PATH for each option is for {' and '.join(BY_OPTION)}."
        )
    (path,) = given.bare
    if kind == BLINDTEST and path.is_file():
        path = path.parent
    return Recognised(kind=kind, source=path, given=(path,))


def known_kinds() -> str:
    """All kinds with what they look like, for a message."""
    return "; ".join(f"{name} ({text})" for name, text in KINDS.items())


def _given(sources: Sequence[str]) -> _Given:
    given = _Given()
    for source in sources:
        name, mark, rest = source.partition("=")
        named = bool(mark) and not os.path.exists(source)
        if named and not (name.strip() and rest.strip()):
            raise DataError(f"{source!r} must be a path, or NAME=PATH for what an option answered.")
        where = given.named.setdefault(name.strip(), []) if named else given.bare
        found = _matching(rest.strip() if named else source)
        for path in found:
            if len(sources) + len(found) > 2 and (path / MARKER).is_file():
                continue
            if path in given.paths:
                raise DataError(f"{path} is given twice.")
            where.append(path)
    return given


def _matching(text: str) -> list[Path]:
    """The path, or those that it matches where it is a pattern."""
    if os.path.exists(text):
        return [Path(text)]
    found = sorted(map(Path, glob(text)))
    if found:
        return found
    path = Path(text)
    folder = path.parent
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    near = nearest(path.name, there)
    hint = f" Did you mean {str(folder / near)!r}?" if near else ""
    raise DataError(f"{text} does not exist.{hint}")


def _one_kind(given: _Given, columns: Mapping[str, str]) -> str:
    """The kind that all paths are of."""
    found = {path: kinds_at(path, columns) for path in given.paths}
    kinds = {kind for of_path in found.values() for kind in of_path}
    lost = [path for path, of_path in found.items() if not of_path]
    if lost:
        raise DataError(
            f"{lost[0]} is no log of a known kind: {_seen(lost[0])}.\n"
            f"Known kinds: {known_kinds()}.\n--kind NAME says which one it is."
        )
    if len(kinds) > 1:
        where = {kind: next(p for p, own in found.items() if kind in own) for kind in sorted(kinds)}
        told = " and ".join(f"{kind} (in {path})" for kind, path in where.items())
        raise DataError(
            f"There is more than one kind of log: {told}. Give the files of one kind, or say which "
            "one is meant: --kind NAME."
        )
    return kinds.pop()


def kinds_at(path: Path, columns: Mapping[str, str] | None = None) -> set[str]:
    """The kinds of log that a file or folder may be; empty where it is none."""
    if not path.is_dir():
        kind = _kind_of_file(path, columns or {})
        return {kind} if kind else set()
    for kind, there in _FOLDERS.items():
        if there(path):
            return {kind}
    tables = _tables_below(path)
    found = {LMMS_EVAL} if _samples_below(path) else set()
    found |= {_kind_below(table, columns or {}) or "" for table in tables[:_LOOKED_INTO]} - {""}
    if TABLE in found and len(tables) > 1:  # one folder, several tables: which one is meant?
        found.discard(TABLE)
    return found


_FOLDERS: dict[str, Callable[[Path], bool]] = {
    RUN: lambda path: (path / "log" / MANIFEST).is_file(),
    EXPORTED: lambda path: (
        (path / MANIFEST).is_file()
        and any((path / one).is_file() for one in (HUB_PARQUET, PARQUET))
    ),
    BLINDTEST: lambda path: (path / BLINDTEST_FILE).is_file(),
}
"""Kind -> whether a folder is one of it."""


def _kind_of_file(path: Path, columns: Mapping[str, str]) -> str | None:
    if MARK in path.name and path.suffix == ".jsonl":
        return LMMS_EVAL
    if path.name == BLINDTEST_FILE:
        return BLINDTEST
    if path.suffix == ".json" and _is_old_samples(path):
        return LMMS_EVAL
    if Path(path.name.lower().removesuffix(".gz")).suffix not in SUFFIXES:
        return None
    names = {name.lower() for name in read_cells(path).names}
    if names >= _SAMPLE_FIELDS:
        return LMMS_EVAL
    if names >= _PREDICTIONS and not names >= set(REQUIRED):
        return VLMEVALKIT
    ours = {theirs.lower(): name for name, theirs in columns.items()}
    have = {ours.get(name, name) for name in names}
    # A table with most of our columns is one; its importer says what it lacks.
    return TABLE if len(have & set(REQUIRED)) >= len(REQUIRED) - 1 else None


def _kind_below(path: Path, columns: Mapping[str, str]) -> str | None:
    """The same of a file that nobody named: one that cannot be read is none."""
    try:
        return _kind_of_file(path, columns)
    except DataError:
        return None


def _is_old_samples(path: Path) -> bool:
    """Whether a JSON file is of a version of lmms-eval that wrote <task>.json."""
    try:
        content = parse_json(path.read_bytes(), nan=True)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("logs"), list)


def _samples_below(folder: Path) -> list[Path]:
    found = sorted(folder.rglob(f"*{MARK}*.jsonl"))
    old = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]
    return found or [path for path in old if "results" not in path.stem and _is_old_samples(path)]


def _tables_below(folder: Path) -> list[Path]:
    """Tables of a folder and of the folders in it, as VLMEvalKit writes one for each model."""
    below = sorted(one for one in folder.iterdir() if one.is_dir())
    folders = [folder, *(one for one in below if not (one / MARKER).is_file())]
    found: list[Path] = []
    for one in folders:
        try:
            found += tables_in(one)
        except DataError:  # it holds none
            continue
    return [path for path in found if MARK not in path.name]


def _seen(path: Path) -> str:
    """What lies there, in words."""
    if path.is_dir():
        names = sorted(one.name + ("/" if one.is_dir() else "") for one in path.iterdir())
        if not names:
            return "the folder is empty"
        if any(path.rglob("*results.json")):
            return (
                "the folder holds results of lmms-eval without their samples; run it with "
                "--log_samples"
            )
        tables = [one for one in _tables_below(path) if _kind_below(one, {}) == TABLE]
        if len(names) == 1 and (path / names[0]).is_file():
            return f"the folder holds {names[0]}, and {_seen(path / names[0])}"
        if len(tables) > 1:
            return (
                f"the folder holds {len(tables)} tables ({listed([t.name for t in tables], 3)}); "
                "give one of them"
            )
        return f"the folder holds {listed(names, _SEEN)}"
    if Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES:
        names = list(read_cells(path).names)
        if "question" in names and not {"option", "correct"} & set(names):
            return (
                "it holds questions, and not yet what options answered (`m3router label --examples "
                f"{path}` asks a model)"
            )
        return (
            f"its columns are {listed(names, 12)}, and a table needs {', '.join(REQUIRED)} "
            f"(--column {REQUIRED[0]}=THEIRS names one that is called otherwise)"
        )
    return f"the file ends in {path.suffix or 'no suffix'!r}"


def _told(given: _Given) -> str:
    return listed([str(path) for path in given.paths], 3)


def _runs(kind: str, given: _Given) -> dict[str, list[Path]]:
    """The files of each option; those without a name are named by where they lie."""
    found = {name: list(paths) for name, paths in given.named.items()}
    own = _by_run(given.bare) if kind == LMMS_EVAL else _by_table(given.bare)
    for name, paths in own.items():
        found.setdefault(name, []).extend(paths)
    if len(found) < 2:
        raise DataError(
            f"{_told(given)} is what one option answered, so there is nothing to choose between. "
            f"Give another option's answers, too: ONE={given.paths[0]} OTHER=PATH."
        )
    return found


def _by_table(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Tables by the model that their names begin with."""
    tables: list[Path] = []
    for path in paths:
        below = _tables_below(path) if path.is_dir() else []
        tables += [one for one in below if _kind_below(one, {}) == VLMEVALKIT] or below or [path]
    return by_model(tables)


def _by_run(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Samples files by the run that wrote them."""
    files = [file for path in paths for file in (_samples_below(path) if path.is_dir() else [path])]
    if not files:
        return {}
    parents = [file.resolve().parent for file in files]
    common = Path(os.path.commonpath(parents))
    inside = [parent.relative_to(common).parts for parent in parents]
    found: dict[str, list[Path]] = {}
    if all(inside):  # a folder for each option: its name is the option's
        for file, parts in zip(files, inside, strict=True):
            found.setdefault(parts[0], []).append(file)
        return found
    for file in files:
        # "run" keeps a date from being read as a number, which would be a cost.
        found.setdefault(f"run {file.stem.partition(MARK)[0]}", []).append(file)
    return _by_settings(found)


def _by_settings(runs: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """Runs in one folder by the setting in which they differ, where their results tell it."""
    settings = {date: _settings(files) for date, files in runs.items()}
    differing = [
        key
        for key in dict.fromkeys(key for one in settings.values() for key in one)
        if len({one.get(key) for one in settings.values()}) == len(runs)
    ]
    if len(runs) < 2 or not differing:
        return dict(runs)
    key = differing[0]
    return {f"{key} {settings[date].get(key, '')}".strip(): files for date, files in runs.items()}


def _settings(files: list[Path]) -> dict[str, Any]:
    """The model's arguments that a run's results file tells."""
    told = str(about_runs(files[:1]).get("model_args") or "")
    return dict(re.findall(r"(\w+)=([^,]*)", told))
