"""Third stage of the embedded model: the language model starts as a look-up by content.

To answer "What number is on the red tag?" a decoder must gather the question's words where the
answer begins, find the patches that have most of these words and copy their other words. A model
whose heads looked up by content anywhere answered 0.55 at 576 tokens after 1 500 steps. So the
first layer's text looks at text, that of the next two rather at the image. All weights that are
set here are trained afterwards, none is held.

One unit of the residual stream tells text from images: :data:`TEXT` is the same for all tokens of
the vocabulary, zero for all visual tokens, and at first written by no layer.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaAttention

TEXT = 0
"""The unit that marks text."""
MARK = 2.0
"""Its value in units of an embedding's root mean square."""
SEPARATION = 23.0
"""Logit between the marks of two tokens of text, added in the first layer, where it decides alone,
subtracted in those of :data:`LOOKS_AT_PICTURE`. There layer norms have left little of the mark: at
the start 0.16, 0.33 and 0.53 of the attention of a prompt's last token are on 36, 144 and 576
visual tokens, in the last layer, which does not compare marks, 0.06, 0.18 and 0.41."""
SHARPNESS = 1.16
"""Gain of the queries and keys that compare words."""
COPY = 0.68
"""Gain of the values and of what writes them: a head that looks at one token adds half of it."""
GATHERED = 2.0
"""How much more of what it sees the first layer adds."""
LOOKS_AT_PICTURE = (1, 2)
"""Layers whose text turns from text to the image."""


@torch.no_grad()
def start_as_lookup(model: LlavaForConditionalGeneration, *, seed: int) -> None:
    """Set the language model's attention, and mark text in embeddings and projector.

    Queries and keys share a matrix, and the output matrix is the transpose of the value matrix, so
    that a token attends to those like itself and copies them (mimetic initialisation, Trockman
    and Kolter, arXiv 2305.09828; they give values a negative sign, for vision, and copying wants a
    positive one). The matrices are orthogonal, so that all heads together see and copy all of a
    token.

    Args:
        model: Its projector and embeddings are aligned; changed in place.
        seed: Of the orthogonal matrices.
    """
    torch.manual_seed(seed)
    words = model.get_input_embeddings().weight
    words[:, TEXT] = 0
    words[:, TEXT] = MARK * words.square().mean().sqrt()
    connector = model.model.multi_modal_projector.linear_2
    connector.weight[TEXT] = 0
    connector.bias[TEXT] = 0
    # What the layer norm in front of the first layer leaves of the mark.
    mark = (words / words.square().mean(-1, keepdim=True).sqrt())[:, TEXT].mean()
    for index, layer in enumerate(model.model.language_model.layers):
        attention = layer.self_attn
        keys = attention.k_proj.weight
        nn.init.orthogonal_(keys, SHARPNESS)
        attention.q_proj.weight.copy_(keys)
        nn.init.orthogonal_(attention.v_proj.weight, COPY * (GATHERED**0.5 if index == 0 else 1))
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        if index == 0 or index in LOOKS_AT_PICTURE:
            _compare_marks(attention, mark, sign=1 if index == 0 else -1)
        attention.v_proj.weight[:, TEXT] = 0
        for writes in (attention.o_proj, layer.mlp.down_proj):
            writes.weight[TEXT] = 0


def _compare_marks(attention: LlamaAttention, mark: torch.Tensor, *, sign: int) -> None:
    """Give each head's slowest pair of rotary units to the marks of query and key."""
    width = attention.head_dim
    gain = (SEPARATION * width**0.5) ** 0.5 / mark
    for start in range(0, len(attention.q_proj.weight), width):
        slowest = start + width // 2 - 1
        for projection, value in ((attention.q_proj, gain), (attention.k_proj, sign * gain)):
            projection.weight[[slowest, start + width - 1]] = 0
            projection.weight[slowest, TEXT] = value
