"""The query transformer of MQT-LLaVA: 256 latent queries read an image's patches once.

Source: ``Resampler`` in the authors' ``llava/model/multimodal_projector/builder.py``
(gordonhu608/MQT-LLaVA at 92c35d0); parameter names and shapes are theirs.

Neither queries nor keys depend on the image (the keys are the normalised table of positions and
nothing else), so the attention weights are constants of the checkpoint and each output depends on
its own query alone. The authors' layer recomputes queries, keys and weights at every call, and
runs again for every number of tokens; this one keeps the weights and gives all outputs at once,
of which the first m are what the authors' layer gives for m.

Notation for shapes: ``Q`` queries (256), ``W`` width of the tower (1024), ``H`` heads (16), ``P``
patches of an image (24 * 24), ``D`` width of the language model (4096), ``B`` images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from m3router.data.errors import MismatchError
from m3router.m3core.cost.operations import Connector

QUERIES = 256
HEADS = 16
NORM_EPS = 1e-6


def sine_cosine_table(side: int, width: int) -> torch.Tensor:
    """Positions of a square grid in sines and cosines, as in MAE's ``util/pos_embed.py``.

    The first half of a row encodes the column, the second half the row of the grid ("here w goes
    first"); each half holds sines, then cosines, at frequencies 10000^(-i / (width / 4)).

    Args:
        side: Cells along one side.
        width: Numbers for each cell, a multiple of 4.

    Returns:
        (side * side, width), float32, cells in raster order.
    """
    if width % 4:
        raise MismatchError(f"a table of positions needs a width divisible by 4, got {width}")
    quarter = width // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float32) / quarter)
    angles = torch.arange(side, dtype=torch.float32)[:, None] * frequencies
    along = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    return torch.cat([along.repeat(side, 1), along.repeat_interleave(side, 0)], dim=1)


def resize_table(table: torch.Tensor, side: int) -> torch.Tensor:
    """Resize a table of positions to another grid, bicubically, as ``get_abs_pos`` does.

    Args:
        table: (S * S, W).
        side: Cells along one side of the wanted grid.

    Returns:
        (side * side, W), of the table's own dtype; the arithmetic is in float32, or better.
    """
    old = math.isqrt(table.shape[0])
    exact = table if table.dtype == torch.float64 else table.float()
    grid = exact.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


class QueryAbstractor(nn.Module):
    """One cross-attention from latent queries to patches, then a projection.

    The layer has no residual connection, no feed-forward block and no norm behind the attention.

    Args:
        side: Patches along one side of the tower's grid.
        width: Width of the tower, W.
        output: Width of the language model, D.
        queries: Latent queries, Q; a square.
        heads: Attention heads, H.
    """

    def __init__(
        self,
        *,
        side: int = 24,
        width: int = 1024,
        output: int = 4096,
        queries: int = QUERIES,
        heads: int = HEADS,
    ) -> None:
        super().__init__()
        self.side = side
        # Published in half precision, so the values are those that it can hold.
        table = sine_cosine_table(math.isqrt(queries), width).half().float()
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(queries, width), std=0.02))
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_q = nn.LayerNorm(width, eps=NORM_EPS)
        self.ln_k = nn.LayerNorm(width, eps=NORM_EPS)
        self.ln_v = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Parameter(torch.randn(width, output) * output**-0.5)
        self._constants: torch.Tensor | None = None
        self._made_of: tuple[object, ...] = ()

    @property
    def queries(self) -> int:
        """Latent queries, the largest number of visual tokens."""
        return self.query.shape[0]

    def check(self, tokens: int) -> int:
        """Return ``tokens`` if the layer can give so many; never silently another number.

        Raises:
            MismatchError: If it cannot.
        """
        if not 1 <= tokens <= self.queries:
            raise MismatchError(
                f"{tokens} visual tokens are not available: this model gives any number from 1 to "
                f"{self.queries}, the first so many of its {self.queries} queries"
            )
        return tokens

    def attention(self) -> torch.Tensor:
        """Weights of every head's queries over the patches, (H, Q, P); rows add up to 1.

        Computed when first needed and kept until a parameter changes, moves or is loaded. Nothing
        is kept while gradients flow to the parameters. NOTE: computed in float32, or better, and
        rounded once, where the authors' layer rounds at each step in half precision.
        """
        parts = (self.query, self.pos_embed, *self.ln_q.parameters(), *self.ln_k.parameters())
        parts += (self.attn.in_proj_weight, self.attn.in_proj_bias)
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            return self._attention()
        made_of = tuple(mark for part in parts for mark in _state(part))
        if self._constants is None or made_of != self._made_of:
            # A tensor born in inference mode could never take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                self._constants = self._attention()
            self._made_of = made_of
        return self._constants

    def _attention(self) -> torch.Tensor:
        dtype = self.query.dtype
        exact = torch.promote_types(dtype, torch.float32)

        def heads_of(rows: torch.Tensor, norm: nn.LayerNorm, part: int) -> torch.Tensor:
            weight = self.attn.in_proj_weight.chunk(3)[part].to(exact)
            bias = self.attn.in_proj_bias.chunk(3)[part].to(exact)
            scale, shift = norm.weight.to(exact), norm.bias.to(exact)
            rows = F.layer_norm(rows.to(exact), norm.normalized_shape, scale, shift, norm.eps)
            mapped = F.linear(rows, weight, bias)
            return mapped.unflatten(-1, (self.attn.num_heads, -1)).transpose(0, 1)

        queries = heads_of(self.query + self.pos_embed, self.ln_q, 0)  # (H, Q, W / H)
        keys = heads_of(resize_table(self.pos_embed, self.side), self.ln_k, 1)  # (H, P, W / H)
        scores = queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[-1])
        return scores.softmax(-1).to(dtype)

    def forward(self, patches: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        """The first visual tokens of images.

        Args:
            patches: Tower tokens, (B, P, W).
            tokens: Visual tokens wanted, m; None takes all.

        Returns:
            (B, m, D). The first tokens are the same for every m.

        Raises:
            MismatchError: If there are not so many queries, or the patches form another grid.
        """
        count = self.check(self.queries if tokens is None else tokens)
        if patches.shape[-2] != self.side**2:
            raise MismatchError(
                f"the query abstractor reads {self.side} x {self.side} patches, "
                f"got {patches.shape[-2]} of them"
            )
        weight, bias = self.attn.in_proj_weight.chunk(3)[2], self.attn.in_proj_bias.chunk(3)[2]
        values = F.linear(self.ln_v(patches), weight, bias)  # (B, P, W)
        values = values.unflatten(-1, (self.attn.num_heads, -1)).transpose(1, 2)  # (B, H, P, W/H)
        mixed = self.attention()[:, :count] @ values  # (B, H, m, W / H)
        return self.attn.out_proj(mixed.transpose(1, 2).flatten(2)) @ self.proj

    def cost(self) -> Connector:
        """For all tokens of one image, the constant attention weights not counted again."""
        patches, width, output = self.side**2, *self.proj.shape
        flops = 2.0 * width * (patches * width + self.queries * (patches + width + output))
        return Connector(flops=flops, weights=sum(part.numel() for part in self.parameters()))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        self._constants = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._constants = None
        super()._load_from_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> QueryAbstractor:
        """Change the mode, and forget the kept weights, as a trainer may be about."""
        self._constants = None
        super().train(mode)
        return self


def _state(parameter: torch.Tensor) -> tuple[object, ...]:
    """What changes whenever a parameter's values do; writes through ``.data`` are not seen."""
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.dtype, parameter.device
