"""The pieces of a stock Hugging Face LLaVA that this project calls one by one."""

from __future__ import annotations

import torch
from transformers import LlavaForConditionalGeneration


def tower_tokens(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Run the vision tower once.

    Args:
        model: A LLaVA whose ``vision_feature_layer`` is a single layer.
        pixels: Normalised images, (B, 3, H, W).

    Returns:
        Patch tokens before the projector, (B, S * S, Dv), chosen and stripped of CLS as the
        model's configuration says (``LlavaModel.get_image_features`` does the same).
    """
    config = model.config
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    hidden = output.hidden_states[config.vision_feature_layer]
    return hidden[:, 1:] if config.vision_feature_select_strategy == "default" else hidden


def project(model: LlavaForConditionalGeneration, tokens: torch.Tensor) -> torch.Tensor:
    """Map tower tokens (..., Dv) to the language model's width, (..., D)."""
    return model.model.multi_modal_projector(tokens)
