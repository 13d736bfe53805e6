"""MQT-LLaVA's published weights as a model.

The layout (``model_type`` ``llava_llama``; names as in the authors' ``llava_arch.py``,
``LlavaMetaModel``, and ``multimodal_projector/builder.py``, ``Resampler``):

- ``model.embed_tokens.*``, ``model.layers.*``, ``model.norm.*``, ``lm_head.*``: the language model
- ``model.query_abstractor.*``: the query transformer with its own projection; there is no
  ``model.mm_projector``
- ``model.vision_tower.vision_tower.*``: the tower, where the checkpoint holds it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from data.errors import ModelError
from m3core.checkpoints.keys import DROPPED, account
from m3core.checkpoints.layouts import Checkpoint
from m3core.checkpoints.loading import DTYPES, Placement, own
from m3core.checkpoints.parts import load_image_processor, load_tokenizer
from m3core.checkpoints.places import revision_of
from m3core.checkpoints.tower import INSIDE, read_with_tower
from m3core.checkpoints.weights import Tensors
from m3core.models.mqt import MqtLlava
from m3core.models.preprocessing import ASPECTS
from m3core.models.query_abstractor import QueryAbstractor
from m3core.prompts import get_template
from m3core.scales import MQT_SCALES, ScaleGrid

ABSTRACTOR = "model.query_abstractor."
_CLIP = "vision_model."
_SUPPORTED: dict[str, tuple[Any, Any]] = {
    # Name in config.json: (the only supported value, what the published code takes without it).
    "mm_vision_select_feature": ("patch", "patch"),
    "mm_patch_merge_type": ("flat", "flat"),
    "mm_use_im_start_end": (False, False),
}


def published_shapes(text: LlamaConfig, vision: CLIPVisionConfig) -> dict[str, torch.Size]:
    """Every name of a checkpoint, the tower included, with its shape; takes no memory."""
    with torch.device("meta"):
        parts = {
            "": LlamaForCausalLM(text),
            INSIDE: CLIPVisionModel(vision),
            ABSTRACTOR: new_abstractor(text, vision),
        }
    return {
        prefix + name.removeprefix(_CLIP if prefix == INSIDE else ""): tensor.shape
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


def build_mqt(checkpoint: Checkpoint, placement: Placement, *, name: str) -> MqtLlava:
    """Build the model; every tensor of the checkpoint is accounted for.

    An entry ``matryoshka`` of the configuration may choose the scales and the prompt:
    ``{"scales": [2, 16, 256], "prompt": "vicuna-1"}``.

    Args:
        checkpoint: Of the family ``mqt``.
        placement: Where the language model goes; tower and queries go to its ``device``.
        name: How the user called the model.

    Raises:
        ModelError: If any weight is missing, unexpected or of another shape, or the configuration
            asks for what the published model does not do.
        MismatchError: If the scales do not ascend or are more than the queries.
    """
    config, folder = checkpoint.config, checkpoint.folder
    text = text_config(checkpoint)
    raw, tower = read_with_tower(checkpoint)
    given = named(raw)
    account(published_shapes(text, tower.config), given, optional=(), folder=folder)
    device, dtype = placement.device, DTYPES[placement.dtype]
    abstractor = new_abstractor(text, tower.config)
    abstractor.load_state_dict(_part(given, ABSTRACTOR))
    keywords = {"device_map": {"": device}} | placement.keywords()
    here: dict[str, Any] = {"device_map": {"": device}, "dtype": dtype}
    more = [tower.folder] if tower.folder else []
    return MqtLlava(
        model=_load(LlamaForCausalLM, text, _part(given, ""), keywords),
        tower=_load(CLIPVisionModel, tower.config, _part(given, INSIDE), here),
        abstractor=abstractor.to(device, dtype).eval(),
        tokenizer=load_tokenizer(checkpoint, rows=text.vocab_size),
        image_processor=load_image_processor(checkpoint, tower.config, tower),
        template=get_template(checkpoint.settings.get("prompt", "vicuna-1")),
        grid=ScaleGrid(scales=tuple(checkpoint.settings.get("scales", MQT_SCALES)), side=None),
        name=name,
        revision=revision_of(folder, *more),
        layer=config.get("mm_vision_select_layer", -2),
        context=_context(config, text),
        aspect=checkpoint.aspect,
    )


def named(raw: Mapping[str, torch.Tensor]) -> Tensors:
    """Known leftovers dropped; the tower's names without the level that not all versions have."""
    return {
        INSIDE + key.removeprefix(INSIDE).removeprefix(_CLIP) if key.startswith(INSIDE) else key: it
        for key, it in raw.items()
        if not DROPPED.search(key)
    }


def published_weights(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """Weights by their names in :class:`~m3core.models.trainees.MqtTrainee` as published ones."""
    prefixes = {"model": "", "tower": INSIDE, "abstractor": ABSTRACTOR}
    renamed = {}
    for key, tensor in weights.items():
        part, _, name = key.partition(".")
        renamed[prefixes[part] + name] = tensor
    return named(renamed)


def _part(given: Tensors, prefix: str) -> Tensors:
    """The weights of one part under its own names; the empty prefix is the language model."""
    others = () if prefix else (INSIDE, ABSTRACTOR)  # no name starts with one of no prefixes
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in given.items()
        if key.startswith(prefix) and not key.startswith(others)
    }


def _load(kind: Any, config: Any, weights: Tensors, keywords: Mapping[str, Any]) -> Any:
    model, info = kind.from_pretrained(
        None, config=config, state_dict=dict(weights), output_loading_info=True, **keywords
    )
    left = [str(key) for what in info.values() for key in what]
    if left:
        raise ModelError(f"{kind.__name__} did not take all of its weights: {', '.join(left)}")
    own(model, weights)
    return model.eval()


def text_config(checkpoint: Checkpoint) -> LlamaConfig:
    """The language model's part of a flat ``llava_llama`` configuration.

    Raises:
        ModelError: If it is not valid, or asks for what the published model does not do.
    """
    config = checkpoint.config
    wrong = [
        f"{key} is {config.get(key, default)!r}, and only {wanted!r} is supported"
        for key, (wanted, default) in _SUPPORTED.items()
        if config.get(key, default) != wanted
    ]
    ratio = config.get("image_aspect_ratio")
    if ratio not in (None, *ASPECTS):
        wrong.append(
            f"image_aspect_ratio is {ratio!r}, and only {' and '.join(map(repr, ASPECTS))} are "
            "supported"
        )
    if wrong:
        raise ModelError(f"{checkpoint.folder}/config.json: {'; '.join(wrong)}")
    foreign = {"model_type", "architectures", "auto_map", "matryoshka", "dtype", "torch_dtype"}
    kept = {
        key: value
        for key, value in config.items()
        if key not in foreign and not key.startswith(("mm_", "tune_", "freeze_", "_"))
    }
    try:
        return LlamaConfig(**kept)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{checkpoint.folder}/config.json is not valid: {error}") from error


def _context(config: Mapping[str, Any], text: LlamaConfig) -> int:
    """The published code cuts prompts at ``tokenizer_model_max_length``; here they are refused."""
    limits = (config.get("tokenizer_model_max_length"), text.max_position_embeddings)
    return min(limit for limit in limits if limit)
