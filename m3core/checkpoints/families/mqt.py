"""MQT-LLaVA: visual tokens are the first outputs of a query transformer.

The published layout (``model_type`` ``llava_llama``; names as in the authors' ``llava_arch.py``,
``LlavaMetaModel``, and ``multimodal_projector/builder.py``, ``Resampler``):

- ``model.embed_tokens.*``, ``model.layers.*``, ``model.norm.*``, ``lm_head.*``: the language model
- ``model.query_abstractor.*``: the query transformer with its own projection; there is no
  ``model.mm_projector``
- ``model.vision_tower.vision_tower.*``: the tower, where the checkpoint holds it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint, Layout, is_original
from m3router.m3core.checkpoints.families.base import Family, Sizes, Source
from m3router.m3core.checkpoints.parts import load_image_processor, load_tokenizer
from m3router.m3core.checkpoints.placement import DTYPES, own
from m3router.m3core.checkpoints.places import revision_of
from m3router.m3core.checkpoints.tensors import DROPPED, Tensors, account, key_names
from m3router.m3core.checkpoints.tower import INSIDE, read_with_tower, tower_sizes
from m3router.m3core.checkpoints.translation import valid_config
from m3router.m3core.checkpoints.writing import replaced, whole_folder
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.base import VisualEncoding
from m3router.m3core.matryoshka.models.grad_cam import token_heat_maps
from m3router.m3core.matryoshka.models.mqt import MqtLlava
from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor
from m3router.m3core.matryoshka.pooling import AVERAGE
from m3router.m3core.matryoshka.preprocessing import ASPECTS, as_seen
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import MQT_SCALES, ScaleGrid
from m3router.m3core.matryoshka.views import TokenHeat

ABSTRACTOR = "model.query_abstractor."
_MARK = "query_abstractor"
_CLIP = "vision_model."
_SUPPORTED: dict[str, tuple[Any, Any]] = {
    # Name in config.json: (the only supported value, what the published code takes without it).
    "mm_vision_select_feature": ("patch", "patch"),
    "mm_patch_merge_type": ("flat", "flat"),
    "mm_use_im_start_end": (False, False),
}
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json")
_TOWER = ("config.json", "preprocessor_config.json")


class MqtTrainable:
    """An MQT-LLaVA in training: a scale is the first so many query outputs.

    It has what :class:`m3router.m3core.matryoshka.trainable.Trainable` asks for.

    Args:
        model: The model, whose three parts are trained in place.
    """

    def __init__(self, model: MqtLlava) -> None:
        self.module: Any = nn.ModuleDict(
            {"model": model.model, "tower": model.tower, "abstractor": model.abstractor}
        )
        self._layer = model.layer

    @property
    def tower(self) -> Any:
        """CLIP."""
        return self.module["tower"]

    @property
    def connector(self) -> nn.Module:
        """The query transformer."""
        return self.module["abstractor"]

    @property
    def language(self) -> Any:
        """The language model without its head."""
        return self.module["model"].model

    @property
    def embeddings(self) -> nn.Module:
        """Of the language model."""
        return self.module["model"].get_input_embeddings()

    @property
    def head(self) -> nn.Module:
        """Of the language model."""
        return self.module["model"].lm_head

    def check_scale(self, scale: int) -> int:
        """Return a number of tokens that the queries can give.

        Raises:
            MismatchError: If there are not so many queries.
        """
        return self.module["abstractor"].check(scale)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs of all queries, (B, Q, D); each depends on its own query alone."""
        if images.dim() == 4:
            output = self.module["tower"](images, output_hidden_states=True)
            images = output.hidden_states[self._layer][:, 1:]
        return self.module["abstractor"](images)

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """The first outputs, (B, scale, D)."""
        return features[:, :scale]


class Mqt(Family):
    """MQT-LLaVA (Hu et al., NeurIPS 2024)."""

    name = "mqt"
    model = MqtLlava
    loads = "'llava_llama' with a query transformer (MQT-LLaVA)"
    always_matryoshka = True

    def recognise(self, folder: Path, config: Mapping[str, Any]) -> Layout | None:
        """The original layout whose config or tensors name a query transformer."""
        if not is_original(config):
            return None
        named = _MARK in " ".join(config) or any(_MARK in key for key in key_names(folder))
        return "original" if named else None

    def sizes(self, checkpoint: Checkpoint) -> Sizes:
        """Sizes whose connector is the query transformer."""
        text, vision = text_config(checkpoint), tower_sizes(checkpoint)
        with torch.device("meta"):
            abstractor = new_abstractor(text, vision)
        grid = _grid(checkpoint)
        abstractor.check(grid.finest)
        shape = ModelShape.of_parts(
            text, vision, connector=abstractor.cost(), tied=bool(text.tie_word_embeddings)
        )
        return Sizes(family=self.name, grid=grid, shape=shape)

    def build(self, source: Source) -> MqtLlava:
        """Load the model; language model, tower and queries go to the placement's device.

        An entry ``matryoshka`` of the configuration may choose the scales and the prompt:
        ``{"scales": [2, 16, 256], "prompt": "vicuna-1"}``.
        """
        if source.pooling != AVERAGE:
            source.refuse("pooling", "whose scales are its first queries and no poolings")
        if source.grids is not None:
            source.refuse("grids", "which sees an image whole")
        checkpoint, placement = source.checkpoint, source.placement
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
            grid=_grid(checkpoint),
            name=source.name,
            revision=revision_of(folder, *more),
            layer=config.get("mm_vision_select_layer", -2),
            context=_context(config, text),
            aspect=checkpoint.aspect,
        )

    def trainable(self, model: MqtLlava) -> MqtTrainable:
        """Its three parts."""
        return MqtTrainable(model)

    def write_trained(
        self,
        checkpoint: Checkpoint,
        weights: Mapping[str, torch.Tensor],
        destination: Path,
        *,
        scales: Sequence[int],
        dtype: str | None,
    ) -> None:
        """Write the layout of its authors; it answers at every scale, whatever was trained."""
        old, tower = read_with_tower(checkpoint)
        new = published_weights(weights)
        tensors = replaced(named(old), new, dtype=dtype, folder=checkpoint.folder)
        with whole_folder(destination) as work:
            (work / "config.json").write_text(json.dumps(checkpoint.config, indent=2))
            for pattern in _TOKENIZER:
                for file in checkpoint.folder.glob(pattern):
                    shutil.copy(file, work)
            if tower.folder is not None:
                beside = work / Path(checkpoint.config["mm_vision_tower"]).name
                beside.mkdir()
                for name in _TOWER:
                    if (tower.folder / name).is_file():
                        shutil.copy(tower.folder / name, beside)
            save_torch_state_dict(tensors, work, metadata={"format": "pt"})

    def visualize(
        self, model: MqtLlava, image: Image.Image, encoding: VisualEncoding, *, side: int
    ) -> TokenHeat:
        """Where single tokens look, by Grad-CAM (Figure 4 of the paper)."""

        def maps(tokens: Sequence[int]) -> np.ndarray:
            return token_heat_maps(model, image, tokens).numpy()

        square = as_seen(image, model.image_processor.image_mean, model.aspect)
        return TokenHeat(image=square, maps=maps)


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


def named(raw: Mapping[str, torch.Tensor]) -> Tensors:
    """Known leftovers dropped; the tower's names without the level that not all versions have."""
    return {
        INSIDE + key.removeprefix(INSIDE).removeprefix(_CLIP) if key.startswith(INSIDE) else key: it
        for key, it in raw.items()
        if not DROPPED.search(key)
    }


def published_weights(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """Weights by their names in :class:`MqtTrainable` as published ones."""
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
    with valid_config(checkpoint.folder):
        return LlamaConfig(**kept)


def _context(config: Mapping[str, Any], text: LlamaConfig) -> int:
    """The published code cuts prompts at ``tokenizer_model_max_length``; here they are refused."""
    limits = (config.get("tokenizer_model_max_length"), text.max_position_embeddings)
    return min(limit for limit in limits if limit)


def _grid(checkpoint: Checkpoint) -> ScaleGrid:
    return ScaleGrid(scales=tuple(checkpoint.settings.get("scales", MQT_SCALES)), side=None)


MQT = Mqt()
