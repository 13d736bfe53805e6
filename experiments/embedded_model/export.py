"""Write the embedded model as a folder in the Hugging Face LLaVA layout."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from experiments.embedded_model.architecture import IMAGE_MEAN, IMAGE_STD
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.matryoshka.scales import M3_SCALES


def export(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate,
    folder: Path,
) -> None:
    """Save weights, tokenizer and image processor; ``load_model(folder)`` reads them back.

    Args:
        model: The trained model.
        tokenizer: Its tokenizer.
        template: The prompt it was trained with.
        folder: Created where missing; files of the same names are replaced.
    """
    model.config.matryoshka = {"scales": list(M3_SCALES), "prompt": template.name}
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = model.config.vision_config.image_size
    CLIPImageProcessorPil(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_STD] * 3,
    ).save_pretrained(folder)
