"""The config of the original LLaVA layout as one of Hugging Face's.

The names on the left are those of haotian-liu/LLaVA (``llava/model/llava_arch.py``,
``multimodal_encoder/clip_encoder.py``, ``multimodal_projector/builder.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.file_checks import UNREADABLE

PROJECTORS = {"mlp2x_gelu": "gelu", "linear": "linear"}
"""LLaVA's projectors with the activation that Hugging Face's two-layer projector takes.

A single linear layer is written as two, the second one the identity without any activation
between them, which changes no bit of the result.
"""

MERGES = ("spatial_unpad", "flat")
IMAGE_TOKEN = "<image>"
_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "attention_bias",
    "attention_dropout",
    "mlp_bias",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
)
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


def translated(checkpoint: Checkpoint, vision: CLIPVisionConfig) -> dict[str, Any]:
    """Arguments of a Hugging Face LLaVA config that say what the original layout's config says.

    Args:
        checkpoint: In the original layout, around a stock LLaVA.
        vision: Config of its tower.

    Returns:
        What the configs of all stock families have in common. The image token is the first id
        behind the vocabulary.

    Raises:
        ModelError: If it asks for something that this cannot express; all of it in one error.
    """
    source = checkpoint.config
    problems = _inexpressible(source)
    if problems:
        raise ModelError(f"{checkpoint.folder}/config.json: {'; '.join(problems)}")
    with valid_config(checkpoint.folder):
        text = LlamaConfig(**{key: source[key] for key in _COPIED if source.get(key) is not None})
        return {
            "vision_config": vision,
            "text_config": text,
            "image_token_index": text.vocab_size,
            "image_seq_length": (vision.image_size // vision.patch_size) ** 2,
            "projector_hidden_act": PROJECTORS[source.get("mm_projector_type", "linear")],
            "vision_feature_layer": source.get("mm_vision_select_layer", -2),
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": bool(source.get("tie_word_embeddings", False)),
        }


@contextmanager
def valid_config(folder: Path) -> Iterator[None]:
    """Turn what the config classes raise into this project's error.

    Raises:
        ModelError: If the block finds that the config in the folder is not valid.
    """
    try:
        yield
    except (RuntimeError, ArithmeticError, *UNREADABLE) as error:
        raise ModelError(f"{folder}/config.json is not valid: {error}") from error


def _inexpressible(source: dict[str, Any]) -> list[str]:
    problems = [f"{key} is missing" for key in _NEEDED if not isinstance(source.get(key), int)]
    projector = source.get("mm_projector_type", "linear")
    if projector not in PROJECTORS:
        problems.append(
            f"mm_projector_type is {projector!r}; this version loads {' and '.join(PROJECTORS)}"
        )
    feature = source.get("mm_vision_select_feature", "patch")
    if feature != "patch":
        problems.append(
            f"mm_vision_select_feature is {feature!r}; only 'patch' leaves a square grid to pool"
        )
    if not isinstance(source.get("mm_vision_select_layer", -2), int):
        problems.append("mm_vision_select_layer must be one number")
    if source.get("mm_use_im_start_end"):
        problems.append(
            "mm_use_im_start_end is true; prompts with start and end tokens are not built in"
        )
    if source.get("mm_resampler_type") or source.get("s2"):
        problems.append("a resampler or S2 tower is not built in")
    merge = source.get("mm_patch_merge_type", "flat")
    if source.get("image_aspect_ratio") == "anyres" and merge not in MERGES:
        problems.append(
            f"mm_patch_merge_type is {merge!r}; this version loads {' and '.join(MERGES)}"
        )
    return problems
