"""Four-way splits in which no image stands on two sides."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.json_files import read_json
from m3router.data.manifest import atomic_write_text
from m3router.data.paths import StrPath, as_path
from m3router.data.registry import unknown_name

SPLITS = ("fit", "tune", "calibrate", "test")
FRACTIONS = (0.5, 0.1, 0.2, 0.2)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Split:
    """Which rows are for what.

    Attributes:
        fit: Rows that estimators are fitted on; shape (n,), ascending integers.
        tune: Rows that hyperparameters are chosen on.
        calibrate: Rows that policies are calibrated on.
        test: Rows that are only reported on.
        parts: Group to part; may hold more groups than the rows have.
        seed: What the assignment was drawn with.
        fractions: Wanted fraction of the groups per part, in the order of :data:`SPLITS`.
        grown: Whether it goes on from a split of fewer groups, see :func:`grown_split`.
    """

    fit: np.ndarray
    tune: np.ndarray
    calibrate: np.ndarray
    test: np.ndarray
    parts: Mapping[str, str]
    seed: int
    fractions: tuple[float, ...]
    grown: bool = False

    def __repr__(self) -> str:
        """How many rows each part has."""
        sizes = ", ".join(f"{name}: {len(self.part(name))}" for name in SPLITS)
        return f"Split({sizes} rows, fingerprint {self.fingerprint[:12]})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the mapping from group to part, 64 hexadecimal digits."""
        text = json.dumps(dict(self.parts), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def part(self, name: str) -> np.ndarray:
        """Give the rows of one part.

        Args:
            name: A member of :data:`SPLITS`.

        Returns:
            Shape (n,), ascending integers.

        Raises:
            DataError: There is no such part.
        """
        if name not in SPLITS:
            raise DataError(unknown_name("split", name, SPLITS))
        rows: np.ndarray = getattr(self, name)
        return rows

    def prove_disjoint(self, groups: Sequence[str] | np.ndarray) -> None:
        """Check that no group stands in two parts, whatever the mapping says.

        Args:
            groups: The group of each row, shape (N,).

        Raises:
            DataError: Two parts share groups, which are named; or rows do not exist.
        """
        members = {}
        for name in SPLITS:
            rows = self.part(name)
            if rows.size and (rows.min() < 0 or rows.max() >= len(groups)):
                raise DataError(
                    f"Split {name!r} names row {int(rows.max())}, but there are only "
                    f"{len(groups)} rows. Split these rows again."
                )
            members[name] = {str(groups[row]) for row in rows}
        for first, second in itertools.combinations(SPLITS, 2):
            shared = sorted(members[first] & members[second])
            if shared:
                raise DataError(
                    f"Splits {first!r} and {second!r} share {len(shared)} groups "
                    f"({_some(shared)}): none may stand on two sides. Split by group."
                )

    def to_dict(self) -> dict[str, Any]:
        """Give the assignment as JSON values; rows are found again from the groups."""
        return {
            "schema": 1,
            "seed": self.seed,
            "fractions": list(self.fractions),
            "fingerprint": self.fingerprint,
            "parts": dict(sorted(self.parts.items())),
            **({"grown": True} if self.grown else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], groups: Sequence[str] | np.ndarray) -> Split:
        """Apply a recorded assignment to rows.

        Args:
            values: What :meth:`to_dict` gave.
            groups: The group of each row, shape (N,); may lack groups of the assignment.

        Returns:
            The split of these rows, with the fingerprint of the recorded one.

        Raises:
            DataError: The record is damaged.
            MismatchError: A group is not in the assignment.
        """
        try:
            parts = {str(group): str(part) for group, part in values["parts"].items()}
            seed, fractions = int(values["seed"]), tuple(float(f) for f in values["fractions"])
            recorded = str(values["fingerprint"])
            if values["schema"] != 1:
                raise ValueError(f"schema {values['schema']!r} is not 1")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"This is not a recorded split: {error!r}. Split again.") from error
        split = _apply(parts, groups, seed=seed, fractions=fractions)
        if split.fingerprint != recorded:
            raise DataError(
                "The recorded split is damaged, or the log has other images now. Split again: "
                f"`m3router train`. (Fingerprint {split.fingerprint[:12]}, as recorded "
                f"{recorded[:12]})"
            )
        return replace(split, grown=values.get("grown") is True)

    def write(self, path: StrPath) -> None:
        """Write the assignment as JSON, whole or not at all.

        Raises:
            DataError: It cannot be written.
        """
        path = as_path(path)
        atomic_write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def read(cls, path: StrPath, groups: Sequence[str] | np.ndarray) -> Split:
        """Read an assignment and apply it to rows; see :meth:`from_dict`.

        Raises:
            DataError: The file is missing or damaged.
            MismatchError: A group is not in the assignment.
        """
        path = as_path(path)
        return cls.from_dict(read_json(path, redo="Split again."), groups)


def split_by_group(
    groups: Sequence[str] | np.ndarray,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> Split:
    """Split rows so that every group stands in one part.

    Groups are ranked by SHA-256 of ``seed:group`` and the ranking is cut by the fractions, so
    the result depends neither on the order of the rows nor on how many each group has.

    Args:
        groups: The group of each row, shape (N,).
        seed: Another seed, another assignment.
        fractions: Fraction of the groups per part, in the order of :data:`SPLITS`; positive, sum
            1. Every part gets at least one group.

    Returns:
        The split; its groups are proven disjoint.

    Raises:
        DataError: Fewer groups than parts, or fractions that are none.
    """
    wanted = tuple(float(fraction) for fraction in fractions)
    positive = len(wanted) == len(SPLITS) and all(fraction > 0 for fraction in wanted)
    if not positive or abs(sum(wanted) - 1) > 1e-9:
        raise DataError(
            f"Split fractions must be {len(SPLITS)} positive numbers that sum to 1 "
            f"({', '.join(SPLITS)}), got {wanted}."
        )
    names = {str(group) for group in groups}
    if len(names) < len(SPLITS):
        raise DataError(
            f"A split into {', '.join(SPLITS)} needs at least {len(SPLITS)} groups, got "
            f"{len(names)}. Label more questions, or check the 'group' of the examples."
        )
    parts = spread(names, SPLITS, wanted, seed=seed)
    return split_by_parts(parts, groups, seed=seed, fractions=wanted)


def grown_split(
    before: Mapping[str, Any],
    groups: Sequence[str] | np.ndarray,
    *,
    seed: int,
    fractions: tuple[float, ...] = FRACTIONS,
) -> Split | None:
    """Split rows so that groups of an earlier split keep their parts; new ones fill the parts up.

    Args:
        before: What :meth:`Split.to_dict` gave.
        groups: The group of each row, shape (N,).
        seed: As then; of the order in which new groups are dealt.
        fractions: As then.

    Returns:
        The split; None where the earlier one was drawn otherwise or was given, or has nothing in
        common with these rows that would fill every part.
    """
    try:
        parts = {str(group): str(part) for group, part in before["parts"].items()}
        same = int(before["seed"]) == seed and tuple(before["fractions"]) == fractions
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not same or len(parts) < len(SPLITS):
        return None
    drawn = before.get("grown") is True or parts == spread(parts, SPLITS, fractions, seed=seed)
    names = {str(group) for group in groups}
    kept = {group: part for group, part in parts.items() if group in names and part in SPLITS}
    if not drawn or not kept:
        return None
    cuts = _cuts(len(names), fractions)
    room = {
        part: stop - start - sum(one == part for one in kept.values())
        for part, start, stop in zip(SPLITS, cuts[:-1], cuts[1:], strict=True)
    }
    for group in _ranked(names - kept.keys(), seed):
        part = max(room, key=lambda one: room[one])
        kept[group] = part
        room[part] -= 1
    if set(kept.values()) != set(SPLITS):
        return None
    grown = before.get("grown") is True or names != parts.keys()
    return replace(split_by_parts(kept, groups, seed=seed, fractions=fractions), grown=grown)


def split_by_parts(
    parts: Mapping[str, str],
    groups: Sequence[str] | np.ndarray,
    *,
    seed: int,
    fractions: tuple[float, ...],
) -> Split:
    """Split rows by an assignment of their groups; the groups are proven disjoint.

    Args:
        parts: Group to a member of :data:`SPLITS`.
        groups: The group of each row, shape (N,).
        seed: What the assignment was drawn with.
        fractions: Fraction of the groups per part, in the order of :data:`SPLITS`.

    Raises:
        DataError: A part is unknown.
        MismatchError: A group is not in the assignment.
    """
    split = _apply(parts, groups, seed=seed, fractions=fractions)
    split.prove_disjoint(groups)
    return split


def spread(
    groups: Iterable[str], names: Sequence[str], fractions: tuple[float, ...], *, seed: int
) -> dict[str, str]:
    """Deal groups to names: rank them by SHA-256 of ``seed:group``, cut by fractions.

    Args:
        groups: At least as many as names.
        names: What to deal them to; each gets at least one.
        fractions: Fraction of the groups per name; positive, sum 1.
        seed: Another seed, another deal.

    Raises:
        DataError: Fewer groups than names.
    """
    ranked = _ranked(set(groups), seed)
    if len(ranked) < len(names):
        raise DataError(
            f"{len(ranked)} groups cannot be divided into {', '.join(names)}. Label more questions."
        )
    cuts = _cuts(len(ranked), fractions)
    return {
        group: name
        for name, start, stop in zip(names, cuts[:-1], cuts[1:], strict=True)
        for group in ranked[start:stop]
    }


def _ranked(groups: set[str], seed: int) -> list[str]:
    return sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _cuts(count: int, fractions: tuple[float, ...]) -> list[int]:
    """Cut ``count`` ranks by fractions, none of the pieces empty."""
    cuts = [0]
    for index, total in enumerate(itertools.accumulate(fractions)):
        left = len(fractions) - 1 - index
        cuts.append(min(max(round(total * count), cuts[-1] + 1), count - left))
    return cuts


def _apply(
    parts: Mapping[str, str],
    groups: Sequence[str] | np.ndarray,
    *,
    seed: int,
    fractions: tuple[float, ...],
) -> Split:
    """Find the rows of each part."""
    bad = sorted({part for part in parts.values() if part not in SPLITS})
    if bad:
        raise DataError(f"A recorded split names unknown parts: {_some(bad)}. Split again.")
    unknown = sorted({str(group) for group in groups} - set(parts))
    if unknown:
        raise MismatchError(
            f"The rows have {len(unknown)} groups that the split does not know ({_some(unknown)}): "
            "it was made from another log. Use the split that belongs to this log, or split again."
        )
    rows = np.array([SPLITS.index(parts[str(group)]) for group in groups], dtype=np.intp)
    found = {name: np.flatnonzero(rows == code) for code, name in enumerate(SPLITS)}
    return Split(
        parts=dict(parts),
        seed=seed,
        fractions=fractions,
        fit=found["fit"],
        tune=found["tune"],
        calibrate=found["calibrate"],
        test=found["test"],
    )


def _some(names: Iterable[str], limit: int = 5) -> str:
    """Name the first few."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")
