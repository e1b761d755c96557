"""Losses of the supervised stages: pure functions.

Letters: B batch, R robots, S steps, K candidate slots, U tokens, V vocabulary, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitmar_core.memory.episodic import MemoryReading
from bitmar_core.model.bitmar import BitMarOutput


def any_of(logits: Tensor, gold: Tensor) -> Tensor:
    """Mean negative log of the probability that falls on acceptable robots. logits (..., R), gold (..., R) of 0/1 -> scalar."""
    masked = logits.masked_fill(gold < 0.5, float("-inf"))
    return (logits.logsumexp(-1) - masked.logsumexp(-1)).mean()


def selection_loss(output: BitMarOutput, gold: Tensor, robot_mask: Tensor | None = None) -> dict[str, Tensor]:
    """Every loss of choosing a robot, each by itself.

    Args:
        gold: (B, R) of 0/1, at least one 1 a row.
        robot_mask: (B, R), 0 for robots that are not in the running.

    Returns:
        `robot` (the final choice), `steps` (each step by itself), `direct`, `suited` (a sigmoid a robot), `value` (each
        step's value against how much it gives to acceptable robots).
    """
    steps = output.step_logits.shape[1]
    spread = gold.unsqueeze(1).expand(-1, steps, -1)
    suited = F.binary_cross_entropy_with_logits(output.suited_logits, gold, reduction="none")
    if robot_mask is not None:
        suited = suited * robot_mask
    hit = (output.step_logits.detach().softmax(-1) * spread).sum(-1)  # (B, S)
    return {
        "robot": any_of(output.policy_logits, gold),
        "steps": any_of(output.step_logits, spread),
        "direct": any_of(output.direct_logits, gold),
        "suited": suited.mean(),
        "value": F.binary_cross_entropy_with_logits(output.trace.values, hit),
    }


def likeness_loss(predicted: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """1 - cosine, averaged where `present`. predicted, target (..., D), present (...) of 0/1 -> scalar."""
    distance = 1 - F.cosine_similarity(predicted, target, dim=-1, eps=1e-8)
    return (distance * present).sum() / present.sum().clamp_min(1.0)


def scope_loss(reading: MemoryReading, labels: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of "this slot is this case", both classes weighing the same. labels, present (B, K) -> scalar."""
    loss = F.binary_cross_entropy_with_logits(reading.scope, labels, reduction="none")
    inside, outside = labels * present, (1 - labels) * present
    return 0.5 * (loss * inside).sum() / inside.sum().clamp_min(1.0) + 0.5 * (loss * outside).sum() / outside.sum().clamp_min(1.0)


def key_loss(keys: Tensor, story_keys: Tensor, owner: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE (arXiv 1807.03748, eq. 4): each rewording's key (B, E) finds its story among all stories (F, E). owner (B,) -> scalar."""
    return F.cross_entropy(keys @ story_keys.T / temperature, owner)


def language_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over targets that are not -100. logits (B, U, V), targets (B, U) -> scalar."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, label_smoothing=smoothing)


def total(parts: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Weighted sum of named parts; a part without a weight is an error of ours."""
    return torch.stack([weights[name] * value for name, value in parts.items()]).sum()
