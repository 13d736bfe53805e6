"""The errors of this project: one root, few kinds.

Every message names the thing, the rule it broke, what came instead and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence


class M3RouterError(Exception):
    """Root of every error that this project raises on purpose."""


class DataError(M3RouterError):
    """What the user brought (a file, an example, a log) cannot be used as it is."""


class ImageError(DataError):
    """An image that cannot be read."""


class ImageSizeError(ImageError):
    """An image with too many pixels."""


class VideoError(ImageError):
    """A video that no collage can be made of."""


class MismatchError(M3RouterError):
    """Two artefacts do not belong together; the message names both sides."""


class ModelError(M3RouterError):
    """A checkpoint or model that cannot be loaded or asked."""


class NotLearnableError(M3RouterError):
    """A log from which no router can be learned (all right, all wrong, or empty)."""


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Write the first of some names, and how many more there are, for a message."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
