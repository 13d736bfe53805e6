"""What `mlp` and `rank` share: a network of blocks of features that multiply, in NumPy.

Notation for shapes: N examples, D features in B blocks, V views, K outputs, M members, R rank,
H hidden units, F = R (V + V (V - 1) / 2).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats, read_tensors, row_blocks

CLIP = 5.0
"""Standard deviations beyond which a feature counts as no further away."""

SHAPES = {
    "mean": 1,
    "scale": 1,
    "projection": 2,
    "offset": 2,
    "hidden": 3,
    "hidden_bias": 2,
    "head": 2,
    "head_bias": 1,
}


@dataclass(frozen=True, kw_only=True)
class BilinearNetwork:
    """Several small networks, averaged in their outputs.

    Each view v of the features (a block; a single block is viewed twice) is standardised and
    projected to u_v (R). The hidden layer sees relu(u_v) of every view and the products
    u_a * u_b of every pair: a low-rank bilinear form (Kim et al., ICLR 2017, arXiv 1610.04325),
    so that the question can say which part of the image counts.

    Attributes:
        widths: columns of each block, side by side.
        mean: (D,) float64, subtracted from the features.
        scale: (D,) float64, multiplied afterwards; 0 leaves a feature out.
        projection: (sum of the views' widths, M R) float32.
        offset: (V, M R) float32.
        hidden: (M, F, H) float32.
        hidden_bias: (M, H) float32.
        head: (M H, K) float32, divided by M.
        head_bias: (K,) float32.
    """

    widths: tuple[int, ...]
    mean: Floats
    scale: Floats
    projection: Floats
    offset: Floats
    hidden: Floats
    hidden_bias: Floats
    head: Floats
    head_bias: Floats

    def __post_init__(self) -> None:
        """Keep the float32 weights as float64, so that one row gives what a batch gives."""
        for name in SHAPES:
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, array)

    def outputs(self, X: Floats) -> npt.NDArray[np.float64]:
        """Outputs (N, K) for X (N, D), by blocks of rows."""
        if len(X) == 1:
            return self._outputs(X)
        blocks = [self._outputs(X[rows]) for rows in row_blocks(X)]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.head_bias)))

    def dump(self) -> tuple[bytes, dict[str, Any]]:
        """The weights as safetensors, and what describes them, JSON-able."""
        tensors = {name: getattr(self, name) for name in SHAPES}
        small = {n: t if n in ("mean", "scale") else t.astype("f4") for n, t in tensors.items()}
        return save(small), {"widths": list(self.widths)}

    @classmethod
    def restore(cls, content: bytes, described: Mapping[str, Any]) -> Self:
        """Rebuild what `dump` gave.

        Raises:
            DataError: when a tensor is missing, or the shapes do not fit each other.
        """
        try:
            tensors = read_tensors(content, "The weights of a bilinear network")
            widths = tuple(int(width) for width in described["widths"])
            parts = {name: tensors[name] for name in SHAPES}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"The weights of a bilinear network lack a part: {error}.") from error
        views = view_slices(widths)
        members, features, hidden = parts["hidden"].shape if parts["hidden"].ndim == 3 else (0,) * 3
        rank = features // max(1, len(views) + len(views) * (len(views) - 1) // 2)
        total = sum(part.stop - part.start for part in views)
        outputs = parts["head_bias"].size
        expected = {
            "mean": (sum(widths),),
            "scale": (sum(widths),),
            "projection": (total, members * rank),
            "offset": (len(views), members * rank),
            "hidden": (members, features, hidden),
            "hidden_bias": (members, hidden),
            "head": (members * hidden, outputs),
            "head_bias": (outputs,),
        }
        found = {name: part.shape for name, part in parts.items()}
        if found != expected or not members:
            raise DataError(f"The weights of a bilinear network are {found}, not {expected}.")
        return cls(widths=widths, **parts)

    def _outputs(self, X: Floats) -> npt.NDArray[np.float64]:
        members = len(self.hidden)
        Z = standardised(X, self.mean, self.scale)  # (N, D)
        seen, start = [], 0
        for offset, view in zip(self.offset, view_slices(self.widths), strict=True):
            stop = start + view.stop - view.start
            seen.append(Z[:, view] @ self.projection[start:stop] + offset)  # (N, M R)
            start = stop
        products = [a * b for a, b in itertools.combinations(seen, 2)]
        parts = [np.maximum(u, 0.0) for u in seen] + products
        by_member = [part.reshape(len(X), members, -1) for part in parts]
        inside = np.concatenate(by_member, axis=2).transpose(1, 0, 2)  # (M, N, F)
        hidden = np.maximum(inside @ self.hidden + self.hidden_bias[:, None], 0.0)  # (M, N, H)
        flat = hidden.transpose(1, 0, 2).reshape(len(X), -1)
        outputs: npt.NDArray[np.float64] = flat @ self.head + self.head_bias
        return outputs


def view_slices(widths: tuple[int, ...]) -> list[slice]:
    """Columns of each view: the blocks, or the only block twice."""
    ends = list(itertools.accumulate(widths))
    slices = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
    return slices if len(slices) > 1 else slices * 2


def standardised(X: Floats, mean: Floats, scale: Floats) -> npt.NDArray[np.float64]:
    """(X - mean) * scale, kept within `CLIP` standard deviations; float64 (N, D)."""
    Z = (np.ascontiguousarray(X) - mean) * scale
    np.minimum(Z, CLIP, out=Z)
    np.maximum(Z, -CLIP, out=Z)
    return np.asarray(Z, dtype=np.float64)
