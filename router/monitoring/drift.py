"""Whether features come from where the router's training features came from: a two-sample test.

Notation for shapes: N rows of features of both sides together, d features.

The statistic is the squared maximum mean discrepancy with a Gaussian kernel (Gretton et al., A
Kernel Two-Sample Test, JMLR 13, 2012, equation 5), its p-value is from permutations of images:
under the hypothesis that both sides are drawn alike images are exchangeable, questions about
one image are not. One question of each image is compared, which leaves room for the most
images. Scaling, components and kernel read both sides together and do not know which row is
whose, so the p-value is exact: it is at most u with probability at most u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
IMAGES = 1000
"""Most images of each side that are compared."""
COMPONENTS = 32
"""Principal components that are compared."""
TOGETHER = "all blocks together"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Features of one side.

    Attributes:
        blocks: block name -> features (n, d).
        groups: image of each row (n,).
    """

    blocks: Mapping[str, Floats]
    groups: npt.NDArray


@dataclass(frozen=True, kw_only=True)
class Shift:
    """The test of one block.

    Attributes:
        mmd2: squared maximum mean discrepancy, at least 0.
        p_value: of this block by itself.
        adjusted: p-value after Holm's correction for all blocks: where it is at most a level, the
            probability of that for any block that did not shift is at most the level.
    """

    mmd2: float
    p_value: float
    adjusted: float


LEAST_LEVEL = 1e-6
"""False-alarm rate below which there would be millions of permutations for each block."""


def shifts(reference: Sample, fresh: Sample, *, level: float, seed: int = 0) -> dict[str, Shift]:
    """Test every block, and with several blocks all of them side by side.

    Args:
        reference: what is known, such as the part that a router was fitted on.
        fresh: with the same blocks at the same widths.
        level: false-alarm rate that is asked for; it sets the number of permutations.
        seed: of the choice of images and of the permutations.

    Raises:
        DataError: when a side has fewer than two images, or the level is below `LEAST_LEVEL`.
    """
    if not level >= LEAST_LEVEL:
        raise DataError(
            f"Drift cannot be tested at a false-alarm rate of {level:g}: below {LEAST_LEVEL:g} it "
            "would take too many permutations. Allow more false alarms."
        )
    generator = np.random.default_rng(seed)
    sides = [(side, one_each(side.groups, generator)) for side in (reference, fresh)]
    is_fresh = np.arange(sum(len(rows) for _, rows in sides)) >= len(sides[0][1])
    blocks = {
        name: np.concatenate([np.asarray(side.blocks[name])[rows] for side, rows in sides])
        for name in reference.blocks
    }
    if len(blocks) > 1:
        scaled = [standardised(block) / math.sqrt(block.shape[1]) for block in blocks.values()]
        blocks = {TOGETHER: np.concatenate(scaled, axis=1), **blocks}
    permutations = math.ceil(2 * len(blocks) / level) - 1
    found = {
        name: permutation_test(block, is_fresh, permutations=permutations, generator=generator)
        for name, block in blocks.items()
    }
    adjusted = holm({name: p_value for name, (_, p_value) in found.items()})
    return {
        name: Shift(mmd2=mmd2, p_value=p_value, adjusted=adjusted[name])
        for name, (mmd2, p_value) in found.items()
    }


def one_each(groups: npt.NDArray, generator: np.random.Generator) -> Rows:
    """A random row of each of at most `IMAGES` random images.

    Raises:
        DataError: for fewer than two images.
    """
    order = generator.permutation(len(groups))
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    if len(first) < 2:
        raise DataError(
            f"Drift is tested between images and needs at least 2 on each side; one side has "
            f"{len(first)}. Collect more traffic."
        )
    rows: Rows = order[generator.permutation(first)[:IMAGES]]
    return rows


def permutation_test(
    features: Floats,
    is_fresh: npt.NDArray[np.bool_],
    *,
    permutations: int,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Squared discrepancy between both sides, and its p-value.

    Args:
        features: (N, d), independent rows.
        is_fresh: which side each row is on (N,).
        permutations: of the sides.
        generator: draws them.
    """
    kernel = gaussian_kernel(components(standardised(features)))
    sides = np.tile(is_fresh, (1 + permutations, 1))
    sides[1:] = generator.permuted(sides[1:], axis=1)  # the first is the observed one
    weights = np.where(sides, 1 / is_fresh.sum(), -1 / (~is_fresh).sum())
    mmd2 = np.einsum("bn,bn->b", weights, weights @ kernel)
    as_large = int(np.count_nonzero(mmd2[1:] >= mmd2[0] - 1e-12))
    return max(0.0, float(mmd2[0])), (1 + as_large) / (1 + permutations)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm, A simple sequentially rejective multiple test procedure, 1979)."""
    adjusted, least = {}, 0.0
    ranked = sorted(p_values, key=lambda name: p_values[name])
    for place, name in enumerate(ranked):
        least = max(least, min(1.0, (len(ranked) - place) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def standardised(features: Floats) -> Array:
    """Features (N, d) with mean 0 and deviation 1; those that never vary become 0."""
    values = np.asarray(features, dtype=np.float64)
    values = values - values.mean(axis=0)
    deviation = values.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
    return np.asarray(np.divide(values, deviation, out=np.zeros_like(values), where=varies))


def components(features: Floats) -> Array:
    """The first `COMPONENTS` principal components (N, at most `COMPONENTS`) of centred features."""
    values = np.asarray(features, dtype=np.float64)
    n, d = values.shape
    wide = d > n
    square = values @ values.T if wide else values.T @ values
    last = len(square) - 1
    first = max(0, len(square) - COMPONENTS)
    strength, vectors = eigh(square, subset_by_index=[first, last])
    if wide:
        return np.asarray(vectors * np.sqrt(np.maximum(strength, 0.0)))
    return np.asarray(values @ vectors)


def gaussian_kernel(values: Floats) -> Array:
    """exp(-|a - b|^2 / m) between all rows (N, N), m being the median of |a - b|^2."""
    norms = np.einsum("nd,nd->n", values, values)
    squared = np.maximum(norms[:, None] + norms - 2 * values @ values.T, 0.0)
    between = squared[~np.eye(len(squared), dtype=bool)]
    median = float(np.median(between)) or float(between.mean()) or 1.0
    return np.asarray(np.exp(-squared / median))
