"""From the published weights of MQT-LLaVA to a model, or one error that lists all that is wrong.

The published layout (``model_type`` ``llava_llama``; names as in the authors' ``llava_arch.py``,
``LlavaMetaModel``, and ``multimodal_projector/builder.py``, ``Resampler``):

- ``model.embed_tokens.*``, ``model.layers.*``, ``model.norm.*``, ``lm_head.*``: the language model
- ``model.query_abstractor.*``: the query transformer with its own projection; there is no
  ``model.mm_projector``
- ``model.vision_tower.vision_tower.vision_model.*``: the tower, where the checkpoint holds it;
  otherwise it comes from the CLIP folder that ``mm_vision_tower`` names
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import (
    BaseImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from data.errors import ModelError
from m3core.models.mqt import MqtLlava
from m3core.models.query_abstractor import QueryAbstractor
from m3core.prompts import get_template
from m3core.scales import MQT_SCALES, ScaleGrid

ABSTRACTOR = "model.query_abstractor."
TOWER = "model.vision_tower.vision_tower.vision_model."
_CLIP = "vision_model."
_DERIVED = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Buffers that older libraries saved though they follow from the configuration."""

_SUPPORTED: dict[str, tuple[Any, Any]] = {
    # Name in config.json: (the only supported value, what the published code takes without it).
    "mm_vision_select_feature": ("patch", "patch"),
    "mm_patch_merge_type": ("flat", "flat"),
    "mm_use_im_start_end": (False, False),
    "image_aspect_ratio": ("pad", "square"),
}


def clip_l_336() -> CLIPVisionConfig:
    """Sizes of ``openai/clip-vit-large-patch14-336``, the tower of the published checkpoint."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )


def is_mqt(names: Iterable[str]) -> bool:
    """Whether weights of these names are a published MQT-LLaVA."""
    return any(name.startswith(ABSTRACTOR) for name in names)


def published_shapes(text: LlamaConfig, vision: CLIPVisionConfig) -> dict[str, tuple[int, ...]]:
    """Every name of a published checkpoint, the tower included, with its shape; takes no memory."""
    with torch.device("meta"):
        parts = {
            "": LlamaForCausalLM(text),
            TOWER: CLIPVisionModel(vision),
            ABSTRACTOR: new_abstractor(text, vision),
        }
    return {
        prefix + name.removeprefix(_CLIP if prefix == TOWER else ""): tuple(tensor.shape)
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }


def new_abstractor(text: LlamaConfig, vision: CLIPVisionConfig) -> QueryAbstractor:
    """An untrained query transformer between a tower and a language model."""
    return QueryAbstractor(
        side=vision.image_size // vision.patch_size,
        width=vision.hidden_size,
        output=text.hidden_size,
    )


def build_mqt(
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: BaseImageProcessor,
    name: str,
    revision: str,
    tower_config: CLIPVisionConfig | None = None,
    tower_weights: Mapping[str, torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    **placement: Any,
) -> MqtLlava:
    """Build the model from published weights; every one of them is accounted for.

    An entry ``matryoshka`` of the configuration may choose the scales and the prompt, as in the
    Hugging Face layout: ``{"scales": [2, 16, 256], "prompt": "vicuna-1"}``.

    Args:
        weights: All tensors of the checkpoint by their published names.
        config: Its ``config.json``.
        tokenizer: Its tokenizer.
        image_processor: CLIP's.
        name: How the user called the model.
        revision: Hash of its files.
        tower_config: Sizes of the tower; None takes those of the published one.
        tower_weights: CLIP's tensors (``vision_model.*``; others are not looked at), taken where
            the checkpoint holds no tower.
        dtype: Number format of all parts.
        device: Where tower and queries go, and the language model where ``placement`` is silent.
        placement: Further arguments of ``from_pretrained`` for the language model, such as
            ``device_map`` or ``quantization_config``.

    Raises:
        ModelError: If any weight is missing, unexpected or of another shape, or the configuration
            asks for what the published model does not do; all of it in one message.
        MismatchError: If the scales do not ascend or are more than the queries.
    """
    vision = tower_config or clip_l_336()
    text = _text_config(config)
    given = _with_tower(weights, tower_weights)
    expected = published_shapes(text, vision)
    problems = _unsupported(config)
    if not any(key.startswith(TOWER) for key in given):
        problems.append(_no_tower(config))
        expected = {key: shape for key, shape in expected.items() if not key.startswith(TOWER)}
    problems += key_problems(expected, given)
    if problems:
        raise ModelError(
            f"{name} cannot be loaded as MQT-LLaVA, and nothing may be left randomly initialised. "
            f"{'; '.join(problems)}"
        )
    placement.setdefault("device_map", {"": device})
    tower = _load(CLIPVisionModel, vision, _part(given, TOWER), dtype, device_map={"": device})
    abstractor = new_abstractor(text, vision)
    abstractor.load_state_dict(_part(given, ABSTRACTOR))
    settings = config.get("matryoshka", {})
    return MqtLlava(
        model=_load(LlamaForCausalLM, text, _part(given, ""), dtype, **placement),
        tower=tower,
        abstractor=abstractor.to(device, dtype).eval(),
        tokenizer=tokenizer,
        image_processor=image_processor,
        template=get_template(settings.get("prompt", "vicuna-1")),
        grid=ScaleGrid(scales=tuple(settings.get("scales", MQT_SCALES)), side=None),
        name=name,
        revision=revision,
        layer=config.get("mm_vision_select_layer", -2),
        context=_context(config, text),
    )


def key_problems(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, torch.Tensor]
) -> list[str]:
    """What differs between wanted and given weights: a line for each kind, every name listed."""
    shared = expected.keys() & given.keys()
    kinds = {
        "missing keys": sorted(expected.keys() - given.keys()),
        "unexpected keys": sorted(given.keys() - expected.keys()),
        "mismatched keys": [
            f"{key} is {tuple(given[key].shape)} and must be {expected[key]}"
            for key in sorted(shared)
            if tuple(given[key].shape) != expected[key]
        ],
    }
    return [f"{kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def _with_tower(
    weights: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    given = {key: value for key, value in weights.items() if not key.endswith(_DERIVED)}
    if tower and not any(key.startswith(TOWER) for key in given):
        given |= {
            TOWER + key.removeprefix(_CLIP): value
            for key, value in tower.items()
            if key.startswith(_CLIP) and not key.endswith(_DERIVED)
        }
    return given


def _part(given: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one part under its own names; the empty prefix is the language model."""
    others = () if prefix else (TOWER, ABSTRACTOR)  # no name starts with one of no prefixes
    return {
        key.removeprefix(prefix): value
        for key, value in given.items()
        if key.startswith(prefix) and not key.startswith(others)
    }


def _load(
    kind: Any, config: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype, **placement: Any
) -> Any:
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        output_loading_info=True,
        **placement,
    )
    left = [str(key) for what in info.values() for key in what]
    if left:
        raise ModelError(f"{kind.__name__} did not take all of its weights: {', '.join(left)}")
    return model.eval()


def _text_config(config: Mapping[str, Any]) -> LlamaConfig:
    """The language model's part of a flat ``llava_llama`` configuration."""
    foreign = {"model_type", "architectures", "auto_map", "matryoshka", "dtype", "torch_dtype"}
    kept = {
        key: value
        for key, value in config.items()
        if key not in foreign and not key.startswith(("mm_", "tune_", "freeze_", "_"))
    }
    return LlamaConfig(**kept)


def _context(config: Mapping[str, Any], text: LlamaConfig) -> int:
    """The published code cuts prompts at ``tokenizer_model_max_length``; here they are refused."""
    limits = (config.get("tokenizer_model_max_length"), text.max_position_embeddings)
    return min(limit for limit in limits if limit)


def _no_tower(config: Mapping[str, Any]) -> str:
    named = config.get("mm_vision_tower", "openai/clip-vit-large-patch14-336")
    return (
        f"missing keys: all of {TOWER}*, since the checkpoint holds no vision tower; bring the "
        f"files of {named}, which it was trained with"
    )


def _unsupported(config: Mapping[str, Any]) -> list[str]:
    return [
        f"config.json has {key} = {config.get(key, default)!r}, and only {wanted!r} is supported"
        for key, (wanted, default) in _SUPPORTED.items()
        if config.get(key, default) != wanted
    ]
