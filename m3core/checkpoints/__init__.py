"""Published checkpoint formats: recognised, loaded with every key accounted for, converted.

Importing the package is cheap; its names come from:

- ``places``: where a checkpoint lies (folder, hub id, ``embedded``);
- ``checkpoint``: what its config says;
- ``tensors``, ``tower``, ``parts``: its tensors, its vision tower, its tokenizer and image
  processor;
- ``families``: one object for each model family, and the table of them;
- ``loading``, ``sizes``, ``conversion``: what is done with a checkpoint of any family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.m3core.checkpoints.conversion import convert as convert
    from m3router.m3core.checkpoints.families.table import FAMILIES as FAMILIES
    from m3router.m3core.checkpoints.loading import load_model as load_model
    from m3router.m3core.checkpoints.places import EMBEDDED as EMBEDDED
    from m3router.m3core.checkpoints.places import FAKE as FAKE
    from m3router.m3core.checkpoints.places import embedded_folder as embedded_folder
    from m3router.m3core.checkpoints.places import resolve as resolve
    from m3router.m3core.checkpoints.places import revision_of as revision_of
    from m3router.m3core.checkpoints.sizes import read_sizes as read_sizes

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "EMBEDDED": "m3router.m3core.checkpoints.places",
            "FAKE": "m3router.m3core.checkpoints.places",
            "FAMILIES": "m3router.m3core.checkpoints.families.table",
            "convert": "m3router.m3core.checkpoints.conversion",
            "embedded_folder": "m3router.m3core.checkpoints.places",
            "load_model": "m3router.m3core.checkpoints.loading",
            "read_sizes": "m3router.m3core.checkpoints.sizes",
            "resolve": "m3router.m3core.checkpoints.places",
            "revision_of": "m3router.m3core.checkpoints.places",
        },
    )
