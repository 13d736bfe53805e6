"""Operations of current vision-language models, from their ``config.json`` alone.

Counted as in :mod:`m3router.m3core.cost.operations`: a multiply and an add are two operations;
norms, softmax, activations and look-ups are left out; attention is over the full score matrix.
The models' code in ``transformers`` 5.23 (``models/<model_type>/modeling_<model_type>.py``) says
which matrices there are and what they see, and torch's ``FlopCounterMode`` counts the same. Not
loaded: weights, image processors, tokenizers.

NOTE: A sliding window counts only while decoding. At prefill, eager and ``sdpa`` attention compute
the whole score matrix and mask it, which is also an upper bound for kernels that skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from m3router.data.errors import ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.cost.operations import StackShape

_CHUNK = 64  # tokens that the gated delta rule reads at once (modeling_qwen3_5.py)


@dataclass(frozen=True, kw_only=True)
class DeltaRule:
    """Linear attention that carries a matrix instead of keys (Gated DeltaNet, arXiv 2412.06464).

    Attributes:
        heads: Value heads.
        key: Width of a key head.
        value: Width of a value head.
    """

    heads: int
    key: int
    value: int

    def flops(self, new: int) -> float:
        """Operations of one layer for ``new`` tokens, without the matrices around it.

        One token reads, corrects and reads the state again. Several are read in whole chunks; the
        solution of a triangular system in each (under 1 % of a layer) is left out.
        """
        state = 3 * self.key * self.value
        if new == 1:
            return float(2 * self.heads * state)
        chunks = -(-new // _CHUNK)
        inside = _CHUNK * (2 * self.key + self.value)
        return float(2 * self.heads * chunks * _CHUNK * (inside + state))


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of the same shape.

    Attributes:
        stack: Their attention and feed-forward blocks; no heads for layers without attention.
        extra: Multiply-adds of a layer for a token beyond the stack's; below zero where the layer
            lacks a matrix that the stack has.
        window: Tokens that a token attends to at most, itself included; None for all.
        delta: Linear attention, in every layer.
        last_only: Whether the prompt's last token alone passes through them, because they read
            the keys of other layers (Gemma 4's shared layers).
        every: Patches of the tower that were merged to one position before these layers.
    """

    stack: StackShape
    extra: int = 0
    window: int | None = None
    delta: DeltaRule | None = None
    last_only: bool = False
    every: int = 1

    def _flops(self, new: int, keys: int) -> float:
        """Operations for ``new`` tokens, each of which attends to ``keys``."""
        delta = self.stack.layers * self.delta.flops(new) if self.delta else 0.0
        extra = 2.0 * new * self.stack.layers * self.extra
        return self.stack.flops(new, keys - new) + extra + delta

    def _keys(self, tokens: int) -> int:
        """How many of the tokens one attends to."""
        return tokens if self.window is None else min(tokens, self.window)

    def prefill_flops(self, tokens: int) -> float:
        """Operations for a whole prompt."""
        return self._flops(1 if self.last_only else tokens, tokens)

    def decode_flops(self, past: int) -> float:
        """Operations for one token behind ``past`` cached ones."""
        return self._flops(1, self._keys(past + 1))

    def tower_flops(self, patches: int) -> float:
        """Operations for a view in a vision tower."""
        positions = patches // self.every
        return self._flops(positions, self._keys(positions))


@dataclass(frozen=True, kw_only=True)
class LanguageShape:
    """Sizes of a language model.

    Attributes:
        groups: Its layers.
        hidden: Width.
        vocabulary: Rows of the output matrix.
        extra: Multiply-adds for every token outside the layers.
    """

    groups: tuple[LayerGroup, ...]
    hidden: int
    vocabulary: int
    extra: int = 0

    def flops(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Prefill, then one token at a time, and the logits of every answer token.

        Args:
            prompt_tokens: All tokens of the prompt, those of the image included.
            answer_tokens: Tokens of the answer, at least 1.
        """
        total = sum(group.prefill_flops(prompt_tokens) for group in self.groups)
        for past in range(prompt_tokens, prompt_tokens + answer_tokens - 1):
            total += sum(group.decode_flops(past) for group in self.groups)
        outside = self.extra * (prompt_tokens + answer_tokens - 1)
        return total + 2.0 * (outside + answer_tokens * self.hidden * self.vocabulary)


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """Sizes of a vision tower and of what connects it to the language model.

    Attributes:
        groups: Its layers.
        hidden: Width.
        patch_values: Numbers in one patch, of all channels and frames.
        class_tokens: Positions in the layers beside the patches, for each view.
        per_patch: Multiply-adds of the connector for a patch.
        per_token: Multiply-adds of the connector for a visual token.
        pooled: Patches averaged to one token by a matrix product (Gemma 4); None where no
            product does it.
    """

    groups: tuple[LayerGroup, ...]
    hidden: int
    patch_values: int
    class_tokens: int = 0
    per_patch: int = 0
    per_token: int = 0
    pooled: int | None = None

    def flops(self, views: Sequence[int], visual_tokens: int) -> float:
        """See :meth:`VisionLanguageShape.tower_flops`."""
        total = 2.0 * visual_tokens * self.per_token
        for patches in views:
            positions = patches + self.class_tokens
            total += sum(group.tower_flops(positions) for group in self.groups)
            total += 2.0 * patches * (self.patch_values * self.hidden + self.per_patch)
            if self.pooled:
                total += 2.0 * (patches // self.pooled) * patches * self.hidden
        return total


@dataclass(frozen=True, kw_only=True)
class VisionLanguageShape:
    """Sizes of a vision-language model.

    Attributes:
        family: ``model_type`` of its configuration, a name of :data:`FAMILIES`.
        tower: Vision tower and connector.
        language: Language model.
        finer_tower: The tower as it runs where it keeps more visual tokens (MiniCPM-V's
            ``downsample_mode`` 4x); None where there is one way only.
        finer_below: Patches for a visual token, below which ``finer_tower`` runs.
    """

    family: str
    tower: TowerShape
    language: LanguageShape
    finer_tower: TowerShape | None = None
    finer_below: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VisionLanguageShape:
        """Read the sizes from a ``config.json``.

        Args:
            config: What the file holds; what it leaves out has the default of ``transformers``.

        Raises:
            ModelError: If it names none of :data:`FAMILIES`, an unknown language model inside it,
                or sizes that ``transformers`` refuses.
        """
        family = config.get("model_type")
        if not isinstance(family, str) or family not in FAMILIES:
            raise ModelError(unknown_name("model_type", str(family), FAMILIES))
        parsed = _parsed(config)
        if parsed.vision_config is None:
            raise ModelError(
                f"the configuration of a {family} model has no vision_config: no tower"
            )
        return FAMILIES[family](parsed)

    def tower_flops(self, views: Sequence[int], visual_tokens: int) -> float:
        """Operations of vision tower and connector for one image.

        Args:
            views: Patches of each view that attend to each other, as the tower runs them: padding
                included, class tokens not.
            visual_tokens: Tokens behind the connector, of all views together.
        """
        tower = self.tower
        if self.finer_tower and sum(views) < self.finer_below * visual_tokens:
            tower = self.finer_tower
        return tower.flops(views, visual_tokens)

    def language_flops(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Operations of the language model for one answer.

        Args:
            prompt_tokens: All tokens of the prompt, those of the image included.
            answer_tokens: Tokens of the answer, at least 1.
        """
        return self.language.flops(prompt_tokens, answer_tokens)


def _parsed(config: Mapping[str, Any]) -> Any:
    """The configuration object, which knows the defaults."""
    from transformers import AutoConfig  # heavy

    try:
        return AutoConfig.for_model(**config)
    except (StrictDataclassError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the configuration of a {config['model_type']} model cannot be read: {reason}"
        ) from error


def _grouped(layers: Iterable[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Put layers of the same shape together."""
    return tuple(
        replace(one, stack=replace(one.stack, layers=one.stack.layers * count))
        for one, count in Counter(layers).items()
    )


# Language models: a function of the text configuration for each ``model_type``.


def _text_stack(text: Any, **changes: Any) -> StackShape:
    """One layer of Llama's shape."""
    heads = text.num_attention_heads
    shape = {
        "layers": 1,
        "hidden": text.hidden_size,
        "intermediate": text.intermediate_size,
        "heads": heads,
        "kv_heads": text.num_key_value_heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "gated": True,
    }
    return StackShape(**{**shape, **changes})


def _window(text: Any, kind: str) -> int | None:
    """How far a layer of this kind sees."""
    return text.sliding_window if kind == "sliding_attention" else None


def _llama_like(text: Any) -> LanguageShape:
    """Llama, Mistral, Qwen2, Qwen3, Gemma 3: attention, some of it through a window, and a MLP."""
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    stack = _text_stack(text)
    layers = (LayerGroup(stack=stack, window=_window(text, kind)) for kind in kinds)
    return LanguageShape(
        groups=_grouped(layers), hidden=text.hidden_size, vocabulary=text.vocab_size
    )


def _gemma4(text: Any) -> LanguageShape:
    """Two widths of heads, shared keys, inputs for each layer, and a mixture of experts."""
    hidden, inputs = text.hidden_size, text.hidden_size_per_layer_input or 0
    layers = []
    for index, kind in enumerate(text.layer_types):
        own = text.per_layer_config[index]
        shared = text.kv_sharing_modes[index] == "reuse"
        wide = 2 if shared and text.use_double_wide_mlp else 1
        stack = StackShape(
            layers=1,
            hidden=hidden,
            intermediate=wide * text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=0 if shared else own.num_key_value_heads,
            head_dim=own.head_dim,
            gated=True,
        )
        extra = 2 * hidden * inputs
        if text.attention_k_eq_v and kind == "full_attention":
            extra -= hidden * stack.key_width  # keys are values as well
        if text.enable_moe_block:
            expert = 3 * hidden * text.moe_intermediate_size
            extra += hidden * text.num_experts + text.top_k_experts * expert
        window = _window(text, kind)
        layers.append(LayerGroup(stack=stack, extra=extra, window=window, last_only=shared))
    return LanguageShape(
        groups=_grouped(layers),
        hidden=hidden,
        vocabulary=text.vocab_size,
        extra=hidden * inputs * text.num_hidden_layers,
    )


def _lfm2(text: Any) -> LanguageShape:
    """Short convolutions between gates in place of most attention."""
    hidden, wide = text.hidden_size, text.intermediate_size
    if text.block_auto_adjust_ff_dim:  # as Lfm2MLP does
        wide = int(2 * wide / 3)
        if text.block_ffn_dim_multiplier is not None:
            wide = int(text.block_ffn_dim_multiplier * wide)
            wide = text.block_multiple_of * -(-wide // text.block_multiple_of)
    attention = LayerGroup(stack=_text_stack(text, intermediate=wide))
    convolution = LayerGroup(
        stack=_text_stack(text, intermediate=wide, heads=0, kv_heads=0, head_dim=0),
        extra=4 * hidden * hidden + text.conv_L_cache * hidden,
    )
    layers = (convolution if kind == "conv" else attention for kind in text.layer_types)
    return LanguageShape(groups=_grouped(layers), hidden=hidden, vocabulary=text.vocab_size)


def _qwen3_5(text: Any) -> LanguageShape:
    """Linear attention in most layers; full attention has a gate of the queries' width."""
    hidden, stack = text.hidden_size, _text_stack(text)
    delta = DeltaRule(
        heads=text.linear_num_value_heads,
        key=text.linear_key_head_dim,
        value=text.linear_value_head_dim,
    )
    values = delta.heads * delta.value
    mixed = 2 * text.linear_num_key_heads * delta.key + values  # queries, keys, values
    linear = LayerGroup(
        stack=_text_stack(text, heads=0, kv_heads=0, head_dim=0),
        extra=hidden * (mixed + 2 * values + 2 * delta.heads) + text.linear_conv_kernel_dim * mixed,
        delta=delta,
    )
    full = LayerGroup(stack=stack, extra=hidden * stack.query_width)
    layers = (linear if kind == "linear_attention" else full for kind in text.layer_types)
    return LanguageShape(groups=_grouped(layers), hidden=hidden, vocabulary=text.vocab_size)


_LANGUAGE: Mapping[str, Callable[[Any], LanguageShape]] = MappingProxyType(
    {
        "gemma3_text": _llama_like,
        "gemma4_text": _gemma4,
        "lfm2": _lfm2,
        "llama": _llama_like,
        "mistral": _llama_like,
        "qwen2": _llama_like,
        "qwen2_5_vl_text": _llama_like,
        "qwen3": _llama_like,
        "qwen3_5_text": _qwen3_5,
        "qwen3_vl_text": _llama_like,
    }
)


def _language(text: Any) -> LanguageShape:
    """Read the language model inside a vision-language model."""
    if text.model_type not in _LANGUAGE:
        raise ModelError(unknown_name("language model", text.model_type, _LANGUAGE))
    return _LANGUAGE[text.model_type](text)


# Towers: a function of the whole configuration for each family.


def _vit(vision: Any, *, layers: int | None = None, **changes: Any) -> StackShape:
    """Layers of CLIP's and SigLIP's shape: all heads have keys, two feed-forward matrices."""
    heads = vision.num_attention_heads
    shape = {
        "layers": vision.num_hidden_layers if layers is None else layers,
        "hidden": vision.hidden_size,
        "intermediate": vision.intermediate_size,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": vision.hidden_size // heads,
        "gated": False,
    }
    return StackShape(**{**shape, **changes})


def _patch_values(vision: Any) -> int:
    """Numbers in a patch of one frame."""
    side = vision.patch_size
    area = side[0] * side[1] if isinstance(side, list | tuple) else side**2
    return int(getattr(vision, "num_channels", 3) * area)


def _siglip_like(config: Any, **connector: int) -> TowerShape:
    """A tower of plain layers. NOTE: a pooling head, which no family reads, is left out."""
    vision = config.vision_config
    return TowerShape(
        groups=(LayerGroup(stack=_vit(vision)),),
        hidden=vision.hidden_size,
        patch_values=_patch_values(vision),
        **connector,
    )


def _shape(config: Any, tower: TowerShape, **more: Any) -> VisionLanguageShape:
    """Put tower and language model together."""
    language = _language(config.text_config)
    return VisionLanguageShape(family=config.model_type, tower=tower, language=language, **more)


def _qwen_vl(config: Any) -> VisionLanguageShape:
    """Qwen2.5-VL and Qwen3-VL: native resolution, two frames a patch, 2 x 2 patches merged.

    Qwen2.5-VL attends within windows in most layers: all are counted as full windows, which is
    exact where the grid divides into them (else an upper bound, under 1 % of a layer). Qwen3-VL
    merges the outputs of some earlier layers as well (deepstack).
    """
    vision = config.vision_config
    gated = config.model_type == "qwen2_5_vl"
    stack = _vit(vision, gated=gated)
    groups: tuple[LayerGroup, ...] = (LayerGroup(stack=stack),)
    mergers = 1
    if gated:
        full = len(set(vision.fullatt_block_indexes) & set(range(stack.layers)))
        unit = vision.spatial_merge_size
        side = vision.window_size // unit // vision.patch_size * unit
        groups = (
            LayerGroup(stack=replace(stack, layers=full)),
            LayerGroup(stack=replace(stack, layers=stack.layers - full), window=side**2),
        )
    else:
        mergers += len(vision.deepstack_visual_indexes)
    merged = vision.hidden_size * vision.spatial_merge_size**2
    return _shape(
        config,
        TowerShape(
            groups=groups,
            hidden=vision.hidden_size,
            patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            per_token=mergers * merged * (merged + vision.out_hidden_size),
        ),
    )


def _gemma3(config: Any) -> VisionLanguageShape:
    """One or more square views, averaged to 256 tokens each, one matrix."""
    per_token = config.vision_config.hidden_size * config.text_config.hidden_size
    return _shape(config, _siglip_like(config, per_token=per_token))


def _gemma4_vl(config: Any) -> VisionLanguageShape:
    """Patches padded to the budget, 3 x 3 averaged by a product with a matrix, one matrix."""
    vision = config.vision_config
    stack = _vit(vision, kv_heads=vision.num_key_value_heads, head_dim=vision.head_dim, gated=True)
    return _shape(
        config,
        TowerShape(
            groups=(LayerGroup(stack=stack),),
            hidden=vision.hidden_size,
            patch_values=_patch_values(vision),
            per_token=vision.hidden_size * config.text_config.hidden_size,
            pooled=vision.pooling_kernel_size**2,
        ),
    )


def _internvl(config: Any) -> VisionLanguageShape:
    """Tiles with a class token, 2 x 2 patches side by side, two matrices."""
    width = config.text_config.hidden_size
    merged = config.vision_config.hidden_size * int(1 / config.downsample_ratio) ** 2
    tower = _siglip_like(config, class_tokens=1, per_token=width * (merged + width))
    return _shape(config, tower)


def _smolvlm(config: Any) -> VisionLanguageShape:
    """Tiles, several patches side by side, one matrix."""
    merged = config.vision_config.hidden_size * config.scale_factor**2
    return _shape(config, _siglip_like(config, per_token=merged * config.text_config.hidden_size))


def _llava_onevision(config: Any) -> VisionLanguageShape:
    """Crops, two matrices over all patches; crops are resized and newlines added behind them."""
    width, chosen = config.text_config.hidden_size, config.vision_feature_layer
    outputs = len(chosen) if isinstance(chosen, list | tuple) else 1
    per_patch = width * (config.vision_config.hidden_size * outputs + width)
    return _shape(config, _siglip_like(config, per_patch=per_patch))


def _lfm2_vl(config: Any) -> VisionLanguageShape:
    """Native resolution or tiles, several patches side by side, two matrices."""
    merged = config.vision_config.hidden_size * config.downsample_factor**2
    per_token = config.projector_hidden_size * (merged + config.text_config.hidden_size)
    return _shape(config, _siglip_like(config, per_token=per_token))


def _minicpmv(config: Any) -> VisionLanguageShape:
    """Slices; at 16x four patches become one in the middle of the tower, four again behind it."""
    vision, width = config.vision_config, config.text_config.hidden_size
    hidden, unit = vision.hidden_size, vision.window_kernel_size[0] * vision.window_kernel_size[1]
    merged = 4 * hidden
    # Each round of the last merger but the last keeps the tower's width and merges four again.
    rounds = range(config.merger_times - 1)
    per_token = merged * (merged + width)
    per_token += sum(
        4 ** (config.merger_times - 1 - i) * merged * (merged + hidden) for i in rounds
    )
    before = config.insert_layer_id + 1
    finer = _siglip_like(config, per_token=per_token)
    if before <= 0:
        return _shape(config, finer)
    merger = LayerGroup(
        stack=_vit(vision, layers=1, intermediate=0),
        window=unit,
        extra=(unit + 1) * hidden * vision.intermediate_size,  # for a patch, of `unit` together
    )
    tower = replace(
        finer,
        groups=(
            LayerGroup(stack=_vit(vision, layers=before)),
            merger,
            LayerGroup(stack=_vit(vision, layers=vision.num_hidden_layers - before), every=unit),
        ),
    )
    # A token stands for 16 patches at 16x and for 4 at 4x: 8 tell them apart.
    between = 2 * 4**config.merger_times
    return _shape(config, tower, finer_tower=finer, finer_below=between)


FAMILIES: Mapping[str, Callable[[Any], VisionLanguageShape]] = MappingProxyType(
    {
        "gemma3": _gemma3,
        "gemma4": _gemma4_vl,
        "internvl": _internvl,
        "lfm2_vl": _lfm2_vl,
        "llava_onevision": _llava_onevision,
        "minicpmv4_6": _minicpmv,
        "qwen2_5_vl": _qwen_vl,
        "qwen3_vl": _qwen_vl,
        "smolvlm": _smolvlm,
    }
)
"""What reads the sizes of a family, by ``model_type``."""
