"""The oracle log: what a model answered at every scale, one row per (example, scale).

Notation: N examples, K options (scales), cheapest first. A cell without a score is a *gap*: the
generation failed, or it never ran. A gap stays NaN; it is never a wrong answer. It is *unknown*
where asking stopped at the first right answer of a cheaper option.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from m3router.data.errors import DataError
from m3router.data.log.checks import ASKED, UNTIL_CORRECT, checked_frame, row_numbers
from m3router.data.log.files import PARQUET, load, save
from m3router.data.log.notebook import log_card
from m3router.data.manifest import sha256_file
from m3router.data.paths import StrPath, as_path

MATRYOSHKA = "matryoshka"
"""What ``spec`` in a log's metadata calls a model whose options share one pass of the tower."""


class OracleLog:
    """What a model answered at every scale; immutable.

    Args:
        frame: One row per (example, scale) with the columns of
            :data:`m3router.data.log.checks.SCHEMA`. Those of
            :data:`m3router.data.log.checks.OPTIONAL` may be missing. Examples keep the order in
            which they first appear.
        options: The scales, cheapest first.
        cost_unit: What ``cost`` counts, such as ``"visual tokens"``.
        metadata: How the log came about (model, revision, grid, prompt version, dtype, ...);
            JSON values.

    Raises:
        DataError: A column is missing, a row is doubled, a score is outside [0, 1], ...; the
            message names the rows.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        *,
        options: Sequence[str],
        cost_unit: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Check and keep the rows; see the class."""
        self.options = tuple(options)
        self.cost_unit = cost_unit
        self._metadata = copy.deepcopy(dict(metadata or {}))
        unknown = self._metadata.get(ASKED) == UNTIL_CORRECT
        self._frame = checked_frame(frame, self.options, unknown=unknown)

    def __len__(self) -> int:
        """Count the examples, N."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Describe the log in one line."""
        return (
            f"OracleLog({len(self)} examples x {len(self.options)} options "
            f"{self.options}, cost in {self.cost_unit}, {self.n_gaps} gaps)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: how often each option is right, and what it costs."""
        return log_card(self)

    @property
    def metadata(self) -> dict[str, Any]:
        """How the log came about; a copy."""
        return copy.deepcopy(self._metadata)

    @property
    def frame(self) -> pd.DataFrame:
        """All rows, by example and then by option; a copy.

        ``scale`` holds the options as ordered categories, coarsest first, so that tables, groups
        and plots keep their order. It stays so in joins with frames of the same options, and in
        Parquet; a log can be made from such a frame again.
        """
        frame = self._frame.copy()
        frame["scale"] = self._ordered(frame["scale"])
        return frame

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Example ids, length N."""
        return tuple(self._frame["example_id"].drop_duplicates())

    @cached_property
    def scores(self) -> np.ndarray:
        """Score in [0, 1] of each example at each option, shape (N, K); NaN at gaps."""
        return self._wide("score")

    @cached_property
    def costs(self) -> np.ndarray:
        """Cost in ``cost_unit`` of each example at each option, shape (N, K); NaN where unknown."""
        return self._wide("cost")

    @cached_property
    def flops(self) -> np.ndarray:
        """The language model's operations for each answer, shape (N, K); NaN where unknown."""
        return self._wide("flops")

    @cached_property
    def vision_flops(self) -> np.ndarray:
        """Operations of tower and projector for each image, shape (N, K); NaN where unknown."""
        return self._wide("vision_flops")

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each example, shape (N,), texts."""
        return self._per_example("group")

    @cached_property
    def datasets(self) -> np.ndarray:
        """Dataset of each example, shape (N,), texts."""
        return self._per_example("dataset")

    @cached_property
    def questions(self) -> np.ndarray:
        """Question of each example, shape (N,), texts."""
        return self._per_example("question")

    @cached_property
    def images(self) -> np.ndarray:
        """Image of each example, relative to the images folder, shape (N,), texts."""
        return self._per_example("image")

    @cached_property
    def references(self) -> np.ndarray:
        """Reference answers of each example, shape (N,): tuples of texts; None if not recorded."""
        return self._per_example("references")

    @cached_property
    def metrics(self) -> np.ndarray:
        """What answers were scored with, shape (N,): texts; None where it was not recorded."""
        return self._per_example("metric")

    @cached_property
    def max_new_tokens(self) -> np.ndarray:
        """Tokens of each example's longest answer, shape (N,); NaN where it was not recorded."""
        return _frozen(self._per_example("max_new_tokens").astype(np.float64))

    @cached_property
    def chance(self) -> np.ndarray:
        """P(a blind guess scores 1) of each example, in [0, 1), shape (N,)."""
        return _frozen(self._per_example("chance").astype(np.float64))

    @cached_property
    def complete(self) -> np.ndarray:
        """Whether an example has a score and a cost at every option, shape (N,), bool.

        In a log with unknown cells none counts as complete: the others are a biased rest.
        """
        whole = (np.isfinite(self.scores) & np.isfinite(self.costs)).all(axis=1)
        return _frozen(whole & ~self.unknown.any())

    @cached_property
    def unknown(self) -> np.ndarray:
        """Which cells were not asked because a cheaper option was right, shape (N, K), bool."""
        failed = np.zeros((len(self), len(self.options)), dtype=bool)
        failed[self._cells] = self._frame["error"].notna().to_numpy()
        until = self._metadata.get(ASKED) == UNTIL_CORRECT
        return _frozen(~np.isfinite(self.scores) & ~failed & until)

    @property
    def encodes_once(self) -> bool:
        """Whether one pass of the vision tower serves every option, as a Matryoshka model's does.

        Logs of other models say how theirs was made, and imported ones where they are from.
        """
        made = self._metadata.get("spec") or {}
        return "source" not in self._metadata and made.get("kind", MATRYOSHKA) == MATRYOSHKA

    @property
    def n_gaps(self) -> int:
        """Count the (example, option) cells without a score or a cost."""
        return int((~np.isfinite(self.scores) | ~np.isfinite(self.costs)).sum())

    def laid_out(self, name: str) -> np.ndarray:
        """Lay any column out as (N, K): numbers with NaN, or texts with None, where it is empty."""
        column = self._frame[name].to_numpy()
        empty = None if column.dtype == object else np.nan
        wide = np.full((len(self), len(self.options)), empty, dtype=column.dtype)
        wide[self._cells] = column
        return wide

    def errors(self) -> pd.DataFrame:
        """Give the rows whose generation failed, with its cause in ``error``."""
        return self.frame[self._frame["error"].notna()].reset_index(drop=True)

    def select(self, keys: Sequence[int] | Sequence[str] | np.ndarray) -> OracleLog:
        """Keep some examples, in the order asked for.

        Args:
            keys: Ids, row numbers in [0, N), or a mask of shape (N,).

        Returns:
            A log of these examples.

        Raises:
            MismatchError: Ids that the log does not have.
            DataError: Row numbers that do not exist, or an example asked for twice.
        """
        rows = row_numbers(self.ids, np.asarray(keys))
        if len(np.unique(rows)) != len(rows):
            raise DataError("An oracle log cannot hold an example twice: select each only once.")
        code = np.full(len(self), -1, dtype=np.intp)
        code[rows] = np.arange(len(rows))
        wanted = code[self._cells[0]]
        order = np.argsort(wanted, kind="stable")
        frame = self._frame.iloc[order[wanted[order] >= 0]]
        return OracleLog(
            frame, options=self.options, cost_unit=self.cost_unit, metadata=self._metadata
        )

    def require_known(self) -> None:
        """Raise a DataError for unknown cells; examples without any would be a biased rest."""
        count = int(self.unknown.any(axis=1).sum())
        if count:
            raise DataError(
                f"{count} of {len(self)} examples were asked only up to their first right answer. "
                "The rule 'reached' can be trained on them; for all else what finer options answer "
                "must be known: label without --until-correct."
            )

    def drop_gaps(self) -> OracleLog:
        """Keep the complete examples.

        Raises:
            DataError: There are none, or finer options were not asked.
        """
        self.require_known()
        if self.complete.all():
            return self
        if not self.complete.any():
            raise DataError(
                f"None of the {len(self)} examples has a score at every option "
                f"({', '.join(self.options)}): nothing is left. {self._first_cause()}"
            )
        return self.select(self.complete)

    def require_complete(self, gaps: Literal["error", "drop"] = "error") -> OracleLog:
        """Give a log without gaps, or refuse.

        Args:
            gaps: ``"error"`` refuses a log with gaps, ``"drop"`` drops their examples.

        Raises:
            DataError: There are gaps that are not to be dropped, no complete example, or none.
        """
        if len(self) == 0:
            raise DataError("The oracle log is empty: label some examples first.")
        self.require_known()
        if gaps == "drop":
            return self.drop_gaps()
        if self.complete.all():
            return self
        missing = np.flatnonzero(~self.complete)
        first = ", ".join(repr(self.ids[row]) for row in missing[:5])
        raise DataError(
            f"The oracle log has {self.n_gaps} gaps in {len(missing)} of {len(self)} examples "
            f"(first: {first}). {self._first_cause()} Label again with retries, or pass "
            "`--gaps drop` to leave these examples out."
        )

    def write(
        self, folder: StrPath, *, inputs: Mapping[str, StrPath] | None = None, file: str = PARQUET
    ) -> None:
        """Write the rows as Parquet, and the manifest of the stage ``log``.

        Args:
            folder: The log's folder; made when it is missing.
            inputs: What the log was made from, see :func:`m3router.data.manifest.write_manifest`.
            file: Where the rows go in it: ``PARQUET`` or ``HUB_PARQUET``.

        Raises:
            DataError: It cannot be written; a log that stood there before is not half replaced.
        """
        folder = as_path(folder)
        save(
            folder,
            self._frame,
            file=file,
            inputs=inputs or {},
            options=list(self.options),
            cost_unit=self.cost_unit,
            metadata=json.loads(json.dumps(self._metadata)),
            n_examples=len(self),
            n_gaps=self.n_gaps,
        )

    @classmethod
    def read(cls, folder: StrPath, *, sha256: Callable[[Path], str] = sha256_file) -> OracleLog:
        """Read a log and check it against its manifest.

        Args:
            folder: What :meth:`write` wrote.
            sha256: Hashes a file; whoever has hashed this one already says so here.

        Raises:
            DataError: The folder holds no log, a newer one, or a damaged one.
        """
        folder = as_path(folder)
        frame, options, cost_unit, metadata = load(folder, sha256=sha256)
        return cls(frame, options=options, cost_unit=cost_unit, metadata=metadata)

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Example number and option number of each row, both of shape (rows,)."""
        column = {option: code for code, option in enumerate(self.options)}
        rows, _ = pd.factorize(self._frame["example_id"])
        return rows, self._frame["scale"].map(column).to_numpy(dtype=np.intp)

    def _ordered(self, names: pd.Series) -> pd.Categorical:
        """Names of options as ordered categories."""
        return pd.Categorical(names, categories=list(self.options), ordered=True)

    def _wide(self, name: str) -> np.ndarray:
        """Lay a number column out as (N, K), read-only."""
        return _frozen(self.laid_out(name))

    def _per_example(self, name: str) -> np.ndarray:
        """Take a column that is the same for all rows of an example; shape (N,)."""
        first = self._frame.drop_duplicates("example_id")
        return _frozen(first[name].to_numpy(dtype=object))

    def _first_cause(self) -> str:
        """Quote the first error, if any generation failed."""
        failed = self.errors()
        if failed.empty:
            return "No row has an error message: the labelling run did not finish."
        return f"First cause: {failed['error'].iloc[0]}"


def _frozen(values: np.ndarray) -> np.ndarray:
    """Make an array read-only."""
    values.setflags(write=False)
    return values
