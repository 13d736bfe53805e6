"""A LLaVA of any size with random weights, for measuring time and memory without a checkpoint.

Its answers mean nothing; its work is that of a trained model of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
)

from m3router.m3core.matryoshka.base import ANSWER_TOKENS
from m3router.m3core.matryoshka.models.llava import LlavaM3
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import M3_SCALES, ScaleGrid

LLAVA_7B: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "text": {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
        },
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
    }
)
"""LLaVA-1.5-7B: Vicuna-7B and CLIP ViT-L/14 at 336 pixels (Liu et al., CVPR 2024)."""

_SPECIAL = ("<unk>", "<s>", "</s>")


def llava_config(*, text: Mapping[str, int], vision: Mapping[str, int]) -> LlavaConfig:
    """The configuration of a LLaVA-1.5 from its sizes.

    Args:
        text: Arguments of ``LlamaConfig``.
        vision: Arguments of ``CLIPVisionConfig``.
    """
    return LlavaConfig(
        text_config=LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, **text),
        vision_config=CLIPVisionConfig(**vision),
        image_token_index=text["vocab_size"] - 1,
        tie_word_embeddings=False,
    )


def untrained_llava(
    config: LlavaConfig,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    max_new_tokens: int = ANSWER_TOKENS,
) -> LlavaM3:
    """Random weights, made on the device in their number format.

    Args:
        config: From :func:`llava_config`.
        device: A torch device.
        dtype: Of all weights.
        seed: Of the weights; the values also depend on the kind of device.
        max_new_tokens: Longest answer.

    Returns:
        A model whose every token is one word, so that equal texts are equal tokens.

    Raises:
        MismatchError: If M3's scales do not nest in the tower's grid.
    """
    vision: Any = config.vision_config
    grid = ScaleGrid(scales=M3_SCALES, side=vision.image_size // vision.patch_size)
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    side = {"height": vision.image_size, "width": vision.image_size}
    return LlavaM3(
        model=model.eval(),
        tokenizer=_tokenizer(config.text_config.vocab_size),
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side),
        template=get_template("vicuna-1"),
        grid=grid,
        name="untrained",
        revision=f"seed {seed}",
        max_new_tokens=max_new_tokens,
    )


def untrained_tower(config: CLIPVisionConfig) -> CLIPVisionModel:
    """A vision tower with random weights, in evaluation mode."""
    return CLIPVisionModel(config).eval()


def _tokenizer(rows: int) -> PreTrainedTokenizerFast:
    words = [*_SPECIAL, *(f"word{number}" for number in range(len(_SPECIAL), rows))]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    unknown, begin, end = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, bos_token=begin, eos_token=end
    )
