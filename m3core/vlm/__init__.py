"""Current vision-language models, asked by visual budget.

- ``families``: the literal table of families: their processors, their ladders of options;
- ``processors``: a family's processor, without the video part where that needs more packages;
- ``options``: a user's options checked, and every option probed once;
- ``prompts``: an image's prepared prompt, and what stands before and after a question;
- ``model``: the adapter that answers; ``decoding``: prefixes read once, greedy answers;
- ``loading``: from a name to a model;
- ``option_costs``: what every option costs, without a model's weights;
- ``tiny``: random models of every family, for tests and for trying the tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.m3core.vlm.families import FAMILIES as FAMILIES
    from m3router.m3core.vlm.loading import is_vlm as is_vlm
    from m3router.m3core.vlm.loading import load_vlm as load_vlm

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "FAMILIES": "m3router.m3core.vlm.families",
            "is_vlm": "m3router.m3core.vlm.loading",
            "load_vlm": "m3router.m3core.vlm.loading",
        },
    )
