"""Text encoder: BitNet transformer, bidirectional.

Two layouts. `bitnet`: pre-norm, rotary positions, squared-ReLU gated feed-forward, no bias. `bert`: post-norm, learned
positions, GELU, biases, the layout of MiniLM, so that its weights can be taken over before they are taught to be
ternary (BitNet Distillation, arXiv 2510.13998); sub-norms are added in both.

Letters: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitmar_core.config import TextConfig
from bitmar_core.model.layers import Attention, GatedFeedForward, GeluFeedForward, RMSNorm, key_mask, rotary_tables


class BitNetBlock(nn.Module):
    """Pre-norm block: x + Attn(Norm x), then x + FFN(Norm x). (B, T, D) -> (B, T, D)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, threshold=config.threshold)
        self.feed_forward_norm = RMSNorm(config.width)
        self.feed_forward = GatedFeedForward(config.width, config.hidden, threshold=config.threshold)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask, rotary=rotary)
        return x + self.feed_forward(self.feed_forward_norm(x))


class BertBlock(nn.Module):
    """Post-norm block as in BERT, with sub-norms. (B, T, D) -> (B, T, D)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, bias=True, threshold=config.threshold)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.feed_forward = GeluFeedForward(config.width, config.hidden, threshold=config.threshold)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask=mask))
        return self.feed_forward_norm(x + self.feed_forward(x))


class TextEncoder(nn.Module):
    """Token ids -> contextual states.

    Shapes: input_ids (B, T) long, attention_mask (B, T) -> (B, T, D) float32.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        bert = config.layout == "bert"
        self.positions = nn.Embedding(config.max_tokens, config.width) if bert else None
        self.embedding_norm = nn.LayerNorm(config.width, eps=1e-12) if bert else nn.Identity()
        block = BertBlock if bert else BitNetBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.final_norm = nn.Identity() if bert else RMSNorm(config.width)
        nn.init.normal_(self.embedding.weight, std=0.02 if bert else 1.0)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, *, all_states: bool = False) -> Tensor | list[Tensor]:
        """Encode.

        Raises:
            ValueError: more tokens than `max_tokens`.
        """
        t = input_ids.shape[1]
        if t > self.config.max_tokens:
            raise ValueError(f"{t} tokens are more than the {self.config.max_tokens} that this model reads")
        positions = torch.arange(t, device=input_ids.device)
        x = self.embedding(input_ids)
        rotary = None
        if self.positions is not None:
            x = self.embedding_norm(x + self.positions(positions))
        else:
            rotary = rotary_tables(positions, self.config.width // self.config.heads)
        mask = key_mask(attention_mask)
        states = []
        for block in self.blocks:
            x = block(x, mask, rotary)
            states.append(x)
        x = self.final_norm(x)
        return states if all_states else x
