"""Analytic cost of an answer: floating-point operations and memory, from a model's sizes.

A multiply and an add count as two operations. Norms, softmax and embeddings' look-ups are left
out (under 1 % of a 7B model). Memory is for one question at a time. Time is in
:mod:`m3router.m3core.cost.roofline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3router.data.errors import ModelError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by the name of its format."""

_QUANTISED_BYTES = {8: 1.0, 4: 0.5 + 4 / 64}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """In which numbers a model runs.

    Attributes:
        dtype: A key of :data:`BYTES`, of activations, cache, and all weights not quantised.
        bits: 8 or 4 where the matrices of the language model's layers are quantised by
            bitsandbytes; embeddings, output head, tower and projector never are (as in
            :class:`m3router.m3core.checkpoints.loading.Placement`).

    Raises:
        ModelError: For an unknown number format or other bits.
    """

    dtype: str = "float16"
    bits: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if self.dtype not in BYTES:
            raise ModelError(f"unknown dtype {self.dtype!r}; choose one of {', '.join(BYTES)}")
        if self.bits is not None and self.bits not in _QUANTISED_BYTES:
            raise ModelError(f"bits must be 8 or 4, got {self.bits}; leave it out for all bits")

    @property
    def bytes(self) -> int:
        """Bytes of a number that is not quantised."""
        return BYTES[self.dtype]

    @property
    def matrix_bytes(self) -> float:
        """Bytes of a weight in the matrices of the language model's layers.

        At 4 bits each 64 weights share a float32 constant: 4.5 bits a weight (Dettmers et al.,
        QLoRA, NeurIPS 2023, section 3). At 8 bits the one constant a row is left out (under
        0.1 %).
        """
        return float(self.bytes) if self.bits is None else _QUANTISED_BYTES[self.bits]


@dataclass(frozen=True)
class Memory:
    """Bytes that must fit on the device at once, for one question.

    Attributes:
        weights: Language model, tower and what connects them.
        cache: Keys and values of prompt and answer.
        activations: Peak of the language model's prefill (:meth:`ModelShape.activation_bytes`).
    """

    weights: float
    cache: float
    activations: float

    @property
    def total(self) -> float:
        """All of them. The device's own libraries take some hundred megabytes more."""
        return self.weights + self.cache + self.activations


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
        gated: Whether the layers are Llama's (three feed-forward matrices, no biases, RMS norms)
            or CLIP's (two, biases everywhere, layer norms).
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    gated: bool

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all key heads, and of all value heads, together."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of a layer's matrices: query, key, value, output, feed-forward."""
        inner = (self.hidden, self.intermediate)
        return (
            (self.hidden, self.query_width),
            (self.hidden, self.key_width),
            (self.hidden, self.key_width),
            (self.query_width, self.hidden),
            *((inner, inner) if self.gated else (inner,)),
            (self.intermediate, self.hidden),
        )

    @property
    def matrix_weights(self) -> int:
        """Weights in the matrices of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.matrices)

    @property
    def other_weights(self) -> int:
        """Weights in the norms and biases of all layers.

        NOTE: a Llama-like model with biases in its attention (Qwen2) has under 0.01 % more.
        """
        if self.gated:
            return self.layers * 2 * self.hidden
        return self.layers * (4 * self.hidden + sum(outputs for _, outputs in self.matrices))

    def cache_bytes(self, tokens: int, numbers: Numbers) -> float:
        """Keys and values of all layers; with grouped queries there are fewer heads of them."""
        return float(2 * self.layers * self.key_width * tokens * numbers.bytes)

    def flops(self, new: int, past: int = 0) -> float:
        """Operations for ``new`` tokens behind ``past`` cached ones.

        Attention is counted over the full (not the causal half of the) score matrix of the new
        tokens, as the kernels in use compute it.
        """
        attention = self.layers * 2 * self.query_width * (new + past)
        return float(2 * new * (self.matrix_weights + attention))


@dataclass(frozen=True, kw_only=True)
class Connector:
    """What stands between tower and language model.

    Attributes:
        flops: Operations, once per view.
        weights: Number of its weights.
    """

    flops: float
    weights: int


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a LLaVA-type model.

    Attributes:
        text: The language model.
        tower: The vision tower's layers that are really run.
        patches: Tokens in the tower, CLS included.
        patch_values: Numbers in one patch (3 * patch size squared).
        vocabulary: Rows of the output matrix.
        connector: Between tower and language model; None stands for LLaVA's projector, two
            matrices over all patches.
        tied: Whether the output matrix is the input embeddings.
    """

    text: StackShape
    tower: StackShape
    patches: int
    patch_values: int
    vocabulary: int
    connector: Connector | None = None
    tied: bool = False

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """Read the sizes from a Hugging Face ``LlavaConfig`` or ``LlavaNextConfig``."""
        tied = bool(config.tie_word_embeddings)
        return cls.of_parts(config.text_config, config.vision_config, tied=tied)

    @classmethod
    def of_parts(
        cls, text: Any, vision: Any, *, connector: Connector | None = None, tied: bool = False
    ) -> ModelShape:
        """Read the sizes from the configurations of language model and tower.

        Args:
            text: A Hugging Face ``LlamaConfig`` or its like.
            vision: A ``CLIPVisionConfig`` or its like.
            connector: See the class.
            tied: See the class.
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
            tied=tied,
        )

    def _projector(self) -> Connector:
        """LLaVA's two matrices with their biases, over all patches."""
        matrices = self.text.hidden * (self.tower.hidden + self.text.hidden)
        return Connector(
            flops=2.0 * (self.patches - 1) * matrices, weights=matrices + 2 * self.text.hidden
        )

    def vision_flops(self, views: int = 1) -> float:
        """Tower and connector, once per image, whatever the scale.

        Args:
            views: Images that the tower sees for the image: 1, or more with high-resolution
                crops.
        """
        embed = 2.0 * self.patches * self.patch_values * self.tower.hidden
        connect = self.connector or self._projector()
        return views * (embed + self.tower.flops(self.patches) + connect.flops)

    def answer_flops(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The language model's share of one answer: prefill, then one token at a time."""
        total = self.text.flops(prompt_tokens)
        for generated in range(1, answer_tokens):
            total += self.text.flops(1, prompt_tokens + generated - 1)
        return total + 2.0 * answer_tokens * self.text.hidden * self.vocabulary

    @property
    def vision_weights(self) -> int:
        """Weights of tower and connector (LLaVA-NeXT's one newline token is left out)."""
        width = self.tower.hidden
        embeddings = width * (self.patch_values + self.patches + 1)  # patches, positions, CLS
        norms = 4 * width  # before and behind the layers
        connect = self.connector or self._projector()
        layers = self.tower.matrix_weights + self.tower.other_weights
        return embeddings + norms + layers + connect.weights

    @property
    def language_weights(self) -> int:
        """Weights of the language model, embeddings and output matrix included."""
        rows = self.text.hidden * self.vocabulary * (1 if self.tied else 2)
        norm = self.text.hidden
        return self.text.matrix_weights + self.text.other_weights + norm + rows

    def weight_bytes(self, numbers: Numbers) -> float:
        """Bytes of all weights, the tower's included."""
        matrices = self.text.matrix_weights
        rest = self.vision_weights + self.language_weights - matrices
        return matrices * numbers.matrix_bytes + rest * numbers.bytes

    def activation_bytes(self, tokens: int, numbers: Numbers) -> float:
        """Peak of the language model's prefill without gradients, cache and weights left out.

        Assumes Llama's layer as transformers runs it, results freed when read for the last time,
        and fused attention that stores no scores (``sdpa``, the default). Alive at the peak are
        four streams (embeddings, layer's input, residual, normed), the table of positions, and
        either three results inside the feed-forward block, or queries, keys and values while the
        queries, then the keys, are rotated.
        """
        text = self.text
        rotating = max(
            3 * text.query_width + 2 * text.key_width, 2 * text.query_width + 4 * text.key_width
        )
        alive = 4 * text.hidden + 2 * text.head_dim + max(3 * text.intermediate, rotating)
        return float(tokens * alive * numbers.bytes)

    def memory(
        self, prompt_tokens: int, answer_tokens: int = 1, *, numbers: Numbers | None = None
    ) -> Memory:
        """Memory at its peak for one answer; the last token's keys are never stored."""
        numbers = numbers or Numbers()
        return Memory(
            weights=self.weight_bytes(numbers),
            cache=self.text.cache_bytes(prompt_tokens + answer_tokens - 1, numbers),
            activations=self.activation_bytes(prompt_tokens, numbers),
        )
