"""Analytic cost of an answer: floating-point operations of the tower and of the language model.

A multiply and an add count as two operations. Norms, softmax and embeddings' look-ups are left
out (under 1 % of a 7B model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StackShape:
    """Sizes of a stack of transformer layers.

    Attributes:
        layers: Number of layers.
        hidden: Width.
        intermediate: Width inside the feed-forward block.
        heads: Query heads.
        kv_heads: Key-value heads.
        head_dim: Width of a head.
        gated: Whether the feed-forward block has three matrices (Llama) or two (CLIP).
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool

    def flops(self, new: int, past: int = 0) -> float:
        """Operations for ``new`` tokens behind ``past`` cached ones.

        Attention is counted over the full (not the causal half of the) score matrix of the new
        tokens, as the kernels in use compute it.
        """
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        matrices = self.hidden * (2 * queries + 2 * keys)
        matrices += self.hidden * self.intermediate * (3 if self.gated else 2)
        attention = 2 * queries * (new + past)
        return float(2 * self.layers * new * (matrices + attention))


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a LLaVA-type model.

    Attributes:
        text: The language model.
        tower: The vision tower's layers that are really run.
        patches: Tokens in the tower, CLS included.
        patch_values: Numbers in one patch (3 * patch size squared).
        vocabulary: Rows of the output matrix.
        connector: Operations between tower and language model, once per image; None stands for
            LLaVA's projector, two matrices over all patches.
    """

    text: StackShape
    tower: StackShape
    patches: int
    patch_values: int
    vocabulary: int
    connector: float | None = None

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """Read the sizes from a Hugging Face ``LlavaConfig`` or ``LlavaNextConfig``."""
        return cls.of_parts(config.text_config, config.vision_config)

    @classmethod
    def of_parts(cls, text: Any, vision: Any, *, connector: float | None = None) -> ModelShape:
        """Read the sizes from the configurations of language model and tower.

        Args:
            text: A Hugging Face ``LlamaConfig`` or its like.
            vision: A ``CLIPVisionConfig`` or its like.
            connector: See the class.
        """
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            text=StackShape(
                layers=text.num_hidden_layers,
                hidden=text.hidden_size,
                intermediate=text.intermediate_size,
                heads=text.num_attention_heads,
                kv_heads=text.num_key_value_heads,
                head_dim=head_dim,
                gated=True,
            ),
            tower=StackShape(
                layers=vision.num_hidden_layers,
                hidden=vision.hidden_size,
                intermediate=vision.intermediate_size,
                heads=vision.num_attention_heads,
                kv_heads=vision.num_attention_heads,
                head_dim=vision.hidden_size // vision.num_attention_heads,
                gated=False,
            ),
            patches=(vision.image_size // vision.patch_size) ** 2 + 1,
            patch_values=3 * vision.patch_size**2,
            vocabulary=text.vocab_size,
            connector=connector,
        )

    def vision_flops(self, views: int = 1) -> float:
        """Tower and connector, once per image, whatever the scale.

        Args:
            views: Pictures that the tower sees for the image: 1, or more with high-resolution
                crops.
        """
        embed = 2.0 * self.patches * self.patch_values * self.tower.hidden
        connect = self.connector
        if connect is None:
            both = self.tower.hidden + self.text.hidden
            connect = 2.0 * (self.patches - 1) * self.text.hidden * both
        return views * (embed + self.tower.flops(self.patches) + connect)

    def answer_flops(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The language model's share of one answer: prefill, then one token at a time."""
        total = self.text.flops(prompt_tokens)
        for generated in range(1, answer_tokens):
            total += self.text.flops(1, prompt_tokens + generated - 1)
        return total + 2.0 * answer_tokens * self.text.hidden * self.vocabulary
