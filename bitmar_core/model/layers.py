"""Layers that several parts share.

Letters: B batch, T queries (tokens), S keys, D width, H heads, E width of one head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.model.bitlinear import BitLinear


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv 1910.07467, eq. 4). (..., D) -> (..., D), float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_tables(positions: Tensor, head_width: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (RoFormer, arXiv 2104.09864, eq. 15).

    Args:
        positions: (T,) integers.
        head_width: even.

    Returns:
        two tensors (T, head_width).
    """
    inverse = base ** (-torch.arange(0, head_width, 2, device=positions.device).float() / head_width)
    angles = positions.float()[:, None] * inverse[None]  # (T, E/2)
    return torch.cat([angles.cos(), angles.cos()], -1), torch.cat([angles.sin(), angles.sin()], -1)


def apply_rotary(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate (B, H, T, E) by tables (T, E)."""
    cos, sin = tables
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (arXiv 1706.03762, eq. 1), written out: for the short texts here its backward pass is several
    times faster on a CPU than the fused kernel's.

    Shapes: q (B, H, T, E), k and v (B, H, S, E), mask boolean broadcastable to (B, H, T, S) -> output (B, H, T, E), weights (B, H, T, S).
    """
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1)
    return weights.to(v.dtype) @ v, weights


def key_mask(mask: Tensor | None) -> Tensor | None:
    """(B, S) of 1/True for real keys -> boolean (B, 1, 1, S) for attention, or None."""
    return None if mask is None else mask.bool()[:, None, None, :]


class Attention(nn.Module):
    """Multi-head attention with BitLinear projections and a norm before the output projection (the sub-norm).

    Args:
        width: of queries and output.
        heads: must divide `width`.
        source_width: of keys and values; `width` where None.
        bias, threshold: see BitLinear.

    Shapes: x (B, T, width), source (B, S, source_width) -> (B, T, width).
    """

    def __init__(self, width: int, heads: int, *, source_width: int | None = None, bias: bool = False, threshold: float = 2 / 3) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        source_width = source_width or width
        self.heads, self.head_width = heads, width // heads
        self.query = BitLinear(width, width, bias=bias, threshold=threshold)
        self.key = BitLinear(source_width, width, bias=bias, threshold=threshold)
        self.value = BitLinear(source_width, width, bias=bias, threshold=threshold)
        self.sub_norm = RMSNorm(width)
        self.output = BitLinear(width, width, bias=bias, threshold=threshold)

    def _split(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return x.view(b, t, self.heads, self.head_width).transpose(1, 2)  # (B, H, T, E)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, E) of a source, to be used for many queries."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        keys_values: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend. `mask` is boolean, broadcastable to (B, H, T, S), True where a key may be seen."""
        return self._attend(x, source, mask=mask, rotary=rotary, keys_values=keys_values)[0]

    def with_weights(self, x: Tensor, source: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Like forward, and the attention weights averaged over heads (B, T, S)."""
        out, weights = self._attend(x, source, mask=mask, rotary=None, keys_values=None)
        return out, weights.mean(1)

    def _attend(
        self, x: Tensor, source: Tensor | None, *, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None, keys_values: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        b, t, _ = x.shape
        q = self._split(self.query(x))
        k, v = keys_values if keys_values is not None else self.keys_values(x if source is None else source)
        if rotary is not None:
            q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        out, table = attend(q, k, v, mask)
        out = out.transpose(1, 2).reshape(b, t, -1)  # (B, T, D)
        return self.output(self.sub_norm(out)), table


class GatedFeedForward(nn.Module):
    """Squared-ReLU gated feed-forward with a sub-norm (BitNet b1.58 2B4T, arXiv 2504.12285, section 2). (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int, *, threshold: float = 2 / 3) -> None:
        super().__init__()
        self.gate = BitLinear(width, hidden, threshold=threshold)
        self.up = BitLinear(width, hidden, threshold=threshold)
        self.sub_norm = RMSNorm(hidden)
        self.down = BitLinear(hidden, width, threshold=threshold)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.sub_norm(F.relu(self.gate(x)).square() * self.up(x)))


class GeluFeedForward(nn.Module):
    """GELU feed-forward as in BERT (arXiv 1810.04805), with a sub-norm: the form that a warm start takes over. (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int, *, bias: bool = True, threshold: float = 2 / 3) -> None:
        super().__init__()
        self.up = BitLinear(width, hidden, bias=bias, threshold=threshold)
        self.sub_norm = RMSNorm(hidden)
        self.down = BitLinear(hidden, width, bias=bias, threshold=threshold)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.sub_norm(F.gelu(self.up(x))))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of (..., T, D) over the tokens where mask (..., T) is 1 -> (..., D)."""
    weight = mask.to(x.dtype).unsqueeze(-1)
    return (x * weight).sum(-2) / weight.sum(-2).clamp_min(1e-8)
