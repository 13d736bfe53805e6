"""The embedded model's architecture: a stock Hugging Face LLaVA at small size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.clip.modeling_clip import CLIPAttention

from m3router.data.scenes.drawing import PATCH
from m3router.data.scenes.world import CELLS

HIDDEN = 128
POSITION = 32
"""Units of a tower token that hold its place when training starts."""
LOUDNESS = 5.0
"""Amplitude of those sines and cosines. The layer norms scale them down where a patch shows much
and up where it is plain; were they quiet, plain patches would shout and draw every look."""


def _cross(reach: int) -> tuple[tuple[int, int], ...]:
    return (-reach, 0), (reach, 0), (0, -reach), (0, reach)


OFFSETS = (
    _cross(1),
    _cross(1),
    _cross(2),
    _cross(4),
    ((0, -4), (0, 4), (0, -8), (0, 8)),
)
"""Where each head of each tower layer looks: patches down and right.

Four layers see a glyph of up to 8 x 8 patches; the last one fetches the character beside it."""
PLAIN = 0.1
"""Patches whose pixels deviate less than this show nothing; the whitening leaves them out."""
SHARPNESS = 64.0
"""Gain of the tower's queries and keys. Ample, as what stands in a patch grows up to forty times
as loud as its position by the last layer, and the layer norms then leave little of the latter."""
IMAGE_MEAN = IMAGE_STD = 0.5


def tower_config() -> CLIPVisionConfig:
    """A CLIP vision tower over 24 x 24 patches of 8 pixels."""
    return CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=384,
        num_hidden_layers=len(OFFSETS),
        num_attention_heads=len(OFFSETS[0]),
        image_size=CELLS * PATCH,
        patch_size=PATCH,
    )


def new_tower(pixels: torch.Tensor, *, seed: int) -> CLIPVisionModel:
    """A tower that starts as a stack of dilated convolutions over whitened patches.

    A tower of this size, trained from random weights for an hour, reads what a patch shows but
    hardly ever learns to look at the next one. Attention can express a convolution (Cordonnier
    et al., arXiv 1911.03584, one head for each offset), so it starts there: the last
    :data:`POSITION` units of a token hold its place as sines and cosines, queries are keys turned
    by the head's offset, and nothing writes to those units; see :func:`hold_looks`.

    Args:
        pixels: A sample of normalised images, (N, 3, side, side); decides the whitening.
        seed: Of all other weights.
    """
    torch.manual_seed(seed)
    tower = CLIPVisionModel(tower_config())
    content = HIDDEN - POSITION
    patches = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    drawn = patches[patches.unflatten(1, (3, -1)).std(-1).mean(-1) > PLAIN]
    mean, whitening = _whitening(drawn, floor=0.1)
    with torch.no_grad():
        weight = tower.embeddings.patch_embedding.weight.zero_()
        weight[:content] = whitening[:content].unflatten(1, (3, PATCH, PATCH))
        table = tower.embeddings.position_embedding.weight.zero_()
        table[1:, :content] = -(whitening[:content] @ mean).float()
        table[1:, content:] = LOUDNESS * sine_positions(CELLS, POSITION)
        for layer, offsets in zip(tower.encoder.layers, OFFSETS, strict=True):
            _look_at(layer.self_attn, offsets)
            layer.self_attn.v_proj.weight[:, content:] = 0
            for writes in (layer.self_attn.out_proj, layer.mlp.fc2):
                writes.weight[content:] = 0
    return tower


def hold_looks(tower: CLIPVisionModel) -> None:
    """Keep every head looking where it looks, whatever is trained.

    Queries, keys and what carries the positions take no gradient. In a tower trained without this,
    all heads but those of the first layer had lost their place in the end, and it had not learned
    to fetch the second character of a tag. Holding is not enough with dull queries: what stands in
    a patch grows so loud that its position is lost; see :data:`SHARPNESS`.

    Args:
        tower: From :func:`new_tower`; changed in place.
    """
    layers = tower.encoder.layers
    norms = [tower.pre_layrnorm, *(layer.layer_norm1 for layer in layers)]
    writers = [part for layer in layers for part in (layer.self_attn.out_proj, layer.mlp.fc2)]
    for layer in layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.requires_grad_(False)
    for part in (*norms, *writers):
        for parameter in part.parameters():
            parameter.register_hook(_without_positions)
    tower.embeddings.patch_embedding.weight.register_hook(_without_positions)
    tower.embeddings.position_embedding.weight.register_hook(lambda it: _without_positions(it.T).T)


def _without_positions(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of a parameter whose rows write units of a token, the last of them zeroed."""
    kept = torch.zeros_like(gradient)
    kept[: HIDDEN - POSITION] = gradient[: HIDDEN - POSITION]
    return kept


def _whitening(samples: torch.Tensor, *, floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and whitening matrix (D, D) of samples (N, D), strongest direction first.

    Args:
        samples: One row each.
        floor: Added to all variances, as a share of the mean one; keeps noise small.
    """
    mean = samples.double().mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(samples.double().T))
    gains = (variances + floor * variances.mean()).rsqrt()
    return mean, (gains[:, None] * directions.T).flip(0)


def _look_at(attention: CLIPAttention, offsets: Sequence[tuple[int, int]]) -> None:
    """Set queries and keys so that each head attends to the patch that lies at its offset."""
    width = HIDDEN // len(offsets)
    assert width == POSITION
    for head, offset in enumerate(offsets):
        rows = slice(head * width, (head + 1) * width)
        for projection, turn in ((attention.q_proj, offset), (attention.k_proj, (0, 0))):
            projection.weight[rows] = 0
            matrix = _turn(*turn)
            # Rows that add up to nothing do not see the layer norm subtract a mean.
            projection.weight[rows, HIDDEN - POSITION :] = SHARPNESS * (
                matrix - matrix.mean(1, keepdim=True)
            )
    attention.v_proj.weight.normal_(std=HIDDEN**-0.5)
    attention.out_proj.weight.normal_(std=0.5 * HIDDEN**-0.5)


def _frequencies(count: int) -> torch.Tensor:
    """Radians per cell: the shortest wave is 2 cells long, two more double it."""
    return math.pi * 2.0 ** (-torch.arange(count, dtype=torch.float64) / 2)


def sine_positions(side: int, width: int) -> torch.Tensor:
    """Two-dimensional sine-cosine positions (as in MAE, He et al. 2022, but with short waves).

    Args:
        side: Positions along one side.
        width: Length of one position's vector, a multiple of 4.

    Returns:
        Tensor of shape (side * side, width), positions in raster order; sines and cosines of
        the row, then of the column.
    """
    angles = torch.arange(side, dtype=torch.float64)[:, None] * _frequencies(width // 4)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows = line[:, None].expand(side, side, -1)
    cols = line[None, :].expand(side, side, -1)
    return torch.cat([rows, cols], dim=-1).reshape(side * side, width).float()


def _turn(down: int, right: int) -> torch.Tensor:
    """The matrix (POSITION, POSITION) that turns a place's vector into that of an offset place."""
    blocks = []
    for offset in (down, right):
        angles = offset * _frequencies(POSITION // 4)
        sine, cosine = torch.diag(angles.sin()), torch.diag(angles.cos())
        blocks.append(torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)]))
    return torch.block_diag(*blocks).float()


def new_model(
    tower: CLIPVisionModel, *, vocabulary: int, ids: dict[str, int], seed: int
) -> LlavaForConditionalGeneration:
    """Join a tower with a new projector and a new small Llama."""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=HIDDEN,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            initializer_range=0.06,  # the usual 0.02 suits widths near 1000
            # A slow rotation: what stands 600 tokens back is still found by its content.
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            bos_token_id=ids["bos"],
            eos_token_id=ids["eos"],
            pad_token_id=ids["pad"],
            tie_word_embeddings=True,
        ),
        image_token_index=ids["image"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=CELLS * CELLS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    return model


@torch.no_grad()
def whiten_projector(
    model: LlavaForConditionalGeneration, tokens: torch.Tensor, *, seed: int
) -> None:
    """Start the projector's first layer as a whitening of the tower's tokens.

    Most of the variance of a tower's tokens lies in a few directions that tell little (is
    anything drawn here at all?); what is printed where lies in weak ones. With a random first
    layer the language model does not find them in any reasonable time.

    Args:
        model: Its projector's first layer is replaced.
        tokens: A sample of tower tokens, (N, Dv).
        seed: Of the rotation that follows the whitening, so that every unit of the layer sees
            every direction.
    """
    first = model.model.multi_modal_projector.linear_1
    mean, whitening = _whitening(tokens, floor=0.02)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(len(first.weight), len(mean), generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(random)
    weight = rotation @ whitening
    first.weight.copy_(weight)
    first.bias.copy_(-weight @ mean)
