"""The embedded model's architecture: a stock Hugging Face LLaVA at small size."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from data.scenes.drawing import PATCH
from data.scenes.world import CELLS

HIDDEN = 128
QUERY_GAIN = 1.6
IMAGE_MEAN = IMAGE_STD = 0.5


def tower_config() -> CLIPVisionConfig:
    """A CLIP vision tower over 24 x 24 patches of 8 pixels."""
    return CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CELLS * PATCH,
        patch_size=PATCH,
    )


def new_tower(*, seed: int) -> CLIPVisionModel:
    """A tower with random weights whose position table starts as 2-D sines and cosines."""
    torch.manual_seed(seed)
    tower = CLIPVisionModel(tower_config())
    with torch.no_grad():
        table = tower.embeddings.position_embedding.weight
        table[1:] = 0.5 * sine_positions(CELLS, HIDDEN)
    return tower


def sine_positions(side: int, width: int) -> torch.Tensor:
    """Two-dimensional sine-cosine positions (MAE, He et al. 2022, ``util/pos_embed.py``).

    Args:
        side: Positions along one side.
        width: Length of one position's vector, a multiple of 4.

    Returns:
        Tensor of shape (side * side, width), rows in raster order.
    """
    steps = torch.arange(width // 4, dtype=torch.float64)
    angles = torch.arange(side, dtype=torch.float64)[:, None] / 100.0 ** (steps / (width // 4))
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows = line[:, None].expand(side, side, -1)
    cols = line[None, :].expand(side, side, -1)
    return torch.cat([rows, cols], dim=-1).reshape(side * side, width).float()


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
    _mimic_trained_attention(model)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    return model


@torch.no_grad()
def _mimic_trained_attention(model: LlavaForConditionalGeneration) -> None:
    """Start every head as a look-up by content that copies what it finds.

    Mimetic initialisation (Trockman and Kolter, arXiv 2305.09828): queries and keys share their
    matrix, so that a token attends to those like itself; the output matrix is the transpose of
    the value matrix, so that it copies them. NOTE: the paper gives values a negative sign, for
    vision; copying wants a positive one.
    """
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        attention.q_proj.weight.mul_(QUERY_GAIN)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


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
    mean = tokens.double().mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(tokens.double().T))
    gains = (variances + 0.02 * variances.mean()).rsqrt()
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(len(first.weight), len(mean), generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(random)
    weight = rotation @ (gains[:, None] * directions.T)
    first.weight.copy_(weight)
    first.bias.copy_(-weight @ mean)
