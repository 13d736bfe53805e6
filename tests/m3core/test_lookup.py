"""Where the embedded model's language model looks when its training starts."""

from __future__ import annotations

import pytest
import torch

from experiments.embedded_model.architecture import new_model, new_tower
from experiments.embedded_model.curriculum import scene_pixels
from experiments.embedded_model.lookup_initialization import (
    LOOKS_AT_PICTURE,
    SEPARATION,
    TEXT,
    start_as_lookup,
)
from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from m3router.m3core.matryoshka.models.parts import project

IMAGE = slice(1, 145)  # behind the beginning-of-sequence token


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    tower = new_tower(scene_pixels(range(20)), seed=0)
    model = new_model(tower, vocabulary=len(tokenizer), ids=ids, seed=0).eval()
    start_as_lookup(model, seed=0)
    model.set_attn_implementation("eager")
    return model


def attention(model, tokenizer, question: str, visual: torch.Tensor) -> list[torch.Tensor]:
    """Of the last token of a prompt, by layer, mean over heads: (positions,)."""
    embed = model.get_input_embeddings()
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    inputs = torch.cat([embed(torch.tensor([1])), visual, embed(torch.tensor(ids))])[None]
    output = model.model.language_model(inputs_embeds=inputs, output_attentions=True)
    return [one[0, :, -1].mean(0) for one in output.attentions]


@torch.no_grad()
def test_the_first_layer_reads_text(model, tokenizer):
    tokens = project(model, torch.randn(1, 144, 128, generator=torch.Generator().manual_seed(0)))
    layers = attention(model, tokenizer, "What number is on the red tag? answer:", tokens[0])
    assert float(layers[0][IMAGE].sum()) < 0.01


@torch.no_grad()
@pytest.mark.parametrize("index", range(4))
def test_marks_add_their_separation_to_the_logits_of_two_words(model, index):
    """Without positions, and of words as loud as the mean: what stands in front of a layer norm."""
    words = model.get_input_embeddings().weight
    words = words / words.square().mean(-1, keepdim=True).sqrt()
    words[:, TEXT] = words[:, TEXT].mean()
    bare = words.clone()
    bare[:, TEXT] = 0
    layer = model.model.language_model.layers[index].self_attn
    logits = [
        torch.einsum(
            "qhd,khd->hqk",
            *(part(x).unflatten(1, (-1, layer.head_dim)) for part in (layer.q_proj, layer.k_proj)),
        )
        / layer.head_dim**0.5
        for x in (words, bare)
    ]
    added = {0: SEPARATION, 1: -SEPARATION, 2: -SEPARATION}
    if index in added:
        difference = logits[0] - logits[1]
        # The rows that compare contents read the mark too, a little.
        assert float((difference - added[index]).abs().max()) < 0.1 * SEPARATION
    assert (index in LOOKS_AT_PICTURE) == (added.get(index, 0) < 0)


@torch.no_grad()
def test_nothing_writes_the_mark(model):
    decoder = model.model.language_model
    for layer in decoder.layers:
        assert not layer.self_attn.o_proj.weight[TEXT].any()
        assert not layer.mlp.down_proj.weight[TEXT].any()
        assert not layer.self_attn.v_proj.weight[:, TEXT].any()
    tokens = project(model, torch.randn(1, 9, 128))
    assert not tokens[..., TEXT].any()
