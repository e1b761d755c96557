"""Which robot: every card reads the task, then a policy state scores the cards.

Letters: B batch, R robots, L card tokens, T text tokens, D width, K width of the policy state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.layers import Attention, GatedFeedForward, RMSNorm, key_mask, masked_mean


class CardLayer(nn.Module):
    """Card tokens read the fused text: (N, L, D) with text (N, T, D)."""

    def __init__(self, width: int, heads: int, threshold: float) -> None:
        super().__init__()
        self.cross_norm = RMSNorm(width)
        self.cross_attention = Attention(width, heads, threshold=threshold)
        self.self_norm = RMSNorm(width)
        self.self_attention = Attention(width, heads, threshold=threshold)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = GatedFeedForward(width, width, threshold=threshold)

    def forward(self, cards: Tensor, card_mask: Tensor, text: tuple[Tensor, Tensor], text_mask: Tensor | None) -> Tensor:
        cards = cards + self.cross_attention(self.cross_norm(cards), keys_values=text, mask=text_mask)
        cards = cards + self.self_attention(self.self_norm(cards), mask=card_mask)
        return cards + self.feed_forward(self.feed_forward_norm(cards))


class CardReader(nn.Module):
    """Reads the task against each card, so that a limitation can meet the fact that it concerns.

    Shapes: cards (R, L, D), card_mask (R, L), text (B, T, D), text_mask (B, T) -> card states (B, R, D).
    """

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        width = config.text.width
        self.text_norm = RMSNorm(width)
        self.layers = nn.ModuleList(CardLayer(width, config.reasoning.heads, config.text.threshold) for _ in range(config.reasoning.card_layers))
        self.output_norm = RMSNorm(width)
        self.dropout = nn.Dropout(config.reasoning.dropout)

    def forward(self, cards: Tensor, card_mask: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        b, (r, length, d) = len(text), cards.shape
        state = cards.unsqueeze(0).expand(b, r, length, d).reshape(b * r, length, d)  # (B·R, L, D)
        mask = card_mask.unsqueeze(0).expand(b, r, length).reshape(b * r, length)
        text_keys = None if text_mask is None else key_mask(text_mask.repeat_interleave(r, 0))
        text = self.text_norm(text)
        for layer in self.layers:
            keys, values = layer.cross_attention.keys_values(text)
            state = layer(state, key_mask(mask), (keys.repeat_interleave(r, 0), values.repeat_interleave(r, 0)), text_keys)
        return self.dropout(self.output_norm(masked_mean(state, mask))).view(b, r, d)


class ScoreHead(nn.Module):
    """width → hidden → state (→ outputs): the shape of both policy and value network. (..., D) -> (..., outputs or K)."""

    def __init__(self, config: BitMarConfig, outputs: int | None = None) -> None:
        super().__init__()
        width, hidden, state, threshold = config.text.width, config.policy.hidden, config.policy.state, config.text.threshold
        self.first = BitLinear(width, hidden, threshold=threshold)
        self.first_norm = RMSNorm(hidden)
        self.second = BitLinear(hidden, state, threshold=threshold)
        self.last = None if outputs is None else nn.Linear(state, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.second(self.first_norm(F.gelu(self.first(x))))
        return state if self.last is None else self.last(F.gelu(state))


class RobotPolicy(nn.Module):
    """Scores any fleet: the policy state (K) against a key (K) made from each card's state.

    Shapes: state of a step (..., D), card states (B, R, D) -> logits (..., R).
    """

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        self.trunk = ScoreHead(config)
        self.card_key = BitLinear(config.text.width, config.policy.state, threshold=config.text.threshold)
        self.suited = ScoreHead(config, outputs=1)
        self.gain = nn.Parameter(torch.tensor(1.0))
        # How much the plain likeness of task and card counts: what a sentence encoder alone would choose by.
        self.likeness_gain = nn.Parameter(torch.tensor(5.0))

    def state(self, h: Tensor) -> Tensor:
        """(..., D) -> policy state (..., K)."""
        return self.trunk(h)

    def keys(self, cards: Tensor) -> Tensor:
        """Card states (B, R, D) -> card keys (B, R, K)."""
        return self.card_key(cards)

    def score(self, state: Tensor, keys: Tensor) -> Tensor:
        """Policy states (B, S, K) against keys (B, R, K) -> logits (B, S, R)."""
        return self.gain * (state @ keys.transpose(-1, -2)) * keys.shape[-1] ** -0.5

    def suitability(self, cards: Tensor, likeness: Tensor) -> Tensor:
        """Card states (B, R, D) and cosine of task and card (B, R) -> logit of "would do as well as any" (B, R)."""
        return self.suited(cards).squeeze(-1) + self.likeness_gain * likeness
