"""What a router thought of its own training examples before it was fitted on them.

A router that was fitted on the tune split knows its answers: whatever learns from its probabilities
there (when to ask again, how to bet on a guarantee) would take them for better than they are on new
questions. An estimator that divides its examples into folds says of each what the others taught
(`m3router.router.estimators.base.GroupedEstimator`); that is kept beside the router and used in
their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_bytes
from m3router.data.parquet_files import read_parquet
from m3router.data.plain_files import is_there
from m3router.router.estimators.base import Floats

FILE = "held_out.parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Calibrated probabilities of examples that the router was fitted on.

    Attributes:
        ids: of the examples, in the log that the router was trained on.
        p: (n, K).
    """

    ids: tuple[str, ...]
    p: npt.NDArray[np.float64]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def put_into(self, p: Floats, ids: Sequence[str]) -> Floats:
        """Probabilities (N, K) of examples, with these in place of those that were fitted on."""
        pairs = [(row, self._row_of[one]) for row, one in enumerate(ids) if one in self._row_of]
        if not pairs:
            return p
        rows, own = np.array(pairs, dtype=np.intp).T
        found = np.array(p, dtype=np.float64)
        found[rows] = self.p[own]
        return found

    def write(self, folder: Path) -> Path:
        """Write it beside a router; returns the file."""
        flat = pa.array(np.ascontiguousarray(self.p).reshape(-1), type=pa.float64())
        table = pa.table(
            {
                "example_id": pa.array(self.ids, type=pa.string()),
                "p": pa.FixedSizeListArray.from_arrays(flat, self.p.shape[1]),
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        atomic_write_bytes(folder / FILE, sink.getvalue().to_pybytes())
        return folder / FILE

    @classmethod
    def read(cls, folder: Path) -> HeldOut | None:
        """Read what `write` wrote, None where there is none.

        Raises:
            DataError: when the file is damaged.
        """
        path = folder / FILE
        if not is_there(path):
            return None
        redo = "Train the router again."
        table = read_parquet(path, redo=redo, columns=("example_id", "p"))
        try:
            ids = tuple(map(str, table.column("example_id").to_pylist()))
            p = np.array(table.column("p").to_pylist(), dtype=np.float64).reshape(len(ids), -1)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}. {redo}") from error
        if not np.all((p >= 0) & (p <= 1)):
            raise DataError(f"{path} is damaged: it holds what is no probability. {redo}")
        return cls(ids=ids, p=p)
