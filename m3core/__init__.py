"""The frozen multi-scale model: load it, encode once, answer at any scale, label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from m3core.checkpoints import load_model as load_model
    from m3core.labelling import label as label
    from m3core.scales import ScaleGrid as ScaleGrid

__getattr__ = exports(
    __name__,
    {
        "ScaleGrid": "m3core.scales",
        "label": "m3core.labelling",
        "load_model": "m3core.checkpoints",
    },
)
