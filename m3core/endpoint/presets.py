"""Options that servers are known to have, by name; a literal table.

What each server does was read or run with the versions that ``docs/endpoints.md`` names. A preset
has no model: the user names it, or the server has one only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Options for one kind of server.

    Attributes:
        options: Tables as in a file of options, from the coarsest.
        about: What changes between the options, for which models.
        needs: What the server must be started with; "" for nothing.
        tokens: What its ``usage`` says of the image.
    """

    options: tuple[Mapping[str, Any], ...]
    about: str
    needs: str = ""
    tokens: str = "derived from a request without the image"


VLLM_NEEDS = "--trust-request-mm-kwargs; --enable-prompt-tokens-details for exact image tokens"
VLLM_TOKENS = "multimodal_tokens.image with --enable-prompt-tokens-details, else derived"
SIDES = (256, 512, 1024, 2048)
QWEN_BUDGETS = (64, 256, 1024, 2048)
GEMMA_BUDGETS = (70, 140, 280, 560, 1120)
TILES = (1, 4, 6, 12)
"""NOTE: without 2, which gives images of 4:3 one tile, as 1 does."""


def _options(
    names: Iterable[Any], field: str, values: Iterable[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {"name": str(name), "body": {field: dict(value)}}
        for name, value in zip(names, values, strict=True)
    )


def _areas(patch: int) -> list[dict[str, Any]]:
    """Qwen's limits of the image's area: so many tokens of ``patch`` x ``patch`` pixels."""
    least = 4 * patch**2
    return [
        {"size": {"shortest_edge": least, "longest_edge": budget * patch**2}}
        for budget in QWEN_BUDGETS
    ]


_GEMMA = [{"max_soft_tokens": budget} for budget in GEMMA_BUDGETS]
_INTERNVL = [{"crop_to_patches": True, "max_patches": tiles} for tiles in TILES]
_SMOLVLM = [{"size": {"longest_edge": side}} for side in (512, 1024, 1536, 2048)]
_VLLM, _TRANSFORMERS = "mm_processor_kwargs", "chat_template_kwargs"

PRESETS: dict[str, Preset] = {
    "vllm-qwen2.5-vl": Preset(
        options=_options(QWEN_BUDGETS, _VLLM, _areas(28)),
        about="Qwen2-VL and Qwen2.5-VL: at most so many visual tokens of 28 x 28 pixels",
        needs=VLLM_NEEDS,
        tokens=VLLM_TOKENS,
    ),
    "vllm-qwen3-vl": Preset(
        options=_options(QWEN_BUDGETS, _VLLM, _areas(32)),
        about="Qwen3-VL: at most so many visual tokens of 32 x 32 pixels",
        needs=VLLM_NEEDS,
        tokens=VLLM_TOKENS,
    ),
    "vllm-gemma4": Preset(
        options=_options(GEMMA_BUDGETS, _VLLM, _GEMMA),
        about="Gemma 4: at most so many visual tokens (max_soft_tokens)",
        needs=VLLM_NEEDS,
        tokens=VLLM_TOKENS,
    ),
    "vllm-internvl": Preset(
        options=_options(TILES, _VLLM, _INTERNVL),
        about="InternVL3 in transformers' format (-hf): at most so many tiles",
        needs=VLLM_NEEDS,
        tokens=VLLM_TOKENS,
    ),
    "vllm-smolvlm2": Preset(
        options=_options((512, 1024, 1536, 2048), _VLLM, _SMOLVLM),
        about="SmolVLM2: the longest side before the image is cut into tiles",
        needs=VLLM_NEEDS,
        tokens=VLLM_TOKENS,
    ),
    "transformers-qwen2.5-vl": Preset(
        options=_options(QWEN_BUDGETS, _TRANSFORMERS, _areas(28)),
        about="`transformers serve` with Qwen2-VL or Qwen2.5-VL",
    ),
    "transformers-qwen3-vl": Preset(
        options=_options(QWEN_BUDGETS, _TRANSFORMERS, _areas(32)),
        about="`transformers serve` with Qwen3-VL",
    ),
    "transformers-gemma4": Preset(
        options=_options(GEMMA_BUDGETS, _TRANSFORMERS, _GEMMA),
        about="`transformers serve` with Gemma 4",
    ),
    "transformers-internvl": Preset(
        options=_options(TILES, _TRANSFORMERS, _INTERNVL),
        about="`transformers serve` with InternVL3",
    ),
    "transformers-smolvlm2": Preset(
        options=_options((512, 1024, 1536, 2048), _TRANSFORMERS, _SMOLVLM),
        about="`transformers serve` with SmolVLM2",
    ),
    "sglang-internvl": Preset(
        options=tuple(
            {"name": str(tiles), "image": {"max_dynamic_patch": tiles}} for tiles in TILES
        ),
        about="SGLang with InternVL: at most so many tiles, in the image's part",
        tokens="prompt_tokens_details.image_tokens where the server gives it, else derived",
    ),
    "lmdeploy": Preset(
        options=_options(
            QWEN_BUDGETS,
            _VLLM,
            [
                {"image": {"min_pixels": 4 * 28**2, "max_pixels": budget * 28**2}}
                for budget in QWEN_BUDGETS
            ],
        ),
        about="LMDeploy with Qwen2-VL or Qwen2.5-VL: limits of the image's pixels",
    ),
    "openai-detail": Preset(
        options=(
            {"name": "low", "image": {"detail": "low"}},
            {"name": "high", "image": {"detail": "high"}},
        ),
        about="OpenAI's API: `detail` of the image. vLLM and `transformers serve` ignore it",
    ),
    "resize": Preset(
        options=tuple({"name": str(side), "longest_side": side} for side in SIDES),
        about="any server: the longest side, made smaller here before the image is sent",
    ),
}
"""Name of a preset -> its options, and what they need."""
