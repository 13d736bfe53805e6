"""Scenes as images, and what each patch of the image shows."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from m3router.data.scenes.glyphs import CHARACTERS, DOTS, glyph_mask
from m3router.data.scenes.world import (
    BACKGROUNDS,
    CELLS,
    COLORS,
    SHAPES,
    WORDS,
    WORLD_VERSION,
    Item,
    Scene,
)

PATCH = DOTS
"""Pixels along one side of a cell."""

PATCH_LABELS: dict[str, int] = {
    "kind": 1 + len(SHAPES) + 4,
    "color": 1 + len(COLORS),
    "glyph": 1 + len(CHARACTERS),
    "first": 1 + len(CHARACTERS),
    "second": 1 + len(CHARACTERS),
    "word": 1 + len(WORDS),
    "anchor": 2,
}
"""Number of classes of every label in :func:`patch_labels`; class 0 is always "none"."""

_KINDS = (*SHAPES, "tag", "sign", "bar", "entry")
_COLOR_CLASS = {name: index + 1 for index, name in enumerate(COLORS)}


@lru_cache(maxsize=512)
def _shape_mask(shape: str, size: int) -> np.ndarray:
    """Pixels (size, size) inside a shape that fills its square but for a thin rim."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    reach = 0.94
    radius = np.hypot(x, y)
    inside = {
        "circle": radius <= reach,
        "square": np.maximum(abs(x), abs(y)) <= reach * 0.9,
        "triangle": (y <= reach) & (abs(x) <= (y + reach) / 2),
        "diamond": abs(x) + abs(y) <= reach,
        "cross": (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= reach),
        "ring": (radius <= reach) & (radius >= 0.5),
    }[shape]
    inside.setflags(write=False)
    return inside


def _glyph_boxes(item: Item) -> list[tuple[str, int, int]]:
    """Every printed character of an item with its topmost and leftmost cell."""
    return [
        (character, item.row, item.col + index * item.scale)
        for index, character in enumerate(item.text)
    ]


def _ink(color: np.ndarray) -> np.ndarray:
    """Black on light colours, white on dark ones."""
    return np.array([20, 20, 20] if color @ (0.3, 0.59, 0.11) > 120 else [250, 250, 250])


def render(scene: Scene) -> np.ndarray:
    """Draw a scene.

    Returns:
        uint8 array of shape (CELLS * PATCH, CELLS * PATCH, 3), RGB.
    """
    rng = np.random.default_rng([WORLD_VERSION, scene.seed, 1])
    side = CELLS * PATCH
    ground = np.array(BACKGROUNDS[scene.background]) + rng.integers(-6, 7, 3)
    image = np.empty((side, side, 3), dtype=np.int16)
    image[:] = ground
    for item in scene.items:
        color = np.array(COLORS[item.color]) + rng.integers(-12, 13, 3)
        top, left = item.row * PATCH, item.col * PATCH
        box = image[top : top + item.height * PATCH, left : left + item.width * PATCH]
        paper = color
        if item.kind == "shape":
            box[_shape_mask(item.shape, item.height * PATCH)] = color
        elif item.kind == "bar":
            box[1:-1, 2 * item.scale * PATCH :] = color
            paper = ground
        else:
            box[:] = color
        ink = _ink(paper)
        dx, dy = item.scale * rng.integers(1, 3), item.scale * rng.integers(0, 2)
        for character, row, col in _glyph_boxes(item):
            mask = glyph_mask(character, item.scale)
            y, x = row * PATCH + dy, col * PATCH + dx
            image[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = ink
    image += rng.integers(-5, 6, (side, side, 1), dtype=np.int16)
    return np.clip(image, 0, 255).astype(np.uint8)


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """What a fully informed eye would say of every patch.

    Returns:
        One int64 array of shape (CELLS, CELLS) for each key of :data:`PATCH_LABELS`: ``kind`` and
        ``color`` of the item that the patch belongs to; ``glyph`` printed in this very patch;
        ``first`` and ``second`` character and ``word`` of the whole item, where it is printed;
        ``anchor``, 1 in one patch of each item.
    """
    labels = {name: np.zeros((CELLS, CELLS), dtype=np.int64) for name in PATCH_LABELS}
    for item in scene.items:
        here = np.s_[item.row : item.row + item.height, item.col : item.col + item.width]
        if item.kind == "shape":
            mask = _shape_mask(item.shape, item.height * PATCH)
            covered = mask.reshape(item.height, PATCH, item.width, PATCH).mean((1, 3)) > 0.2
        else:
            covered = np.ones((item.height, item.width), dtype=bool)
        kind = item.shape if item.kind == "shape" else item.kind
        labels["kind"][here][covered] = 1 + _KINDS.index(kind)
        labels["color"][here][covered] = _COLOR_CLASS[item.color]
        middle = (item.row + item.height // 2, item.col + item.width // 2)
        labels["anchor"][middle] = 1
        if item.kind == "sign":
            labels["word"][here] = 1 + WORDS.index(item.text)
        elif item.kind != "shape":  # a bar has its text at its left end only
            printed = np.s_[item.row : item.row + item.scale, item.col : item.col + 2 * item.scale]
            labels["first"][printed] = 1 + CHARACTERS.index(item.text[0])
            labels["second"][printed] = 1 + CHARACTERS.index(item.text[1])
        for character, row, col in _glyph_boxes(item):
            labels["glyph"][row : row + item.scale, col : col + item.scale] = 1 + CHARACTERS.index(
                character
            )
    return labels


def patch_weights(scene: Scene) -> np.ndarray:
    """How much each patch counts in training: less in large items, nothing on the ground.

    Returns:
        float32 array (CELLS, CELLS): 1 / sqrt(patches of the item), so that an item's weight
        grows with its side and not with its area.
    """
    weights = np.zeros((CELLS, CELLS), dtype=np.float32)
    for item in scene.items:
        here = np.s_[item.row : item.row + item.height, item.col : item.col + item.width]
        weights[here] = (item.height * item.width) ** -0.5
    return weights
