"""The maths of the episodic memory: keys, values, and a read that is gated by a learned sense of scope.

A sentence vector cannot tell a rewording from a neighbouring task, so a read has two stages: keys find the nearest
slots, then a scope score reads both texts token by token and says whether the remembered case is this case.

Letters: B batch, K candidate slots, T text tokens, L slot tokens, D width, E memory width, R robots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.layers import Attention, RMSNorm, key_mask, masked_mean


@dataclass
class Candidates:
    """The slots that a request looks at, per sample."""

    keys: Tensor
    """(B, K, E), unit length"""
    values: Tensor
    """(B, K, E)"""
    tokens: Tensor
    """(B, K, L, D): encoder states of each slot's story"""
    token_mask: Tensor
    """(B, K, L)"""
    robots: Tensor
    """(B, K, R) one-hot of the slot's robot in the present fleet; all zero where it is not in it"""
    present: Tensor
    """(B, K) bool: false for padding"""


@dataclass
class MemoryReading:
    """What was read."""

    context: Tensor
    """(B, E)"""
    weights: Tensor
    """(B, K): attention times scope, the share of the answer that each slot decides; sums to at most 1"""
    similarity: Tensor
    """(B, K): cosine of the keys"""
    scope: Tensor
    """(B, K): logit of "this is the remembered case" """


class EpisodicMemory(nn.Module):
    """Projections to keys and values, and the gated read. The contents live outside: reading changes nothing."""

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        d, e, threshold = config.text.width, config.memory.width, config.text.threshold
        self.temperature = config.memory.temperature
        self.key = nn.Linear(d, e, bias=False)
        self.value = nn.Linear(d + config.policy.state, e, bias=False)
        self.compare_norm = RMSNorm(d)
        self.compare = Attention(d, config.reasoning.heads, threshold=threshold)
        self.difference_norm = RMSNorm(d)
        self.scope_input = BitLinear(4 * d, config.policy.hidden, threshold=threshold)
        self.scope_output = nn.Linear(config.policy.hidden, 1)
        # The two cosines skip the quantised layer: eight bits beside hundreds of features would flatten them.
        self.scope_cosines = nn.Linear(2, 1, bias=False)

    def make_key(self, context: Tensor) -> Tensor:
        """Context (..., D) -> unit key (..., E)."""
        return F.normalize(self.key(context), dim=-1, eps=1e-8)

    def make_value(self, context: Tensor, card_key: Tensor) -> Tensor:
        """Context (..., D) and the chosen robot's card key (..., policy state) -> value (..., E)."""
        return self.value(torch.cat([context, card_key], -1))

    def scope_logits(self, text: Tensor, text_mask: Tensor, candidates: Candidates, similarity: Tensor) -> Tensor:
        """Read both texts token by token: text (B, T, D) against each candidate's story -> (B, K)."""
        b, k, length, d = candidates.tokens.shape
        mine = self.compare_norm(text).repeat_interleave(k, 0)  # (B·K, T, D)
        mine_mask = text_mask.repeat_interleave(k, 0)
        theirs = self.compare_norm(candidates.tokens).reshape(b * k, length, d)
        # A padded slot still needs one visible token, or its attention would be 0/0.
        theirs_mask = candidates.token_mask.reshape(b * k, length).bool()
        theirs_mask = theirs_mask | (~theirs_mask.any(-1, keepdim=True) & (torch.arange(length, device=text.device) == 0))
        found = self.compare(mine, theirs, mask=key_mask(theirs_mask))
        missed = self.compare(theirs, mine, mask=key_mask(mine_mask))
        forward = masked_mean((self.difference_norm(found) - mine).abs(), mine_mask)  # (B·K, D)
        backward = masked_mean((self.difference_norm(missed) - theirs).abs(), theirs_mask)
        a, c = masked_mean(mine, mine_mask), masked_mean(theirs, theirs_mask)
        cosine = F.cosine_similarity(a, c, dim=-1, eps=1e-8).unsqueeze(-1)
        features = torch.cat([forward, backward, (a - c).abs(), a * c], -1)
        cosines = torch.cat([cosine, similarity.reshape(-1, 1)], -1)
        return (self.scope_output(F.gelu(self.scope_input(features))) + self.scope_cosines(cosines)).view(b, k)

    def read(self, key: Tensor, text: Tensor, text_mask: Tensor, candidates: Candidates) -> MemoryReading:
        """Attend over the candidates and gate by scope.

        Args:
            key: (B, E) unit.
            text: (B, T, D) encoder states of the request; text_mask (B, T).
        """
        similarity = (candidates.keys @ key.unsqueeze(-1)).squeeze(-1)  # (B, K)
        scope = self.scope_logits(text, text_mask, candidates, similarity)
        # In use a slot that is out of scope is out altogether, so that it changes nothing; training needs its gradient.
        usable = candidates.present if self.training else candidates.present & (scope > 0)
        scores = (similarity / self.temperature + F.logsigmoid(scope)).masked_fill(~usable, float("-inf"))
        empty = ~usable.any(-1, keepdim=True)
        attention = torch.where(empty, torch.zeros_like(scores), scores.masked_fill(empty, 0.0).softmax(-1))
        weights = attention * torch.sigmoid(scope)
        return MemoryReading(context=(weights.unsqueeze(-1) * candidates.values).sum(1), weights=weights, similarity=similarity, scope=scope)
