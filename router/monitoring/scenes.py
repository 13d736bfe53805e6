"""Whether an image is a drawn scene, which is all that the embedded model can read.

The embedded model's own tower does not tell: to it, a photograph looks like the scenes that it was
trained on. So an image is judged by its pixels: how often neighbouring pixels differ, and by how
much; how many colours there are, and how much each covers; and the pixel cues of
:mod:`m3router.router.features.cheap`. How it compares with drawn scenes is a conformal p-value, as
in :mod:`m3router.router.monitoring.familiarity`. The scenes it is compared with were also made
larger or smaller and kept as JPEG, because the model reads those as well.

`experiments/embedded_model/scenes.py` makes the file that ships, for one revision of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import load

from m3router.data.errors import DataError
from m3router.router.features.cheap import image_cues
from m3router.router.monitoring.familiarity import OTHERS, SINGLE, Array, Aspect
from m3router.router.text.familiarity import UNLIKE

FILE = "checkpoint/scenes.safetensors"
REVISION = "revision"
SIDE = 96
"""Images are scaled to squares of this side."""
STEPS = (0.03, 0.06, 0.12, 0.25)
"""Differences between neighbouring pixels, of the whole range."""
_SHADES = 8  # of each colour, for the palette
_LARGEST = (1, 2, 4, 8)  # colours whose share of the image is told together
_LEAST = 1e-3
_OF_SIZE = 4  # first cues of `image_cues`, which say how large an image is


def scene_cues(image: Image.Image) -> npt.NDArray[np.float32]:
    """What tells drawn scenes from other images.

    Args:
        image: RGB.

    Returns:
        float32 (29,): the cues of :func:`image_cues` but for the size; for each of `STEPS` the
        logarithm of the share of pixels that differ from a neighbour by so much, and the share of
        those that do not; the share of the image in its largest, two, four and eight largest
        colours, the entropy of its colours in bits, and the logarithm of their number; quartiles
        of the differences.
    """
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
    across = np.abs(np.diff(small, axis=1)).max(-1)[:-1]
    down = np.abs(np.diff(small, axis=0)).max(-1)[:, :-1]
    step = np.maximum(across, down)
    most = [float((step >= one).mean()) for one in STEPS]
    shades = np.minimum((small * _SHADES).astype(np.intp), _SHADES - 1)
    colours = (shades[..., 0] * _SHADES + shades[..., 1]) * _SHADES + shades[..., 2]
    counts = np.bincount(colours.ravel(), minlength=_SHADES**3) / colours.size
    shares = np.sort(counts[counts > 0])[::-1]
    cues = [
        *(np.log(_LEAST + share) for share in most),
        *(1 - share for share in most),
        *(shares[:count].sum() for count in _LARGEST),
        -(shares * np.log2(shares)).sum(),
        np.log((shares > _LEAST).sum()),
        *np.quantile(step, [0.25, 0.5, 0.75]),
    ]
    return np.concatenate([image_cues(image)[_OF_SIZE:], np.array(cues, dtype=np.float32)])


class _Revised(Protocol):
    """A model of any kind."""

    @property
    def revision(self) -> str:
        """Of its weights."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """What images are compared with.

    Attributes:
        revision: Of the model that reads them.
        aspect: Learned on scenes.
        scores: Of held-out scenes, ascending (n,).
    """

    revision: str
    aspect: Aspect
    scores: Array

    def of(self, image: Image.Image) -> float:
        """The p-value of an RGB image, in (0, 1]; as of `Familiarity.of`."""
        as_unlike = np.searchsorted(self.scores, self.aspect.score(scene_cues(image)), "right")
        return (1 + int(as_unlike)) / (1 + len(self.scores))


@cache
def scenes() -> Scenes:
    """Those that ship with the package.

    Raises:
        DataError: If the file is missing or damaged.
    """
    file = resources.files("m3router.router.monitoring").joinpath(FILE)
    try:
        arrays: dict[str, npt.NDArray[Any]] = load(file.read_bytes())
        own = {name: arrays[name] for name in (*SINGLE, *OTHERS)}
        return Scenes(
            revision=arrays[REVISION].tobytes().decode("ascii"),
            aspect=Aspect.of_arrays("scene", "cues", own),
            scores=np.asarray(arrays["scores"], dtype=np.float64),
        )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}. Install m3router again.") from error


def reads_scenes_only(model: _Revised) -> bool:
    """Whether a model is the embedded one, which was trained on drawn scenes and nothing else."""
    return model.revision == scenes().revision


def scene_likeness(model: _Revised | None, image: Image.Image) -> float | None:
    """How like drawn scenes an image is: a p-value in (0, 1]; None where the model reads others.

    Args:
        model: That answers; None where it is not known.
        image: RGB.
    """
    return scenes().of(image) if model is not None and reads_scenes_only(model) else None


def is_outside(likeness: float | None) -> bool:
    """Whether an image of this `scene_likeness` is outside what the model can read."""
    return likeness is not None and likeness <= UNLIKE


def combined(*p_values: float | None) -> float | None:
    """One p-value of several about the same image; None where there are none.

    An image that each of n tests finds usual has one of at most u with probability at most u
    (Bonferroni).

    >>> combined(0.25, None), combined(0.25, 0.01), combined(None, None), combined(0.8, 0.9)
    (0.25, 0.02, None, 1.0)
    """
    known = [one for one in p_values if one is not None]
    return min(1.0, len(known) * min(known)) if known else None
