"""The supervised stage: choose the right robot, for the right reasons, from any fleet, with photo and memory.

One screen of loop; data in `batches.py`, losses in `losses.py`. It yields events, writes its state between steps and goes
on from it. The text encoder trains with it; the decoder has a stage of its own (`writing.py`), on top of the finished trunk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.checkpoint.state import load_training_state, save_training_state
from bitmar_core.config import BitMarConfig
from bitmar_core.memory.episodic import Candidates
from bitmar_core.model.bitmar import BitMar, BitMarOutput
from bitmar_core.training.batches import Batches, MemoryBatch, TaskBatch
from bitmar_core.training.losses import any_of, key_loss, likeness_loss, scope_loss, selection_loss, total
from bitmar_core.training.schedules import warmup_cosine

WEIGHTS = {
    "robot": 1.0, "steps": 0.3, "direct": 0.4, "suited": 0.5, "value": 0.1, "step_words": 0.6, "verdict_words": 1.0,
    "scope": 1.0, "keys": 0.2, "recalled": 0.5,
}  # fmt: skip
"""Weight of each part of the loss."""
SCALAR_RATE = 20.0
"""Gates and gains are single numbers: they move at this multiple of the learning rate."""


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """One optimiser step."""

    step: int
    total: int
    kind: str
    loss: float
    parts: dict[str, float]
    learning_rate: float
    grad_norm: float
    seconds: float


class WordHeads(nn.Module):
    """Predict the sentence vectors of what a person wrote; thrown away after training. States (..., D) -> (..., V)."""

    def __init__(self, width: int, vector_width: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(width, vector_width) for _ in range(steps))
        self.verdict = nn.Linear(width, vector_width)

    def forward(self, output: BitMarOutput, batch: TaskBatch) -> dict[str, Tensor]:
        assert batch.step_vectors is not None and batch.step_present is not None and batch.verdict_vectors is not None and batch.verdict_present is not None
        states = output.trace.states
        steps = torch.stack([head(states[:, i]) for i, head in enumerate(self.steps)], 1)
        return {
            "step_words": likeness_loss(steps, batch.step_vectors, batch.step_present),
            "verdict_words": likeness_loss(self.verdict(output.cards), batch.verdict_vectors, batch.verdict_present),
        }


def remembered(model: BitMar, batch: MemoryBatch) -> tuple[BitMarOutput, Candidates, Tensor]:
    """Teach the stories, then answer the requests from them: output, candidates, story keys (F, E)."""
    cards, seen = model.encode_cards(batch.card_ids, batch.card_mask)
    stories = model.decide(model.read(batch.story_ids, batch.story_mask), cards, seen)
    assert stories.memory_key is not None and stories.card_keys is not None
    rows = torch.arange(len(batch.taught))
    values = model.memory.make_value(stories.reading.context, stories.card_keys[rows, batch.taught])
    pick = batch.candidates
    candidates = Candidates(
        keys=stories.memory_key[pick], values=values[pick], tokens=stories.reading.text[pick], token_mask=batch.story_mask[pick],
        robots=F.one_hot(batch.taught, len(batch.card_ids)).float()[pick], present=torch.ones_like(pick, dtype=torch.bool),
    )  # fmt: skip
    output = model.decide(model.read(batch.ids, batch.mask), cards, seen, candidates=candidates)
    return output, candidates, stories.memory_key


def batch_losses(model: BitMar, batch: TaskBatch | MemoryBatch, words: WordHeads | None = None) -> dict[str, Tensor]:
    """Every part of the loss of a batch."""
    if isinstance(batch, MemoryBatch):
        output, _, story_keys = remembered(model, batch)
        assert output.memory is not None and output.memory_key is not None
        inside = batch.owner >= 0
        right = (output.probabilities * batch.gold).sum(-1).clamp_min(1e-6)
        parts = {
            "scope": scope_loss(output.memory, batch.scope, torch.ones_like(batch.scope)),
            "recalled": -right.log().mean(),
        }
        if bool(inside.any()):
            parts["keys"] = key_loss(output.memory_key[inside], story_keys, batch.owner[inside])
        if not bool(inside.all()):
            parts["robot"] = any_of(output.policy_logits[~inside], batch.gold[~inside])
        return parts
    output = model(
        batch.ids, batch.mask, batch.features, has_image=batch.has_image, card_ids=batch.card_ids, card_mask=batch.card_mask, robot_mask=batch.robot_mask
    )
    parts = selection_loss(output, batch.gold, batch.robot_mask)
    if words is not None and batch.step_vectors is not None:
        parts |= words(output, batch)
    return parts


def parameter_groups(model: BitMar, words: WordHeads | None, config: BitMarConfig) -> list[dict]:
    """AdamW groups: encoder, new matrices, vectors without decay, scalars. Embeddings taken over stay as they are."""
    training = config.training
    groups: dict[str, list[nn.Parameter]] = {"encoder": [], "matrix": [], "vector": [], "scalar": []}
    for name, parameter in [*model.named_parameters(), *(words.named_parameters("words") if words else [])]:
        if not parameter.requires_grad:
            continue
        if name.startswith("encoder."):
            groups["encoder"].append(parameter)
        elif parameter.ndim == 0:
            groups["scalar"].append(parameter)
        else:
            groups["matrix" if parameter.ndim >= 2 else "vector"].append(parameter)
    rates = {
        "encoder": training.encoder_learning_rate,
        "matrix": training.learning_rate,
        "vector": training.learning_rate,
        "scalar": training.learning_rate * SCALAR_RATE,
    }
    return [
        {"params": members, "base_lr": rates[name], "lr": 0.0, "weight_decay": training.weight_decay if name in ("encoder", "matrix") else 0.0}
        for name, members in groups.items()
        if members
    ]


def freeze_for_selection(model: BitMar) -> None:
    """What this stage does not train: the decoder and the quality heads, and embeddings that were taken over."""
    for part in (model.decoder, model.quality, model.memory_to_decoder):
        part.requires_grad_(False)
    model.chosen.requires_grad_(False)
    if model.config.text.layout == "bert":
        model.encoder.embedding.requires_grad_(False)
        assert model.encoder.positions is not None
        model.encoder.positions.requires_grad_(False)


def train_robots(model: BitMar, batches: Batches, config: BitMarConfig, *, out: Path, vector_width: int = 0, save_every: int = 200) -> Iterator[TrainStep]:
    """Train; yields after each optimiser step. Goes on from the state in `out` where there is one.

    Raises:
        BitMarError: the loss is not finite; the last good state is in `out`.
    """
    from bitmar_core.errors import BitMarError

    training = config.training
    freeze_for_selection(model)
    words = WordHeads(config.text.width, vector_width, config.grpo_reasoning.reasoning_steps) if vector_width else None
    optimiser = torch.optim.AdamW(parameter_groups(model, words, config), betas=(0.9, 0.98), fused=True)
    modules: dict[str, nn.Module] = {"model": model} | ({"words": words} if words else {})
    plans = [len(batches.plan(epoch)) for epoch in range(training.epochs)]
    steps = sum(plans)
    done = load_training_state(out, modules, optimiser)
    model.train()
    step = 0
    for epoch, length in enumerate(plans):
        if done >= step + length:
            step += length
            continue
        for number, kind, batch in batches.epoch(epoch, start=max(0, done - step)):
            began = time.perf_counter()
            at = step + number
            factor = warmup_cosine(at, steps, training.warmup)
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * factor
            torch.manual_seed(training.seed * 1_000_003 + at)
            with torch.autocast("cpu", torch.bfloat16, enabled=training.bfloat16):
                parts = batch_losses(model, batch, words)
            loss = total(parts, WEIGHTS)
            if not bool(torch.isfinite(loss)):
                raise BitMarError(f"the loss is not finite at step {at}; the last good state is in {out}: lower training.learning_rate and start again")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], training.max_grad_norm))
            optimiser.step()
            if (at + 1) % save_every == 0:
                save_training_state(out, modules, optimiser, at + 1)
            yield TrainStep(
                step=at + 1, total=steps, kind=kind, loss=float(loss.detach()), parts={k: float(v.detach()) for k, v in parts.items()},
                learning_rate=training.learning_rate * factor, grad_norm=norm, seconds=time.perf_counter() - began,
            )  # fmt: skip
        step += length
    save_training_state(out, modules, optimiser, steps)
    model.eval()
