"""A dot-matrix font of 5 x 7 dots, so that printed text needs no font file.

One glyph stands in a square of 8 x 8 dots; at ``scale`` s one dot is s x s pixels, so a glyph
fills s x s patches of a vision tower whose patches are 8 pixels wide.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
DOTS = 8
"""Dots along one side of a glyph's square."""

# Five columns per glyph, left to right; bit 0 is the top dot.
# fmt: off
_COLUMNS = (
    "3E5149453E", "00427F4000", "4261514946", "2141454B31", "1814127F10", "2745454539",
    "3C4A494930", "0171090503", "3649494936", "064949291E", "7E1111117E", "7F49494936",
    "3E41414122", "7F4141221C", "7F49494941", "7F09090901", "3E4149497A", "7F0808087F",
    "00417F4100", "2040413F01", "7F08142241", "7F40404040", "7F020C027F", "7F0408107F",
    "3E4141413E", "7F09090906", "3E4151215E", "7F09192946", "4649494931", "01017F0101",
    "3F4040403F", "1F2040201F", "3F4038403F", "6314081463", "0708700807", "6151494543",
)
# fmt: on


@lru_cache(maxsize=1024)
def glyph_mask(character: str, scale: int) -> np.ndarray:
    """The inked pixels of a character.

    Args:
        character: One of :data:`CHARACTERS` (drawn as a capital).
        scale: Pixels along one side of a dot, at least 1.

    Returns:
        Boolean array of shape (7 * scale, 5 * scale), read-only.
    """
    columns = bytes.fromhex(_COLUMNS[CHARACTERS.index(character)])
    dots = (np.array(list(columns))[None, :] >> np.arange(7)[:, None]) & 1
    mask = np.kron(dots, np.ones((scale, scale))).astype(bool)
    mask.setflags(write=False)
    return mask
