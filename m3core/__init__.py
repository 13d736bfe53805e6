"""The frozen multi-scale model: load it, encode once, answer at any scale, label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.m3core.checkpoints import load_model as load_model
    from m3router.m3core.labelling import label as label
    from m3router.m3core.matryoshka.scales import ScaleGrid as ScaleGrid

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ScaleGrid": "m3router.m3core.matryoshka.scales",
            "label": "m3router.m3core.labelling",
            "load_model": "m3router.m3core.checkpoints",
        },
    )
