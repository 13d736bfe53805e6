"""What the tower made of pictures, kept for the next question about the same picture."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from m3core.models.base import MultiScaleModel, VisualEncoding
from router.serve.backend import Ask


class Encodings:
    """The encodings of the pictures that were asked about last; for any thread.

    Args:
        model: Encodes.
        kept: Pictures that are kept at most; 0 shares them within one call only.
    """

    def __init__(self, model: MultiScaleModel, *, kept: int) -> None:
        self._model = model
        self._kept = kept
        self._lock = threading.Lock()
        self._known: OrderedDict[str, VisualEncoding] = OrderedDict()

    def of(self, asks: Sequence[Ask]) -> list[VisualEncoding]:
        """One encoding for each question; equal pictures are encoded once.

        Args:
            asks: Questions; those without a digest share their picture with none.
        """
        keys = [ask.digest or f"place {place}" for place, ask in enumerate(asks)]
        images = {key: ask.image for key, ask in zip(keys, asks, strict=True)}
        with self._lock:
            known = {key: self._known[key] for key in images if key in self._known}
        new = [key for key in images if key not in known]
        made = self._model.encode([images[key] for key in new]) if new else []
        known.update(zip(new, made, strict=True))
        with self._lock:
            for key, ask in zip(keys, asks, strict=True):
                if ask.digest:
                    self._known[key] = known[key]
                    self._known.move_to_end(key)
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
        return [known[key] for key in keys]
