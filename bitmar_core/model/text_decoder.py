"""Text decoder: BitNet transformer, causal, with a key/value cache, a sliding window and attention sinks.

It reads the request through cross-attention over a memory of states (robots, task, photo, remembered case), and each
token also receives the state of the reasoning step that it belongs to.

Letters: B batch, T tokens, S memory states, D width, H heads, E head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.layers import Attention, GatedFeedForward, RMSNorm, apply_rotary, attend, key_mask, rotary_tables


@dataclass
class DecoderCache:
    """What incremental decoding keeps: per layer, rotated keys and values of seen tokens and of the memory."""

    length: int = 0
    """Tokens seen so far."""
    keys: list[Tensor] = field(default_factory=list)
    """per layer (B, H, kept, E)"""
    values: list[Tensor] = field(default_factory=list)
    positions: Tensor | None = None
    """(kept,) absolute positions of what is kept"""
    memory: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """per layer, keys and values (B, H, S, E) of the memory"""


class DecoderBlock(nn.Module):
    """x + SelfAttn, x + CrossAttn, x + FFN, each after a norm. (B, T, D) -> (B, T, D)."""

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        d, heads, threshold = config.text.width, config.decoder.heads, config.text.threshold
        self.self_norm = RMSNorm(d)
        self.query = BitLinear(d, d, threshold=threshold)
        self.key = BitLinear(d, d, threshold=threshold)
        self.value = BitLinear(d, d, threshold=threshold)
        self.sub_norm = RMSNorm(d)
        self.output = BitLinear(d, d, threshold=threshold)
        self.cross_norm = RMSNorm(d)
        self.cross = Attention(d, heads, threshold=threshold)
        self.feed_forward_norm = RMSNorm(d)
        self.feed_forward = GatedFeedForward(d, config.decoder.hidden, threshold=threshold)
        self.dropout = nn.Dropout(config.decoder.dropout)
        self.heads, self.head_width = heads, d // heads

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values (B, H, T, E) of normed inputs."""
        return apply_rotary(self._split(self.query(x)), rotary), apply_rotary(self._split(self.key(x)), rotary), self._split(self.value(x))

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.project(self.self_norm(x), rotary)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        out = attend(q, k, v, mask)[0].transpose(1, 2).reshape(x.shape)
        x = x + self.dropout(self.output(self.sub_norm(out)))
        x = x + self.dropout(self.cross(self.cross_norm(x), keys_values=memory, mask=memory_mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), k, v


class TextDecoder(nn.Module):
    """Next-token logits; input and output embeddings are tied."""

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        self.config = config.decoder
        d = config.text.width
        self.head_width = d // config.decoder.heads
        self.embedding = nn.Embedding(config.decoder.vocab_size, d)
        self.step_projection = BitLinear(d, d, threshold=config.text.threshold)
        self.memory_norm = RMSNorm(d)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder.layers))
        self.final_norm = RMSNorm(d)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)

    def allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Causal sliding window with sinks: positions (T,), (S,) -> boolean (T, S)."""
        distance = queries[:, None] - keys[None]
        return (distance >= 0) & ((distance < self.config.window) | (keys[None] < self.config.sinks))

    def start(self, memory: Tensor) -> DecoderCache:
        """A fresh cache for memory states (B, S, D)."""
        memory = self.memory_norm(memory)
        return DecoderCache(memory=[block.cross.keys_values(memory) for block in self.blocks])

    def embed(self, ids: Tensor, steps: Tensor) -> Tensor:
        """Token ids (B, T) and the step states of their sections (B, T, D) -> (B, T, D)."""
        return self.embedding(ids) * self.embedding.weight.shape[1] ** 0.5 + self.step_projection(steps)

    def forward(self, ids: Tensor, steps: Tensor, cache: DecoderCache, memory_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode tokens that follow those in `cache`, which is advanced in place.

        Args:
            ids: (B, T).
            steps: (B, T, D), the reasoning state of each token's section.
            cache: from `start`.
            memory_mask: (B, S), 1 for real memory states.

        Returns:
            logits (B, T, V) and final states (B, T, D).
        """
        t = ids.shape[1]
        positions = torch.arange(cache.length, cache.length + t, device=ids.device)
        x = self.embed(ids, steps)
        rotary = rotary_tables(positions, self.head_width)
        kept = positions if cache.positions is None else torch.cat([cache.positions, positions])
        mask = self.allowed(positions, kept)
        seen = key_mask(memory_mask)
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            past = (cache.keys[index], cache.values[index]) if cache.keys else None
            x, k, v = block(x, rotary, mask, cache.memory[index], seen, past)
            keys.append(k)
            values.append(v)
        cache.length += t
        # The next token sits at cache.length: what it cannot see, no later one can.
        stays = (cache.length - kept < self.config.window) | (kept < self.config.sinks)
        if bool(stays.all()):
            cache.keys, cache.values, cache.positions = keys, values, kept
        else:
            cache.keys, cache.values, cache.positions = [k[:, :, stays] for k in keys], [v[:, :, stays] for v in values], kept[stays]
        states = self.final_norm(x)
        return F.linear(states, self.embedding.weight), states
