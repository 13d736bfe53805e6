"""Whether an image is unlike those of the training, in words."""

from __future__ import annotations

UNLIKE = 0.01
"""An image of at most this p-value is called unlike those that the router was trained on."""


def unlike(familiarity: float | None) -> str:
    """That an image is unlike those that the router was trained on, one sentence; "" if not.

    >>> unlike(0.004)
    'The image is unlike those that the router was trained on (0.4% of them are as unlike the \
others): its estimates may be wrong.'
    >>> unlike(0.3)
    ''
    """
    if familiarity is None or familiarity > UNLIKE:
        return ""
    return (
        "The image is unlike those that the router was trained on "
        f"({100 * familiarity:.2g}% of them are as unlike the others): its estimates may be wrong."
    )
