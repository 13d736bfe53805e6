"""Splits that were given: shares in words, and official assignments of examples or pictures.

Published logs bring their own parts, such as "train on a fifth of the data". What was given is
kept; only examples of ``train`` are divided here, by picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data.cells import key_of
from data.errors import DataError
from data.registry import unknown_name
from data.split_columns import TRAIN, Covered, assignment_of, check_part, part_of
from data.splits import FRACTIONS, SPLITS, Split, split_by_parts, spread
from data.table_formats import once
from data.tables import read_cells


def shares_in_order(given: Mapping[str, float]) -> tuple[float, ...]:
    """The shares of all parts, checked.

    Args:
        given: Part -> share, for every part of :data:`data.splits.SPLITS`.

    Returns:
        The shares in the order of the parts; they are positive and sum to 1.

    Raises:
        DataError: A part is missing or unknown, or a share is no positive number, or they do not
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
        path: A table in any format of :mod:`data.tables`, read as :func:`assignment_of
            <data.split_columns.assignment_of>` says (an imported table may be given as it is); or
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
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=once)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
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
    """Let keys also be found as they are compared, see :func:`data.cells.key_of`."""
    compared: dict[str, set[str]] = {}
    for key, part in parts.items():
        compared.setdefault(key_of(key), set()).add(part)
    return {**{key: next(iter(some)) for key, some in compared.items() if len(some) == 1}, **parts}


def _cut(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ..."
