"""Splits that were given: shares in words, and official assignments of examples or images.

Published logs bring their own parts, such as "train on a fifth of the data". What was given is
kept; only examples of ``train`` are divided here, by image.

Which column holds the ids is remembered from the import, named, or the only one that can be. A
wrong column of numbers covers a log as well as the right one, and puts test questions into
training without a sign of it. So nothing is guessed: where two columns would assign the log's
examples differently, the split is refused with both names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m3router.data.errors import DataError, listed
from m3router.data.json_files import read_json
from m3router.data.registry import unknown_name
from m3router.data.splits.split import FRACTIONS, SPLITS, Split, split_by_parts, spread
from m3router.data.tables.cells import Cell, Nested, key_of, whole_of
from m3router.data.tables.table import Table, read_cells

TRAIN = "train"
"""Divided into all parts but ``test``, in proportion to their shares."""
PARTS = (*SPLITS, TRAIN)
KEYS = ("id", "example_id", "group")
VALUES = ("split", "part")
OTHER_QUESTIONS = 0.1
"""Share of the examples whose question may read otherwise in the split than in the log: wording is
edited now and then, but ids of another column ask something else nearly everywhere."""
_OWN = ("id", "question", "option", "correct")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What a given split must cover.

    Attributes:
        ids: Id of each row of the log, shape (N,).
        groups: Group of each row, shape (N,).
        columns: Our name -> the name in the table that the log was imported from; empty where it
            was not. See :data:`m3router.data.importers.table.COLUMNS`.
        questions: Question of each row, shape (N,); empty where they cannot be compared.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    columns: Mapping[str, str] = field(default_factory=dict)
    questions: Sequence[str] = ()

    def parts(self, assignment: Mapping[str, str]) -> list[str | None]:
        """The part of each row; None where it is not assigned."""
        pairs = zip(self.ids, self.groups, strict=True)
        return [part_of(assignment, name, group) for name, group in pairs]


def part_of(assignment: Mapping[str, str], name: str, group: str) -> str | None:
    """Look an example up by its id, else by its group.

    Both as :func:`m3router.data.tables.cells.keys_of` writes them.

    >>> part_of({"12": "fit", "a.png": "test"}, "12.0", "b.png")
    'fit'
    """
    for key in (name, group):
        plain = key_of(key)
        for form in (key, plain, whole_of(plain)):
            if form in assignment:
                return assignment[form]
    return None


def assignment_of(
    table: Table, *, column: str | None, key: str | None, covered: Covered | None
) -> dict[str, str]:
    """Read which example or group belongs to which part.

    Args:
        table: Has a column of ids or groups and one of parts; several rows of one key must agree.
        column: Its column of parts; None for one of :data:`VALUES`.
        key: Its column of ids or groups. None takes the one that the log's ids were imported
            from, else one of :data:`KEYS`.
        covered: The log's examples. None checks nothing against a log.

    Returns:
        Id or group -> part.

    Raises:
        DataError: Columns are missing, or several could be meant; a key has no part, two or an
            unknown one; or examples of the log are not assigned. The message names the columns.
    """
    value = _value_column(table, column)
    texts = _texts(table, value, table.cells(value))
    if not texts:
        return {}
    remembered = covered.columns.get("id") if covered else None
    if key is not None:
        names = [key]
    elif remembered in table.names:
        names = [str(remembered)]
    else:
        names = _candidates(table, covered, value)
    found = _assignments(table, names, texts)
    first = names[0]
    if covered is None:
        _check_agree(table, {name: one for name, one in found.items() if name in KEYS[:2]})
        return found[first]
    parts = {name: covered.parts(one) for name, one in found.items()}
    whole = {name: one for name, one in parts.items() if None not in one}
    rivals = dict(_rivals(table, names, value, texts, covered))
    if not whole:
        raise DataError(_not_covered(table, found, parts, covered, list(rivals)))
    _check_agree(table, whole)
    chosen = next(iter(whole))
    meant = key is not None or (
        chosen == remembered and (chosen not in KEYS or _is_own(table, covered))
    )
    if not meant:
        _check_agree(table, {chosen: whole[chosen], **rivals})
    if key is None:
        _check_questions(table, chosen, covered)
    return found[chosen]


def _assignments(
    table: Table, names: Sequence[str], texts: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Read the assignment by each column; one that contradicts itself counts only as the first."""
    found = {}
    for name in names:
        try:
            found[name] = _pairs(table, name, texts)
        except DataError:
            if name == names[0]:
                raise
    return found


def _value_column(table: Table, column: str | None) -> str:
    """Find the column of parts."""
    wanted = VALUES if column is None else (column,)
    there = [name for name in wanted if name in table.names]
    if not there:
        raise DataError(
            f"{table.path} needs a column of {' or '.join(KEYS)} and one of {' or '.join(wanted)}; "
            f"it has {listed(table.names, 12)}. Name another column of parts with --split-column, "
            "and of ids with --split-id."
        )
    texts = {name: table.cells(name) for name in there}
    fitting = [name for name in there if all(cell in PARTS for cell in texts[name])] or there[:1]
    if len(fitting) > 1 and texts[fitting[0]] != texts[fitting[1]]:
        raise DataError(
            f"{table.path} has two columns of parts that differ, {fitting[0]!r} and "
            f"{fitting[1]!r}: name the one that is meant with --split-column."
        )
    return fitting[0]


def _candidates(table: Table, covered: Covered | None, value: str) -> list[str]:
    """Columns that may hold ids or groups, by their names."""
    remembered = (
        [covered.columns[name] for name in ("group", "image") if name in covered.columns]
        if covered
        else []
    )
    names = [
        name
        for name in dict.fromkeys([*KEYS, *remembered])
        if name in table.names and name != value
    ]
    if names:
        return names
    known = covered.columns.get("id") if covered else None
    also = (
        f" (or {known!r}, which the log's ids were imported from)"
        if known not in (None, *KEYS)
        else ""
    )
    hint = ""
    if covered:
        parts = _texts(table, value, table.cells(value))
        fits = [name for name, _ in _rivals(table, [], value, parts, covered)]
        hint = f" Its column {fits[0]!r} covers the log." if fits else ""
    raise DataError(
        f"{table.path} needs a column of {' or '.join(KEYS)}{also} and one of "
        f"{' or '.join(VALUES)}; it has {listed(table.names, 12)}.{hint} Name the column of ids "
        "with --split-id."
    )


def _texts(table: Table, name: str, cells: Sequence[Cell]) -> list[str]:
    """A column's texts, empty where a cell is."""
    for row, cell in enumerate(cells, start=1):
        if isinstance(cell, Nested):
            raise DataError(f"{table.path}: {name!r} in row {row} holds {cell.kind}.")
    return [cell if isinstance(cell, str) else "" for cell in cells]


def _pairs(table: Table, name: str, parts: Sequence[str]) -> dict[str, str]:
    """Key -> part by one column of keys."""
    keys = _texts(table, name, table.keys(name))
    found: dict[str, str] = {}
    for row, (key, part) in enumerate(zip(keys, parts, strict=True), start=1):
        if not key:
            raise DataError(f"{table.path}: the column {name!r} is empty in row {row}.")
        check_part(f"{table.path}, {key!r}", part)
        if found.setdefault(key, part) != part:
            raise DataError(
                f"{table.path} puts {key!r} into {found[key]!r} and into {part!r} (column "
                f"{name!r})."
            )
    return found


def check_part(owner: str, part: object) -> None:
    """Refuse what is not a part."""
    if part not in PARTS:
        raise DataError(f"{owner}: {unknown_name('part', str(part), PARTS)}")


def _rivals(
    table: Table, names: Sequence[str], value: str, texts: Sequence[str], covered: Covered
) -> Iterator[tuple[str, list[str | None]]]:
    """Other columns that hold all of the log's ids, and how they would assign its examples."""
    for name in table.names:
        if name in (*names, value) or table.names.count(name) > 1:
            continue
        try:
            found = _pairs(table, name, texts)
        except DataError:  # empty cells, two parts of one key: it identifies nothing
            continue
        parts = [part_of(found, one, one) for one in covered.ids]
        if None not in parts:
            yield name, parts


def _check_questions(table: Table, name: str, covered: Covered) -> None:
    """Refuse a column of ids by which the log's own column of questions asks something else."""
    asked = covered.columns.get("question")
    if asked not in table.names or not covered.questions:
        return
    questions = dict(zip(table.keys(name), table.cells(str(asked)), strict=True))
    other = [
        one
        for one, question in zip(covered.ids, covered.questions, strict=True)
        if questions.get(key_of(one), question) != question
    ]
    if len(other) > OTHER_QUESTIONS * len(covered.ids):
        raise DataError(
            f"{table.path}: by its column {name!r}, {len(other)} of {len(covered.ids)} examples "
            f"have another question than in the log (first: {', '.join(other[:_SHOWN])}). Name "
            "the column of ids with --split-id."
        )


def _is_own(table: Table, covered: Covered) -> bool:
    """Whether it is laid out as the table that the log was imported from."""
    return all(covered.columns.get(name) in table.names for name in _OWN)


def _check_agree(table: Table, found: Mapping[str, object]) -> None:
    """Refuse two columns that assign differently."""
    names = list(found)
    for name in names[1:]:
        if found[name] != found[names[0]]:
            raise DataError(
                f"{table.path} has two columns that may hold the ids, {names[0]!r} and {name!r}, "
                "and they assign the examples differently: name the one that is meant with "
                "--split-id."
            )


def _not_covered(
    table: Table,
    found: Mapping[str, Mapping[str, str]],
    parts: Mapping[str, Sequence[str | None]],
    covered: Covered,
    rivals: Sequence[str],
) -> str:
    """Say which column leaves which examples without a part."""
    told = []
    for name, keys in found.items():
        absent = [one for one, part in zip(covered.ids, parts[name], strict=True) if part is None]
        told.append(
            f"read by its column {name!r} ({', '.join(map(repr, list(keys)[:_SHOWN]))}, ...) it "
            f"does not assign {len(absent)} of {len(covered.ids)} examples, neither by id nor by "
            f"group (first: {', '.join(map(repr, absent[:_SHOWN]))})"
        )
    better = f" Its column {rivals[0]!r} covers the log." if rivals else ""
    return (
        f"The given split {table.path} does not cover the log: {'; '.join(told)}.{better} Assign "
        "every example of the log, or name the column of ids with --split-id."
    )


def shares_in_order(given: Mapping[str, float]) -> tuple[float, ...]:
    """The shares of all parts, checked.

    Args:
        given: Part -> share, for every part of :data:`m3router.data.splits.split.SPLITS`.

    Returns:
        The shares in the order of the parts; they are positive and sum to 1.

    Raises:
        DataError: A part is missing or unknown, or a share is not a positive number, or they do not
            sum to 1.

    >>> shares_in_order({"test": 0.7, "fit": 0.15, "tune": 0.05, "calibrate": 0.1})
    (0.15, 0.05, 0.1, 0.7)
    """
    for name in given:
        if name not in SPLITS:
            raise DataError(unknown_name("part in the shares", name, SPLITS))
    missing = [name for name in SPLITS if name not in given]
    if missing:
        raise DataError(f"The shares lack {', '.join(missing)}. Give all four parts.")
    shares = tuple(given[name] for name in SPLITS)
    if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise DataError(f"Shares must be positive and sum to 1; they sum to {sum(shares):.6g}.")
    return shares


def read_assignment(
    path: Path,
    *,
    column: str | None = None,
    key: str | None = None,
    covered: Covered | None = None,
) -> dict[str, str]:
    """Read which example or group belongs to which part.

    Args:
        path: A table in any format that :mod:`m3router.data.tables.table` names, read as
            :func:`assignment_of` says (an imported table may be given as it is); or
            ``.json`` with one object of key -> part, or a recorded ``split.json``.
        column: What the table calls the column of the parts, where that is another name.
        key: What the table calls the column of ids or groups, where that is another name.
        covered: The log that is split. With it, columns that could be mistaken for each other are
            refused, and so is a split that leaves examples out.

    Returns:
        Example id or group -> part or :data:`TRAIN`.

    Raises:
        DataError: The file cannot be read, a key has no part, two parts or an unknown one, or it
            is not clear which column is meant.
    """
    parts = _read_object(path) if path.suffix.lower() == ".json" else None
    if parts is None:
        found = assignment_of(read_cells(path), column=column, key=key, covered=covered)
    elif column is not None or key is not None:
        raise DataError(f"{path} is JSON and has no columns: leave {column or key!r} away.")
    else:
        found = _as_compared(parts)
    if not found:
        raise DataError(f"{path} assigns nothing.")
    return found


def assigned_split(
    ids: Sequence[str],
    groups: Sequence[str] | np.ndarray,
    assignment: Mapping[str, str],
    *,
    seed: int = 0,
    shares: Sequence[float] = FRACTIONS,
) -> Split:
    """Split rows as they were assigned; what is assigned to ``train`` is divided by group.

    Args:
        ids: Id of each row, shape (N,).
        groups: Group of each row, shape (N,).
        assignment: Id or group -> part; an id goes before its group. May name more.
        seed: Of how ``train`` is divided.
        shares: ``train`` is divided in proportion to those of fit, tune and calibrate.

    Raises:
        DataError: Rows are not assigned, a group stands in two parts, or a part stays empty.
    """
    parts: dict[str, set[str]] = {}
    absent = []
    for name, group in zip(ids, map(str, groups), strict=True):
        part = part_of(assignment, name, group)
        if part is None:
            absent.append(name)
        else:
            parts.setdefault(group, set()).add(part)
    if absent:
        raise DataError(
            f"The given split does not assign {len(absent)} of {len(ids)} examples, neither by id "
            f"nor by group (first: {', '.join(absent[:3])}). Assign every example of the log."
        )
    shared = {group: sorted(found) for group, found in parts.items() if len(found) > 1}
    if shared:
        some = ", ".join(f"{group} ({' and '.join(found)})" for group, found in shared.items())
        raise DataError(
            f"The given split puts {len(shared)} groups into two parts: {_cut(some)}. "
            "All questions of a group (about one image) must stand in one part."
        )
    given = {group: found.pop() for group, found in parts.items()}
    divided = [group for group, part in given.items() if part == TRAIN]
    weights = [float(share) for share in shares[:-1]]
    inside = tuple(weight / sum(weights) for weight in weights)
    if divided:
        given |= spread(divided, SPLITS[:-1], inside, seed=seed)
    empty = [name for name in SPLITS if name not in given.values()]
    if empty:
        raise DataError(
            f"The given split leaves {', '.join(empty)} empty. Assign groups to every part of "
            f"{', '.join(SPLITS)}, or to {TRAIN!r} what is to be divided into the first three."
        )
    counts = [sum(part == name for part in given.values()) for name in SPLITS]
    found_shares = tuple(count / len(given) for count in counts)
    return split_by_parts(given, groups, seed=seed, fractions=found_shares)


def _read_object(path: Path) -> dict[str, str] | None:
    """Read an object of key -> part; None where the file holds a list, which is a table."""
    values = read_json(path, redo="Save it as JSON, in UTF-8.")
    if isinstance(values, list) and values and all(isinstance(row, dict) for row in values):
        return None
    values = values.get("parts", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise DataError(
            f"{path} must hold one JSON object, id or group -> part, or a list of rows."
        )
    parts = {}
    for key, part in values.items():
        parts[key] = part.strip() if isinstance(part, str) else part
        check_part(f"{path}, {key!r}", parts[key])
    return parts


def _as_compared(parts: Mapping[str, str]) -> dict[str, str]:
    """Let keys also be found as :func:`m3router.data.tables.cells.key_of` compares them."""
    compared: dict[str, set[str]] = {}
    for key, part in parts.items():
        compared.setdefault(key_of(key), set()).add(part)
    return {**{key: next(iter(some)) for key, some in compared.items() if len(some) == 1}, **parts}


def _cut(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ..."
