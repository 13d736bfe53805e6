"""FeatureTable: named blocks of features, one row per example, with a hash in its manifest.

Notation for shapes: N examples, d features of one block, D features of all blocks together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from m3router.data.errors import DataError, MismatchError
from m3router.data.manifest import atomic_write_bytes, read_manifest, sha256_file, write_manifest
from m3router.data.parquet_files import read_parquet
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import is_there
from m3router.router.features.mapped import finite_rows, read_lists, side_by_side

FILE = "features.parquet"
STAGE = "features"
ID_COLUMN = "example_id"
ROW_GROUP = 1 << 16  # rows; so that a large table can be read in parts


@dataclass(frozen=True, kw_only=True, repr=False)
class FeatureTable:
    """Features of N examples in named blocks, such as "image" and "question".

    Attributes:
        ids: example ids, unique, in row order.
        blocks: block name -> float32 array (N, d), all finite.
        metadata: where the features come from, JSON-able. When "source" is given, a router
            refuses tables of another source than it was trained on.
    """

    ids: tuple[str, ...]
    blocks: Mapping[str, npt.NDArray[np.float32]]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every block.

        Raises:
            DataError: for no block, duplicate ids, a misshapen block, NaN or infinity.
        """
        ids = tuple(self.ids)
        if not self.blocks:
            raise DataError("A feature table needs at least one block, such as 'image'.")
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(f"A feature table needs unique ids; {twice!r} comes twice.")
        blocks = {name: _checked(name, block, ids) for name, block in self.blocks.items()}
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "blocks", blocks)

    def __repr__(self) -> str:
        """The sizes, and what made the features."""
        blocks = ", ".join(f"{name}: {width}" for name, width in self.widths.items())
        source = self.metadata.get("source", "an unknown source")
        return f"FeatureTable({len(self)} examples, features {{{blocks}}} of {source})"

    def __len__(self) -> int:
        """Number of examples N."""
        return len(self.ids)

    @property
    def widths(self) -> dict[str, int]:
        """Block name -> number of features d."""
        return {name: block.shape[1] for name, block in self.blocks.items()}

    def matrix(
        self, blocks: Sequence[str] | None = None, *, ids: Sequence[str] | None = None
    ) -> npt.NDArray[np.float32]:
        """The named blocks (all when None) side by side: float32 (N, D).

        Args:
            blocks: names of blocks.
            ids: examples to take, in that order; all of them when None.

        Raises:
            MismatchError: when a block or an example is not in the table.
        """
        names = list(self.blocks) if blocks is None else list(blocks)
        missing = [name for name in names if name not in self.blocks]
        if missing or not names:
            raise MismatchError(
                f"The feature blocks {names} were asked for, but the table has {self.widths}."
            )
        rows = None if ids is None or tuple(ids) == self.ids else self._rows(ids)
        return side_by_side([self.blocks[name] for name in names], rows)

    def align(self, ids: Sequence[str]) -> FeatureTable:
        """The rows of `ids`, in that order; other rows are left out.

        Raises:
            MismatchError: when ids are not in the table.
        """
        wanted = tuple(ids)
        if wanted == self.ids:
            return self
        rows = self._rows(wanted)
        blocks = {name: side_by_side([block], rows) for name, block in self.blocks.items()}
        return FeatureTable(ids=wanted, blocks=blocks, metadata=self.metadata)

    def _rows(self, wanted: Sequence[str]) -> npt.NDArray[np.intp]:
        position = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in wanted if name not in position]
        if missing:
            raise MismatchError(
                f"{len(missing)} of {len(wanted)} examples of the oracle log are not in the "
                f"feature table, which has {len(self)} examples (first missing: {missing[:3]}; "
                f"the table begins with {list(self.ids[:3])}). Compute features for the same "
                "examples that were labelled."
            )
        return np.array([position[name] for name in wanted], dtype=np.intp)

    def write(
        self,
        folder: StrPath,
        *,
        inputs: Mapping[str, StrPath] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Write features.parquet and its manifest into `folder`.

        Args:
            folder: made when it does not exist.
            inputs: name -> file that the features were computed from, for the manifest.
            params: how they were computed, for the manifest.
        """
        folder = as_path(folder)
        columns: dict[str, pa.Array] = {ID_COLUMN: pa.array(self.ids, type=pa.string())}
        for name, block in self.blocks.items():
            flat = pa.array(np.ascontiguousarray(block).reshape(-1), type=pa.float32())
            columns[f"block:{name}"] = pa.FixedSizeListArray.from_arrays(flat, block.shape[1])
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, row_group_size=ROW_GROUP)
        atomic_write_bytes(folder / FILE, sink.getvalue().to_pybytes())
        write_manifest(
            folder,
            stage=STAGE,
            inputs=dict(inputs or {}),
            params=dict(params or {}),
            files={FILE: sha256_file(folder / FILE)},
            metadata=dict(self.metadata),
        )

    @classmethod
    def read(cls, folder: StrPath, *, sha256: Callable[[Path], str] = sha256_file) -> Self:
        """Read what `write` wrote.

        Args:
            folder: of the table.
            sha256: hashes a file; whoever has hashed this one already says so here.

        Raises:
            DataError: when the folder holds no feature table, or the file was cut or edited.
        """
        folder = as_path(folder)
        manifest = read_manifest(folder, stage=STAGE)
        path = folder / FILE
        expected = manifest.get("files", {}).get(FILE)
        found = sha256(path) if is_there(path) else None
        if found is None or found != expected:
            if found is None:
                raise DataError(f"{path} is missing. Compute the features again.")
            raise DataError(
                f"{path} was cut short or edited. Compute the features again. (SHA-256 "
                f"{found[:12]}, as written {str(expected)[:12]})"
            )
        redo = "Compute the features again."
        ids = read_parquet(path, redo=redo, columns=[ID_COLUMN]).column(0).to_pylist()
        try:
            blocks = {
                name.removeprefix("block:"): read_lists(path, name)
                for name in pq.read_schema(path).names
                if name.startswith("block:")
            }
        except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is no table of features ({error}). {redo}") from error
        if not all(isinstance(one, str) for one in ids):
            raise DataError(f"{path} holds an id that is no text. {redo}")
        return cls(ids=tuple(ids), blocks=blocks, metadata=manifest.get("metadata", {}))


def table_of(blocks: Mapping[str, npt.ArrayLike], ids: Sequence[str] | None = None) -> FeatureTable:
    """A table of arrays, such as an encoder of your own gives.

    Args:
        blocks: Block name -> (N, d).
        ids: Of the examples; None numbers them.

    Raises:
        DataError: As :class:`FeatureTable`.

    >>> table_of({"mine": [[0.0, 1.0], [2.0, 3.0]]})
    FeatureTable(2 examples, features {mine: 2} of an unknown source)
    """
    arrays = {name: np.asarray(block, dtype=np.float32) for name, block in blocks.items()}
    count = max((len(one) for one in arrays.values() if one.ndim), default=0)
    names = tuple(map(str, range(count))) if ids is None else tuple(ids)
    return FeatureTable(ids=names, blocks=arrays)


def _checked(
    name: str, block: npt.NDArray[np.floating], ids: tuple[str, ...]
) -> npt.NDArray[np.float32]:
    array = np.ascontiguousarray(block, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(ids) or array.shape[1] == 0:
        raise DataError(
            f"The feature block {name!r} must have shape ({len(ids)}, d) with d of at least 1, "
            f"one row per id; it has {array.shape}."
        )
    rows = np.flatnonzero(~finite_rows(array))
    if len(rows):
        raise DataError(
            f"The feature block {name!r} must be finite; {len(rows)} rows are not, first that "
            f"of example {ids[rows[0]]!r}. Remove these examples, or compute them again."
        )
    array.setflags(write=False)
    return array
