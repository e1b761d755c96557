"""Choosing the next token: a pure function of logits, what may come, and a generator."""

from __future__ import annotations

import torch
from torch import Tensor


def repeats(recent: list[int], length: int) -> list[int]:
    """Tokens that would end a second run of `length` tokens that `recent` already holds; none where `length` is 0."""
    if length <= 0 or len(recent) < length:
        return []
    tail = recent[len(recent) - length + 1 :]
    return [recent[i + length - 1] for i in range(len(recent) - length + 1) if recent[i : i + length - 1] == tail]


def pick(logits: Tensor, *, banned: list[int], repeated: list[int], penalty: float, temperature: float, generator: torch.Generator | None) -> int:
    """One token id.

    Args:
        logits: (V,).
        banned: ids that may not come.
        repeated: ids that the section already holds; their scores are divided by `penalty` where positive, else
            multiplied (CTRL, arXiv 1909.05858, section 4.1).
        temperature: of sampling.
        generator: None decodes greedily.
    """
    scores = logits.clone()
    if repeated and penalty != 1.0:
        index = torch.tensor(sorted(set(repeated)))
        held = scores[index]
        scores[index] = torch.where(held > 0, held / penalty, held * penalty)
    if banned:
        scores[torch.tensor(banned)] = float("-inf")
    if generator is None:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator))
