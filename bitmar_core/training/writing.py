"""The writing stage: the decoder learns hand-written chains on top of a finished, frozen trunk; then the quality heads learn
to tell sound chains from broken ones.

The trunk is frozen so that what was measured for selection stays as it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.checkpoint.state import load_training_state, save_training_state
from bitmar_core.config import BitMarConfig
from bitmar_core.data.chains import Chain, section_texts, write_chain
from bitmar_core.data.collate import card_tensors, chain_tensors, pad
from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.model.bitmar import BitMar, BitMarOutput
from bitmar_core.robots import NO_ROBOT, Fleet
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer
from bitmar_core.training.batches import FleetVariants, length_batches
from bitmar_core.training.losses import language_loss
from bitmar_core.training.robots import TrainStep
from bitmar_core.training.schedules import warmup_cosine


@dataclass
class ChainBatch:
    """Tasks over one fleet with chains to be written."""

    ids: Tensor
    mask: Tensor
    card_ids: Tensor
    card_mask: Tensor
    chosen: Tensor
    """(B,)"""
    inputs: Tensor
    """(B, U) decoder input"""
    sections: Tensor
    targets: Tensor
    chain_mask: Tensor
    labels: Tensor | None = None
    """(B, 4) of 0/1 for the quality heads, in the order of QUALITIES"""


class ChainData:
    """Builds batches of chains; a pure function of (tasks, seed, epoch)."""

    def __init__(
        self,
        tasks: list[RobotTask],
        reader: ReaderTokenizer,
        writer: WriterTokenizer,
        variants: FleetVariants,
        lines: dict[str, list[str]],
        config: BitMarConfig,
    ) -> None:
        self.tasks, self.reader, self.writer, self.variants, self.lines, self.config = tasks, reader, writer, variants, lines, config
        self.lengths = [len(t.text) + sum(map(len, (t.thinking, t.environment, t.reasoning, t.doubt, *t.verdicts.values()))) for t in tasks]
        self.by_fleet: dict[Fleet, list[int]] = {}
        for index, task in enumerate(tasks):
            self.by_fleet.setdefault(task.fleet, []).append(index)

    def plan(self, epoch: int, size: int) -> list[list[int]]:
        """Batches of task indices; tasks of one fleet together."""
        rng = random.Random(f"{self.config.training.seed}/chains/{epoch}")
        plan = [b for members in self.by_fleet.values() for b in length_batches(list(members), self.lengths, size, rng)]
        rng.shuffle(plan)
        return plan

    def build(self, members: list[int], key: str, *, broken: bool = False) -> ChainBatch:
        """Tensors of a batch. With `broken`, most chains are spoilt in one known way and `labels` says how."""
        rng = random.Random(f"{self.config.training.seed}/{key}")
        tasks = [self.tasks[i] for i in members]
        default = tasks[0].fleet == self.variants.default
        order, shown = self.variants.draw(rng) if default else (list(range(len(tasks[0].fleet.robots))), tasks[0].fleet)
        names = tuple(tasks[0].fleet.robots[i].name for i in order)
        chains, chosen, labels = [], [], []
        for task in tasks:
            gold = rng.choice(task.gold)
            line = rng.choice(self.lines["gold_lines" if NO_ROBOT in task.gold else "lines"])
            texts = section_texts(task, gold, line)
            pick = names.index(gold)
            label = [1.0, 1.0, 1.0, 1.0]
            if broken:
                texts, pick, label = self._spoil(task, texts, names, pick, rng)
            chains.append(self._chain(texts, names, pick))
            chosen.append(pick)
            labels.append(label)
        ids, mask = pad(self.reader.encode([t.text for t in tasks])[0])
        card_ids, card_mask = card_tensors(shown, self.reader)
        inputs, sections, targets, chain_mask = chain_tensors(chains, self.writer.pad, self.config.decoder.max_tokens)
        return ChainBatch(
            ids=ids, mask=mask, card_ids=card_ids, card_mask=card_mask, chosen=torch.tensor(chosen), inputs=inputs, sections=sections, targets=targets,
            chain_mask=chain_mask, labels=torch.tensor(labels) if broken else None,
        )  # fmt: skip

    def _chain(self, texts: list[str | dict[str, str]], names: tuple[str, ...], pick: int) -> Chain:
        return write_chain(texts, names, names, pick, self.writer)

    def _spoil(self, task: RobotTask, texts: list, names: tuple[str, ...], pick: int, rng: random.Random) -> tuple[list, int, list[float]]:
        """One of: sound; wrong robot; lines of two robots swapped; another task's chain; parts missing. Labels: coherence, relevance, completeness, accuracy."""
        kind = rng.choice(("sound", "sound", "robot", "swapped", "other", "missing"))
        if kind == "robot":
            wrong = rng.choice([i for i, name in enumerate(names) if name not in task.gold])
            texts = [*texts[:-1], task.verdicts.get(names[wrong], texts[-1])]
            return texts, wrong, [0.0, 1.0, 1.0, 0.0]
        if kind == "swapped":
            lines = dict(texts[2])
            others = [n for n in names if n in task.verdicts and n not in task.gold]
            mine = next((n for n in task.gold if n in task.verdicts), None)
            if mine and others:
                other = rng.choice(others)
                lines[mine], lines[other] = lines[other], lines[mine]
                return [*texts[:2], lines, *texts[3:]], pick, [0.0, 1.0, 1.0, 1.0]
            kind = "other"
        if kind == "other":
            stranger = rng.choice(
                [t for t in (rng.choice(self.tasks) for _ in range(20)) if t.has_chain and t.fleet == task.fleet and t.id != task.id] or [task]
            )
            if stranger is task:
                return texts, pick, [1.0, 1.0, 1.0, 1.0]
            line = rng.choice(self.lines["lines"])
            theirs = section_texts(stranger, stranger.gold[0], line)
            wrong = names.index(stranger.gold[0])
            return theirs, wrong, [1.0, 0.0, 1.0, float(stranger.gold[0] in task.gold)]
        if kind == "missing":
            lines = dict(texts[2])
            drop = rng.choice(("lines", "sections", "both"))
            if drop != "sections":
                for name in rng.sample(list(lines), max(1, len(lines) // 2)):
                    lines[name] = ""
            spoilt = [texts[0], texts[1], lines, texts[3], texts[4], texts[5]]
            if drop != "lines":
                for index in rng.sample((0, 1, 3, 4, 5), 2):
                    spoilt[index] = ""
            return spoilt, pick, [1.0, 1.0, 0.0, 1.0]
        return texts, pick, [1.0, 1.0, 1.0, 1.0]


@torch.no_grad()
def trunk_output(model: BitMar, batch: ChainBatch) -> BitMarOutput:
    """The frozen trunk's output for a batch."""
    return model(batch.ids, batch.mask, card_ids=batch.card_ids, card_mask=batch.card_mask)


def decode_batch(model: BitMar, output: BitMarOutput, batch: ChainBatch, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher forcing: logits (B, U, V) and decoder states (B, U, D)."""
    cache, memory_mask = model.start_decoding(output, batch.chosen, slots)
    steps = output.trace.states.gather(1, batch.sections.unsqueeze(-1).expand(-1, -1, output.trace.states.shape[-1]))
    return model.decoder(batch.inputs, steps, cache, memory_mask)


def _loop(
    model: BitMar, data: ChainData, config: BitMarConfig, out: Path, *, kind: str, epochs: int, rate: float, parts: list[nn.Module], save_every: int, size: int
) -> Iterator[TrainStep]:
    """The loop of both halves of the stage: `writing` trains the decoder, `quality` the quality heads."""
    training = config.training
    model.requires_grad_(False)
    trained = nn.ModuleList(parts)
    trained.requires_grad_(True)
    if kind == "writing":
        model.chosen.requires_grad_(True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    plans = [data.plan(epoch, size) for epoch in range(epochs)]
    steps = sum(map(len, plans))
    done = load_training_state(out, {"model": model}, optimiser)
    model.eval()
    trained.train()
    at = 0
    for epoch, plan in enumerate(plans):
        for number, members in enumerate(plan):
            at += 1
            if at <= done:
                continue
            began = time.perf_counter()
            factor = warmup_cosine(at - 1, steps, training.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            torch.manual_seed(training.seed * 1_000_003 + at)
            batch = data.build(members, f"{kind}/{epoch}/{number}", broken=kind == "quality")
            slots = torch.tensor(data.writer.robots[: len(batch.card_ids)])
            with torch.autocast("cpu", torch.bfloat16, enabled=training.bfloat16):
                output = trunk_output(model, batch)
                if kind == "writing":
                    logits, _ = decode_batch(model, output, batch, slots)
                    loss = language_loss(logits.float(), batch.targets, training.label_smoothing)
                else:
                    with torch.no_grad():
                        _, states = decode_batch(model, output, batch, slots)
                    assert batch.labels is not None
                    scores = model.judge(output, states.float(), batch.sections, batch.chain_mask)
                    loss = F.binary_cross_entropy_with_logits(scores.float(), batch.labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(parameters, training.max_grad_norm))
            optimiser.step()
            if at % save_every == 0:
                save_training_state(out, {"model": model}, optimiser, at)
            value = float(loss.detach())
            yield TrainStep(
                step=at,
                total=steps,
                kind=kind,
                loss=value,
                parts={kind: value},
                learning_rate=rate * factor,
                grad_norm=norm,
                seconds=time.perf_counter() - began,
            )
    save_training_state(out, {"model": model}, optimiser, steps)
    model.eval()


def train_writing(model: BitMar, data: ChainData, config: BitMarConfig, *, out: Path, save_every: int = 200) -> Iterator[TrainStep]:
    """Teach the decoder the chains; yields after each optimiser step and goes on from the state in `out`."""
    training = config.training
    return _loop(
        model, data, config, out, kind="writing", epochs=training.writing_epochs, rate=training.writing_learning_rate,
        parts=[model.decoder, model.memory_to_decoder], save_every=save_every, size=max(1, training.batch_size // 4),
    )  # fmt: skip


def train_quality(model: BitMar, data: ChainData, config: BitMarConfig, *, out: Path, save_every: int = 200) -> Iterator[TrainStep]:
    """Teach the quality heads sound and broken chains; the decoder stays as it is."""
    training = config.training
    return _loop(
        model, data, config, out, kind="quality", epochs=training.quality_epochs, rate=training.learning_rate, parts=[model.quality],
        save_every=save_every, size=training.batch_size,
    )  # fmt: skip


@torch.no_grad()
def perplexity(model: BitMar, data: ChainData, limit: int = 200) -> float:
    """Exponential of the mean cross-entropy a token over the free words of up to `limit` chains."""
    model.eval()
    loss = count = 0.0
    for members in data.plan(0, 16)[: max(1, limit // 16)]:
        batch = data.build(members, "perplexity")
        slots = torch.tensor(data.writer.robots[: len(batch.card_ids)])
        logits, _ = decode_batch(model, trunk_output(model, batch), batch, slots)
        tokens = int((batch.targets != -100).sum())
        loss += float(language_loss(logits, batch.targets)) * tokens
        count += tokens
    return float(torch.tensor(loss / max(1.0, count)).exp())


@torch.no_grad()
def quality_auc(model: BitMar, data: ChainData, limit: int = 400) -> dict[str, float]:
    """Area under the ROC curve of each quality head on spoilt and sound chains, up to `limit` of them."""
    from bitmar_core.model.reasoning import QUALITIES

    model.eval()
    scores, labels = [], []
    for number, members in enumerate(data.plan(0, 16)[: max(1, limit // 16)]):
        batch = data.build(members, f"auc/{number}", broken=True)
        output = trunk_output(model, batch)
        _, states = decode_batch(model, output, batch, torch.tensor(data.writer.robots[: len(batch.card_ids)]))
        scores.append(model.judge(output, states, batch.sections, batch.chain_mask))
        assert batch.labels is not None
        labels.append(batch.labels)
    s, y = torch.cat(scores), torch.cat(labels)
    out = {}
    for i, name in enumerate(QUALITIES):
        good, bad = s[y[:, i] > 0.5, i], s[y[:, i] < 0.5, i]
        wins = (good[:, None] > bad[None]).float() + 0.5 * (good[:, None] == bad[None]).float()
        out[name] = round(float(wins.mean()), 4)
    return out
