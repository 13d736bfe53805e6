"""Which columns of feature blocks say what an image looks like; without torch.

Neither how large it is counts here nor what is asked about it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Looks = dict[str, npt.NDArray[np.intp]]
CHANNELS, DETAIL, CUES = "channels", "detail", "cues"


def of_image(width: int, scales: int) -> Looks:
    """Of :func:`m3router.router.features.image.image_features`: by channel, and in all.

    Args:
        width: Of the block.
        scales: K, of what encoded the image; where the width does not fit it, all are channels.

    >>> of_image(2 + 2 * (2 + 2), 3)
    {'channels': array([0, 1, 2, 3, 6, 7]), 'detail': array([4, 5, 8, 9])}
    """
    steps = max(0, scales - 1)
    channels, left = divmod(width - 2 * steps, steps + 1)
    if left or channels < 1 or not steps:
        return {CHANNELS: np.arange(width)}
    ends = channels + (channels + 2) * np.arange(1, steps + 1)
    detail = np.sort(np.concatenate([ends - 2, ends - 1]))
    return {CHANNELS: np.setdiff1d(np.arange(width), detail), DETAIL: detail}


def of_cheap(width: int, scales: int) -> Looks:
    """Of :func:`m3router.router.features.cheap.image_cues`: all but the size."""
    return {CUES: np.arange(4, 16)}


LOOKS: dict[str, Callable[[int, int], Looks]] = {"image": of_image, "cheap": of_cheap}
"""Feature group -> its columns, by kind, from its width and the scales of what encoded images."""
