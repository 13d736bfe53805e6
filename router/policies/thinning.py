"""At most M questions an image, and an order of images, both drawn by hashing names.

Notation for shapes: N questions about G images; n questions that are kept.

Which questions of an image are kept depends on a seed and on their own ids alone: not on labels,
not on the order in which questions come, not on other images. Thinning to fewer keeps a subset of
what thinning to more keeps. The images' order, in which some bounds bet on them, depends on the
seed and on the images' names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError

SEED = 0
FULL = 0.75
"""How full images that are thinned to the default M are at least, on average."""
ROOM = 0.65
"""How much of a logarithm must be left of what images without any loss would multiply a stake by,
so that several questions an image are worth it: else one lost question among many costs more than
the others tell."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Thinned:
    """Questions that count, and the images that they belong to.

    Attributes:
        rows: (n,) places of the questions that are kept, ascending.
        image: (n,) image of each of them, 0 to G - 1 in the images' order.
        sizes: (G,) questions of each image that are kept, 1 to `most`.
        most: M, the most questions that an image counts with.
        seed: of the draw.
        of: N, how many questions there were.
    """

    rows: npt.NDArray[np.intp]
    image: npt.NDArray[np.intp]
    sizes: npt.NDArray[np.float64]
    most: int
    seed: int
    of: int

    def sums(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Sum values (N,) of the questions by image: (G,)."""
        kept = np.asarray(values, dtype=np.float64)[self.rows]
        summed = np.bincount(self.image, weights=kept, minlength=len(self.sizes))
        return summed.astype(np.float64)


def thin(
    ids: Sequence[str] | npt.NDArray,
    groups: Sequence[str] | npt.NDArray,
    *,
    most: int,
    seed: int = SEED,
) -> Thinned:
    """Keep at most `most` questions of each image.

    Args:
        ids: name of each question (N,), all different.
        groups: image of each question (N,).
        most: M, at least 1.
        seed: of the draw.

    Raises:
        DataError: for no questions, or an M below 1.
    """
    if len(ids) != len(groups) or not len(ids):
        raise DataError(
            f"To count questions by image, each needs an id and an image, and there must be one; "
            f"there are {len(ids)} ids and {len(groups)} images."
        )
    if most < 1:
        raise DataError(f"An image must count with at least 1 question; most is {most}.")
    names, first, member = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    member = member.reshape(-1)
    place = np.empty(len(names), dtype=np.intp)
    place[_ranked([f"image {name}" for name in names.tolist()], seed)] = np.arange(len(names))
    image, rows = place[member], np.arange(len(ids))
    if np.bincount(image).max() > most:
        drawn = np.empty(len(ids), dtype=np.intp)
        drawn[_ranked([f"question {name}" for name in np.asarray(ids).tolist()], seed)] = rows
        order = np.lexsort((drawn, image))
        starts = np.searchsorted(image[order], np.arange(len(names)))
        within = np.empty(len(ids), dtype=np.intp)
        within[order] = rows - starts[image[order]]
        rows = np.flatnonzero(within < most)
    sizes = np.bincount(image[rows], minlength=len(names)).astype(np.float64)
    return Thinned(rows=rows, image=image[rows], sizes=sizes, most=most, seed=seed, of=len(ids))


def default_most(
    sizes: npt.NDArray,
    *,
    images: int,
    alpha: float = 0.0,
    delta: float = 1.0,
    gains: bool = False,
) -> int:
    """The M that is taken where none is declared.

    An image with fewer than M questions is worth as much evidence as its share of M. So M is the
    largest number to which images can be thinned and still be three quarters full on average; and
    so full that the evidence would suffice with some room to spare (`ROOM`), if there were no loss.
    Where no M above 1 leaves that room, it is 1. Gains make up for a loss among many questions, so
    that where they count no room is needed.

    Args:
        sizes: questions of each image, on parts that the guarantee is not calibrated on.
        images: how many images it will be calibrated on.
        alpha: what is to be certified; 0 leaves the number of images aside.
        delta: 1 - confidence.
        gains: whether gains count, as in a net loss.

    Raises:
        DataError: for no images.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if not len(sizes):
        raise DataError("There are no images to choose the most questions per image from.")
    gain = -math.log1p(-alpha) * images
    wanted = math.log(1 / delta) + (0.0 if gains else ROOM) if alpha > 0 else 0.0
    if gains and gain < wanted:
        wanted = 0.0  # only gains can do it
    for most in range(int(sizes.max()), 1, -1):
        full = np.minimum(sizes, most).mean() / most + 1e-9
        if full >= FULL and full * gain >= wanted:
            return most
    return 1


def _ranked(names: Sequence[str], seed: int) -> npt.NDArray[np.intp]:
    """Places of names by hash, ascending."""
    hashes = [
        int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")
        for name in names
    ]
    return np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
