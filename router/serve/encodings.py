"""What the tower made of pictures, kept for the next question about the same picture."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from m3core.models.base import MultiScaleModel, VisualEncoding
from router.serve.backend import Ask


class Encodings:
    """The encodings of the pictures that were asked about last.

    Args:
        model: Encodes.
        kept: Pictures that are kept at most; 0 shares them within one call only.
    """

    def __init__(self, model: MultiScaleModel, *, kept: int) -> None:
        self._model = model
        self._kept = kept
        self._known: OrderedDict[str, VisualEncoding] = OrderedDict()

    def of(self, asks: Sequence[Ask]) -> list[VisualEncoding]:
        """One encoding for each question; equal pictures are encoded once.

        Args:
            asks: Questions; those without a digest share their picture with none.
        """
        keys = [ask.digest or f"place {place}" for place, ask in enumerate(asks)]
        images = {key: ask.image for key, ask in zip(keys, asks, strict=True)}
        new = [key for key in images if key not in self._known]
        made = self._model.encode([images[key] for key in new]) if new else []
        fresh = dict(zip(new, made, strict=True))
        found = [fresh[key] if key in fresh else self._known[key] for key in keys]
        for key, ask, encoding in zip(keys, asks, found, strict=True):
            if ask.digest:
                self._known[key] = encoding
                self._known.move_to_end(key)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return found
