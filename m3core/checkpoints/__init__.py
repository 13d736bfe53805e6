"""Published checkpoint formats: recognised, loaded with every key accounted for, converted.

Importing the package is cheap; its names come from:

- ``places``: where a checkpoint lies (folder, hub id, ``embedded``);
- ``layouts``: which layout and family it is;
- ``translation``: the original LLaVA config as a Hugging Face config;
- ``weights``, ``keys``: its tensors, their names, and whether each has a place;
- ``parts``: tokenizer and image processor;
- ``loading``: stock Hugging Face model on a device, in a number format;
- ``families``: from a family to a :class:`~m3core.models.base.MultiScaleModel`;
- ``conversion``: the Hugging Face layout, written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from m3core.checkpoints.conversion import convert as convert
    from m3core.checkpoints.families import FAMILIES as FAMILIES
    from m3core.checkpoints.families import load_model as load_model
    from m3core.checkpoints.places import EMBEDDED as EMBEDDED
    from m3core.checkpoints.places import FAKE as FAKE
    from m3core.checkpoints.places import embedded_folder as embedded_folder
    from m3core.checkpoints.places import resolve as resolve
    from m3core.checkpoints.places import revision_of as revision_of

__getattr__ = exports(
    __name__,
    {
        "EMBEDDED": "m3core.checkpoints.places",
        "FAKE": "m3core.checkpoints.places",
        "FAMILIES": "m3core.checkpoints.families",
        "convert": "m3core.checkpoints.conversion",
        "embedded_folder": "m3core.checkpoints.places",
        "load_model": "m3core.checkpoints.families",
        "resolve": "m3core.checkpoints.places",
        "revision_of": "m3core.checkpoints.places",
    },
)
