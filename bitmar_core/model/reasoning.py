"""The reasoning module: five steps over one state, each looking at the photo, the task and the robots.

h_{t+1} = Norm(P·LSTM(φ(h_t, c, v_t, r_t)) + Refine([h_t ; Generate(h_t)])) for t = 1..5, where c is the fused context, v_t an
attention read of the patches by h_t and r_t an attention read of the robot cards by h_t.

Letters: B batch, R robots, P patches, D width, N LSTM width, S steps (5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.layers import Attention, RMSNorm, key_mask
from bitmar_core.model.policy import ScoreHead

STEPS = 5
QUALITIES = ("coherence", "relevance", "completeness", "accuracy")


@dataclass
class ReasoningTrace:
    """What the five steps leave behind."""

    states: Tensor
    """(B, S, D)"""
    values: Tensor
    """(B, S): V(h_t)"""
    patch_attention: Tensor
    """(B, S, P): where each step looked; one column where there is no photo"""
    robot_attention: Tensor
    """(B, S, R)"""


class ReasoningModule(nn.Module):
    """Five causal steps.

    Shapes: context (B, D), patches (B, P, D), patch_mask (B, P), cards (B, R, D), robot_mask (B, R) or None -> ReasoningTrace.
    """

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        d, n, threshold = config.text.width, config.reasoning.lstm_hidden, config.text.threshold
        heads = config.reasoning.heads
        self.context_norm = RMSNorm(d)
        self.step_embedding = nn.Parameter(torch.randn(config.grpo_reasoning.reasoning_steps, d) * 0.1)
        self.look = Attention(d, heads, threshold=threshold)
        self.patch_norm = RMSNorm(d)
        self.weigh = Attention(d, heads, threshold=threshold)
        self.input = BitLinear(4 * d, n, threshold=threshold)
        self.cell = nn.LSTMCell(n, n)
        self.recurrent_output = nn.Linear(n, d, bias=False)
        self.generate = BitLinear(d, d, threshold=threshold)
        self.refine = BitLinear(2 * d, d, threshold=threshold)
        self.state_norm = RMSNorm(d)
        self.dropout = nn.Dropout(config.reasoning.dropout)
        self.value = ScoreHead(config, outputs=1)

    def forward(self, context: Tensor, patches: Tensor, patch_mask: Tensor, cards: Tensor, robot_mask: Tensor | None = None) -> ReasoningTrace:
        c = self.context_norm(context)  # (B, D)
        h = c
        memory = cell = torch.zeros(len(c), self.cell.hidden_size, device=c.device)  # (B, N)
        patches, seen, present = self.patch_norm(patches), key_mask(patch_mask), key_mask(robot_mask)
        states, looks, weighs = [], [], []
        for step in self.step_embedding:
            query = (h + step).unsqueeze(1)  # (B, 1, D)
            v, look = self.look.with_weights(query, patches, mask=seen)
            r, weigh = self.weigh.with_weights(query, cards, mask=present)
            inputs = self.input(torch.cat([h + step, c, v.squeeze(1), r.squeeze(1)], -1))  # (B, N)
            memory, cell = self.cell(inputs.float(), (memory, cell))
            thought = F.gelu(self.generate(h))
            h = self.state_norm(self.recurrent_output(memory) + self.refine(torch.cat([h, thought], -1)))
            states.append(self.dropout(h))
            looks.append(look.squeeze(1))
            weighs.append(weigh.squeeze(1))
        stacked = torch.stack(states, 1)  # (B, S, D)
        return ReasoningTrace(
            states=stacked,
            values=self.value(stacked).squeeze(-1),
            patch_attention=torch.stack(looks, 1),
            robot_attention=torch.stack(weighs, 1),
        )


class QualityHeads(nn.Module):
    """Judges a finished chain: four scores from the step states and what the decoder wrote at each step.

    The chain is read backwards (last step first), which only judging may do: the steps themselves cannot look ahead.

    Shapes: states (B, S, D), chain (B, S, D) (mean decoder state of each section) -> logits (B, 4), in the order of QUALITIES.
    """

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        d = config.text.width
        self.state_norm = RMSNorm(d)
        self.chain_norm = RMSNorm(d)
        self.merge = nn.Linear(2 * d, config.policy.hidden)
        self.backward_pass = nn.LSTM(config.policy.hidden, config.policy.hidden, batch_first=True)
        self.heads = nn.ModuleDict({name: nn.Linear(config.policy.hidden, 1) for name in QUALITIES})

    def forward(self, states: Tensor, chain: Tensor) -> Tensor:
        merged = F.gelu(self.merge(torch.cat([self.state_norm(states), self.chain_norm(chain)], -1)))  # (B, S, K)
        read, _ = self.backward_pass(merged.flip(1))
        last = read[:, -1] + read.mean(1)
        return torch.cat([self.heads[name](last) for name in QUALITIES], -1)
