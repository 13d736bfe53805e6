"""Splits that were given: shares in words, and official assignments of examples or pictures.

Published logs bring their own parts, such as "train on a fifth of the data". What was given is
kept; only examples of ``train`` are divided here, by picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.errors import DataError
from data.registry import unknown_name
from data.splits import FRACTIONS, SPLITS, Split, split_by_parts, spread

TRAIN = "train"
"""Divided into all parts but ``test``, in proportion to their shares."""
KEYS = ("id", "example_id", "group")
VALUES = ("split", "part")


def parse_shares(text: str) -> tuple[float, ...]:
    """Read shares such as ``"fit=0.5,tune=0.1,calibrate=0.2,test=0.2"``.

    Args:
        text: Every part of :data:`data.splits.SPLITS` once, in any order.

    Returns:
        The shares in the order of the parts; they are positive and sum to 1.

    Raises:
        DataError: A part is missing, unknown or named twice, or a share is no positive number, or
            they do not sum to 1.

    >>> parse_shares("test=0.7,fit=0.15,tune=0.05,calibrate=0.1")
    (0.15, 0.05, 0.1, 0.7)
    """
    found: dict[str, float] = {}
    for entry in text.split(","):
        name, _, number = (word.strip() for word in entry.partition("="))
        if name not in SPLITS:
            raise DataError(unknown_name("part in the shares", name, SPLITS))
        if name in found:
            raise DataError(f"The shares {text!r} name {name!r} twice.")
        try:
            found[name] = float(number)
        except ValueError:
            raise DataError(f"The share of {name!r} is no number: {number!r}.") from None
    missing = [name for name in SPLITS if name not in found]
    if missing:
        raise DataError(f"The shares {text!r} lack {', '.join(missing)}. Give all four parts.")
    shares = tuple(found[name] for name in SPLITS)
    if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise DataError(
            f"Shares must be positive and sum to 1; {text!r} sums to {sum(shares):.6g}."
        )
    return shares


def read_assignment(path: Path, *, column: str | None = None) -> dict[str, str]:
    """Read which example or group belongs to which part.

    Args:
        path: ``.csv`` or ``.parquet`` with a column of :data:`KEYS` and one of :data:`VALUES`
            (several rows of one key must agree, so that an imported table may be given as it
            is); or ``.json``, one object of key -> part, or a recorded ``split.json``.
        column: What the table calls the column of the parts, where that is another name.

    Returns:
        Example id or group -> part or :data:`TRAIN`.

    Raises:
        DataError: The file cannot be read, or a key has no part, two parts or an unknown one.
    """
    if path.suffix == ".json":
        if column is not None:
            raise DataError(f"{path} is JSON and has no columns: leave {column!r} away.")
        pairs = _read_json(path)
    else:
        pairs = _read_table(path, column)
    found: dict[str, str] = {}
    for key, part in pairs:
        if part not in (*SPLITS, TRAIN):
            raise DataError(f"{path}, {key!r}: {unknown_name('part', str(part), (*SPLITS, TRAIN))}")
        if found.setdefault(key, part) != part:
            raise DataError(f"{path} puts {key!r} into {found[key]!r} and into {part!r}.")
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
        part = assignment.get(name, assignment.get(group))
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
            f"The given split puts {len(shared)} groups (pictures) into two parts: {_cut(some)}. "
            "All questions about a picture must stand in one part."
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


def _read_json(path: Path) -> list[tuple[str, str]]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
    values = values.get("parts", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise DataError(f"{path} must hold one JSON object, id or group -> part.")
    return [(str(key), part) for key, part in values.items()]


def _read_table(path: Path, column: str | None) -> list[tuple[str, str]]:
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path} is not a table ({error}).") from error
    key = next((name for name in KEYS if name in table.columns), None)
    wanted = VALUES if column is None else (column,)
    value = next((name for name in wanted if name in table.columns), None)
    if key is None or value is None:
        raise DataError(
            f"{path} needs a column of {list(KEYS)} and one of {list(wanted)}; it has "
            f"{list(table.columns)}. Name another column of parts with --split-column."
        )
    return list(zip(table[key].astype(str), table[value].astype(str), strict=True))


def _cut(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ..."
