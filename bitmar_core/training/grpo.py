"""The GRPO stage: sample a group of chains for each task, reward them, and make the better ones of each group likelier.

GRPO is DeepSeekMath's (arXiv 2402.03300, section 4.1); Dr. GRPO (arXiv 2503.20783) and DAPO (arXiv 2503.14476) average it
otherwise. To it come an actor-critic's value loss and an entropy bonus.

A chain is one choice of a robot and many choices of words. Both are sampled by the very distributions whose
log-probabilities stand in the loss: temperature, banned tokens and repetition penalty included. What the grammar forces is
no action. Robot and words are averaged each for themselves: one robot among some hundred words would hardly count.

The model stays in evaluation mode and in float32: dropout or other roundings would give the ratio a spread that no update
made. The text encoder stays as it is unless asked for; so do fusion, the card reader and the five steps.

Letters: B tasks, G chains a task, N = B·G chains, R robots, U tokens, F free tokens of all chains, A actions, V vocabulary, S steps.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bitmar_core.checkpoint.state import load_training_state, save_training_state
from bitmar_core.config import BitMarConfig, GRPOConfig
from bitmar_core.data.chains import Grammar
from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.errors import BitMarError
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.bitmar import BitMar, BitMarOutput
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer
from bitmar_core.training.advantages import advantages, zero_spread
from bitmar_core.training.rewards import REWARD_MAX, Reward, read_chain, reward

IMPOSSIBLE = -1e9
"""Score of a token that may not come: finite, so that probability times logarithm is 0 and not undefined."""


# --- losses: pure functions ---


def surrogate(new: Tensor, old: Tensor, advantage: Tensor, *, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """-min(ρA, clip(ρ, 1 - clip_low, 1 + clip_high)·A) with ρ = exp(new - old), an action at a time (PPO, arXiv 1707.06347, eq. 7).

    Args:
        new, old: log-probabilities of the actions now and when they were sampled, of one shape.
        advantage: broadcastable to them.

    Returns:
        losses, and where the clip decides (there the gradient is zero), 0 or 1; both of that shape.
    """
    ratio = (new - old).exp()
    free, clipped = ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    return -torch.minimum(free, clipped), (clipped < free).float()


def kl_k3(new: Tensor, reference: Tensor) -> Tensor:
    """e^lr - lr - 1 with lr = log π_ref - log π: never negative, and unbiased for KL(π ‖ π_ref) where π took the actions (DeepSeekMath, eq. 4)."""
    ratio = reference - new
    return ratio.exp() - ratio - 1


def chain_weights(counts: Tensor, kind: str, longest: int) -> Tensor:
    """What one action of each chain weighs, so that the loss is the sum over all actions of weight times loss.

    Args:
        counts: (N,) actions of each chain.
        kind: `grpo`: the mean over chains of each chain's mean, 1/(N·n_i). `dr_grpo`: a constant in place of the chain's
            length, 1/(N·longest), since dividing by the length makes long failures cheap. `dapo`: the mean over all actions, 1/Σn.
        longest: the most actions that a chain may have.

    Raises:
        ValueError: no such kind.
    """
    n = max(1, len(counts))
    if kind == "grpo":
        return 1.0 / (n * counts.float().clamp_min(1.0))
    if kind == "dr_grpo":
        return torch.full((len(counts),), 1.0 / (n * max(1, longest)))
    if kind == "dapo":
        return torch.full((len(counts),), 1.0) / counts.float().sum().clamp_min(1.0)
    raise ValueError(f"no loss {kind!r}; known: grpo, dr_grpo, dapo")


def policy_loss(
    new: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, *, kind: str, clip_low: float, clip_high: float, longest: int,
    reference: Tensor | None = None, kl_weight: float = 0.0,
) -> Tensor:  # fmt: skip
    """The whole policy loss of padded chains, with its KL term where a reference is given. The loop sums the same by parts.

    Args:
        new, old, reference: (N, A) log-probabilities.
        advantage: (N,).
        mask: (N, A), 1 for actions, 0 for padding.

    Returns:
        a scalar.
    """
    losses, _ = surrogate(new, old, advantage.unsqueeze(1), clip_low=clip_low, clip_high=clip_high)
    if reference is not None:
        losses = losses + kl_weight * kl_k3(new, reference)
    return (chain_weights(mask.sum(1), kind, longest).unsqueeze(1) * losses * mask).sum()


def state_value(values: Tensor, bound: float) -> Tensor:
    """V(s) of each step in units of reward: bound · sigmoid, as the supervised stage reads the same outputs. (B, S) -> (B, S)."""
    return bound * torch.sigmoid(values)


def value_loss(values: Tensor, rewards: Tensor) -> Tensor:
    """Mean squared distance of each step's V(s) from the rewards of the task's chains. values (B, S), rewards (B, G) -> (B,)."""
    return (values.unsqueeze(2) - rewards.unsqueeze(1)).square().mean((1, 2))


def choice_log_probs(logits: Tensor, banned: Tensor, held: Tensor, *, penalty: float, temperature: float) -> Tensor:
    """Log-probabilities by which a token is picked: the distribution of `inference.sampling.pick`.

    Args:
        logits: (N, V).
        banned: (N, V) bool, tokens that may not come.
        held: (N, V) bool, tokens that the text holds already.
    """
    scores = torch.where(held, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    return (scores.masked_fill(banned, IMPOSSIBLE) / temperature).log_softmax(-1)


def robot_log_probs(model: BitMar, output: BitMarOutput, temperature: float) -> Tensor:
    """Log-probabilities by which a robot is picked: the calibrated policy, at a temperature. -> (B, R)."""
    return (output.policy_logits / model.get_buffer("calibration") / temperature).log_softmax(-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of each distribution. (..., V) -> (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


# --- chains ---


@dataclass
class Rollout:
    """One sampled chain: what was done, how likely it was, why it ended, what it earned."""

    task: RobotTask
    robot: int
    robot_log_prob: float
    ids: list[int]
    steps: list[int]
    """reasoning step whose state each token is read with"""
    free: list[int]
    """positions in `ids` that the decoder chose; the rest is form"""
    banned: list[tuple[int, ...]]
    """what could not come, for each free token"""
    log_probs: list[float]
    """of each free token when it was sampled"""
    stopped: str
    """finished, length"""
    reward: Reward


@dataclass
class Scored:
    """Log-probabilities and entropies of rollouts under some model."""

    robot: Tensor
    """(N,)"""
    robot_entropy: Tensor
    """(N,)"""
    words: Tensor
    """(F,) chain after chain"""
    word_entropy: Tensor
    """(F,)"""
    values: Tensor
    """(B, S) V(s) in units of reward"""


def by_fleet(tasks: list[RobotTask], at_once: int) -> list[list[RobotTask]]:
    """Tasks in parts of one fleet and at most `at_once`."""
    fleets: dict = {}
    for task in tasks:
        fleets.setdefault(task.fleet, []).append(task)
    return [members[i : i + at_once] for members in fleets.values() for i in range(0, len(members), at_once)]


def decide(model: BitMar, tasks: list[RobotTask], reader: ReaderTokenizer) -> BitMarOutput:
    """The model's decision on tasks of one fleet."""
    card_ids, card_mask = card_tensors(tasks[0].fleet, reader)
    ids, mask = pad(reader.encode([task.text for task in tasks])[0])
    return model(ids, mask, card_ids=card_ids, card_mask=card_mask)


def served(model: BitMar) -> BitMar:
    """A copy as it is served: without master weights, so that ternary weights are not made anew for every token. Same numbers, no gradient."""
    twin = copy.deepcopy(model).requires_grad_(False).eval()
    for part in twin.modules():
        if isinstance(part, BitLinear):
            part.freeze()
    return twin


def repeated(output: BitMarOutput, times: int) -> BitMarOutput:
    """What the decoder reads of each task, once for each of its chains: B rows become B·times, a task's chains side by side."""
    reading, rows = output.reading, torch.arange(len(output.cards)).repeat_interleave(times)
    return replace(
        output, cards=output.cards[rows], trace=replace(output.trace, states=output.trace.states[rows]),
        reading=replace(
            reading, fused=reading.fused[rows], text_mask=reading.text_mask[rows], patches=reading.patches[rows], patch_mask=reading.patch_mask[rows]
        ),
    )  # fmt: skip


@torch.no_grad()
def sample(model: BitMar, tasks: list[RobotTask], reader: ReaderTokenizer, writer: WriterTokenizer, generator: torch.Generator) -> list[Rollout]:
    """`group_size` chains for each of some tasks of one fleet, a task's chains side by side; all chains are written in step.

    Robots come from the policy's probabilities, words from the decoder under the grammar, both at the configured temperature.

    Raises:
        BitMarError: the policy's probabilities are not finite.
    """
    config, size, fleet = model.config, model.config.grpo_reasoning.group_size, tasks[0].fleet
    output = decide(model, tasks, reader)
    robot_table = robot_log_probs(model, output, config.grpo_reasoning.temperature)  # (B, R)
    if not bool(torch.isfinite(robot_table).all()):
        raise BitMarError("the policy's probabilities are not finite; the model is damaged: start from an earlier state")
    robots = torch.multinomial(robot_table.exp(), size, replacement=True, generator=generator).flatten()  # (N,)
    robot_old = robot_table.repeat_interleave(size, 0).gather(1, robots.unsqueeze(1)).squeeze(1)
    wide, count = repeated(output, size), len(robots)
    cache, memory_mask = model.start_decoding(wide, robots, torch.tensor(writer.robots[: len(fleet.robots)]))
    grammars = [Grammar(writer, len(fleet.robots), int(robot), config.inference.section_tokens) for robot in robots]
    rollouts = [
        Rollout(task=tasks[i // size], robot=int(robots[i]), robot_log_prob=float(robot_old[i]), ids=[], steps=[], free=[], banned=[], log_probs=[],
                stopped="length", reward=Reward(task_success=0.0, reasoning_quality=0.0))
        for i in range(count)
    ]  # fmt: skip
    held = torch.zeros(count, config.decoder.vocab_size, dtype=torch.bool)
    logits = torch.zeros(count, config.decoder.vocab_size)
    for _ in range(config.decoder.max_tokens):
        writing = [i for i in range(count) if not grammars[i].finished]
        if not writing:
            break
        tokens, steps = torch.full((count,), writer.pad), torch.full((count,), 4)
        choosing = [i for i in writing if grammars[i].forced() is None]
        if choosing:
            banned = [tuple(grammars[i].banned()) for i in choosing]
            table = choice_log_probs(
                logits[choosing], banned_mask(banned, logits.shape[1]), held[choosing],
                penalty=config.inference.repetition_penalty, temperature=config.grpo_reasoning.temperature,
            )  # fmt: skip
            picked = torch.multinomial(table.exp(), 1, generator=generator)  # (choosing, 1)
            tokens[choosing] = picked.squeeze(1)
            for i, ban, log_prob in zip(choosing, banned, table.gather(1, picked).squeeze(1).tolist(), strict=True):
                rollouts[i].free.append(len(rollouts[i].ids))
                rollouts[i].banned.append(ban)
                rollouts[i].log_probs.append(log_prob)
        for i in writing:
            forced = grammars[i].forced()
            token = int(tokens[i]) if forced is None else forced
            grammars[i].feed(token)
            if token in writer.special:
                held[i] = False
            else:
                held[i, token] = True
            # A token is read with the state of the step that the next one belongs to, as in training and in the engine.
            tokens[i], steps[i] = token, 4 if grammars[i].finished else grammars[i].step
            rollouts[i].ids.append(token)
            rollouts[i].steps.append(int(steps[i]))
        logits = model.decoder(tokens.unsqueeze(1), wide.trace.states[torch.arange(count), steps].unsqueeze(1), cache, memory_mask)[0][:, -1]
    for rollout, grammar in zip(rollouts, grammars, strict=True):
        rollout.stopped = "finished" if grammar.finished else "length"
        rollout.reward = reward(read_chain(rollout.ids, fleet.names, writer), rollout.task.text, rollout.task.gold)
    return rollouts


def banned_mask(banned: list[tuple[int, ...]], vocabulary: int) -> Tensor:
    """Lists of banned ids -> (len, V) bool. There are few different lists, so each is made once."""
    rows: dict[tuple[int, ...], int] = {}
    which = [rows.setdefault(ids, len(rows)) for ids in banned]
    table = torch.zeros(len(rows), vocabulary, dtype=torch.bool)
    for ids, row in rows.items():
        table[row, list(ids)] = True
    return table[which]


def held_mask(rollouts: list[Rollout], writer: WriterTokenizer, vocabulary: int) -> Tensor:
    """Tokens that a text already held when each free token was chosen. -> (F, V) bool."""
    rows: list[int] = []
    columns: list[int] = []
    row = 0
    for rollout in rollouts:
        free, recent = set(rollout.free), set()  # type: set[int], set[int]
        for position, token in enumerate(rollout.ids):
            if position in free:
                rows += [row] * len(recent)
                columns += recent
                row += 1
            recent = set() if token in writer.special else recent | {token}
    mask = torch.zeros(row, vocabulary, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def score(model: BitMar, rollouts: list[Rollout], reader: ReaderTokenizer, writer: WriterTokenizer) -> Scored:
    """How likely `model` finds what was done in some tasks' rollouts (of one fleet, a task's chains side by side), with gradient where it is on."""
    config, size = model.config, model.config.grpo_reasoning.group_size
    output = decide(model, [rollout.task for rollout in rollouts[::size]], reader)
    robots = torch.tensor([rollout.robot for rollout in rollouts])
    table = robot_log_probs(model, output, config.grpo_reasoning.temperature)  # (B, R)
    wide = repeated(output, size)
    cache, memory_mask = model.start_decoding(wide, robots, torch.tensor(writer.robots[: table.shape[1]]))
    ids, _ = pad([rollout.ids[:-1] for rollout in rollouts], writer.pad)  # (N, U)
    steps, _ = pad([rollout.steps[:-1] for rollout in rollouts])
    logits, _ = model.decoder(ids, wide.trace.states[torch.arange(len(rollouts)).unsqueeze(1), steps], cache, memory_mask)
    # The token at a position is chosen by the logits of the one before it.
    rows = torch.tensor([i for i, rollout in enumerate(rollouts) for _ in rollout.free], dtype=torch.long)
    before = torch.tensor([position - 1 for rollout in rollouts for position in rollout.free], dtype=torch.long)
    words = choice_log_probs(
        logits[rows, before], banned_mask([ban for rollout in rollouts for ban in rollout.banned], logits.shape[-1]), held_mask(rollouts, writer, logits.shape[-1]),
        penalty=config.inference.repetition_penalty, temperature=config.grpo_reasoning.temperature,
    )  # (F, V)  # fmt: skip
    chosen = torch.tensor([rollout.ids[position] for rollout in rollouts for position in rollout.free], dtype=torch.long)
    return Scored(
        robot=table.repeat_interleave(size, 0).gather(1, robots.unsqueeze(1)).squeeze(1), robot_entropy=entropy(table).repeat_interleave(size, 0),
        words=words.gather(1, chosen.unsqueeze(1)).squeeze(1), word_entropy=entropy(words),
        values=state_value(output.trace.values, REWARD_MAX * config.grpo_reasoning.reward_scaling),
    )  # fmt: skip


# --- the loop ---


@dataclass(frozen=True, kw_only=True)
class GRPOStep:
    """One optimiser step."""

    step: int
    total: int
    loss: float
    reward: float
    """mean over chains, before scaling"""
    reward_std: float
    """mean over groups of the deviation within the group"""
    parts: dict[str, float]
    """means of `task_success`, `reasoning_quality` and all their parts"""
    zero_std: float
    """share of groups whose chains all earned the same"""
    kl: float
    """k3 estimate, mean over actions: nats from the reference"""
    entropy: float
    """of words, mean over free tokens, in nats"""
    robot_entropy: float
    clip_share: float
    """share of actions where the clip decided; hardly any in the first update on a sample"""
    drift: float
    """mean |log ρ|; in the first update rounding alone: written token by token, 8-bit activations now and then round the other way"""
    policy_loss: float
    value_loss: float
    tokens: float
    """mean free tokens of a chain"""
    finished: float
    """share of chains that came to their end"""
    learning_rate: float
    grad_norm: float
    seconds: float


@dataclass
class Batch:
    """Rollouts of a part of the tasks with all that their loss needs as constants."""

    rollouts: list[Rollout]
    rewards: Tensor
    """(B, G), scaled"""
    robot_old: Tensor
    """(N,)"""
    words_old: Tensor
    """(F,)"""
    reference: Scored
    advantage: Tensor
    """(N,)"""


def collect(
    model: BitMar, reference: BitMar, tasks: list[RobotTask], reader: ReaderTokenizer, writer: WriterTokenizer, *, seed: str, at_once: int
) -> list[Batch]:
    """Sample and reward a group for each task, part by part."""
    settings, size = model.config.grpo_reasoning, model.config.grpo_reasoning.group_size
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    sampler = served(model)
    batches = []
    for part in by_fleet(tasks, at_once):
        rollouts = sample(sampler, part, reader, writer, generator)
        with torch.no_grad():
            scored = score(reference, rollouts, reader, writer)
            # V(s) by the steps' own weights, as the decision is made. It does not depend on the action: a sound baseline.
            output = decide(sampler, part, reader)
            values = (output.step_weights * state_value(output.trace.values, REWARD_MAX * settings.reward_scaling)).sum(-1)
        rewards = torch.tensor([rollout.reward.total for rollout in rollouts]).view(-1, size) * settings.reward_scaling
        gained = advantages(settings.advantage, rewards, values, scale=settings.loss != "dr_grpo")
        batches.append(
            Batch(
                rollouts=rollouts, rewards=rewards, robot_old=torch.tensor([rollout.robot_log_prob for rollout in rollouts]),
                words_old=torch.tensor([value for rollout in rollouts for value in rollout.log_probs]), reference=scored, advantage=gained.flatten(),
            )
        )  # fmt: skip
    return batches


def batch_loss(model: BitMar, batch: Batch, weights: Tensor, chains: int, reader: ReaderTokenizer, writer: WriterTokenizer) -> tuple[Tensor, dict[str, float]]:
    """A part's share of the step's loss, and sums for the report.

    Args:
        weights: (N,) what one word of each chain weighs, from `chain_weights` over all chains of the step.
        chains: chains of the step; a robot weighs 1/chains.
    """
    settings = model.config.grpo_reasoning
    now = score(model, batch.rollouts, reader, writer)
    row = torch.tensor([i for i, rollout in enumerate(batch.rollouts) for _ in rollout.free], dtype=torch.long)  # (F,) chain of each word
    clip = {"clip_low": settings.clip_low, "clip_high": settings.clip_high}
    robot, robot_clipped = surrogate(now.robot, batch.robot_old, batch.advantage, **clip)
    words, words_clipped = surrogate(now.words, batch.words_old, batch.advantage[row], **clip)
    robot_kl, words_kl = kl_k3(now.robot, batch.reference.robot), kl_k3(now.words, batch.reference.words)
    policy = robot.sum() / chains + (weights[row] * words).sum()
    divergence = robot_kl.sum() / chains + (weights[row] * words_kl).sum()
    spread = now.robot_entropy.sum() / chains + (weights[row] * now.word_entropy).sum()
    value = value_loss(now.values, batch.rewards).sum() * settings.group_size / chains
    loss = policy + settings.kl_weight * divergence - settings.entropy_weight * spread + settings.value_loss_weight * value
    report = {
        "policy": policy, "value": value, "kl": robot_kl.sum() + words_kl.sum(), "clipped": robot_clipped.sum() + words_clipped.sum(),
        "drift": (now.robot - batch.robot_old).abs().sum() + (now.words - batch.words_old).abs().sum(),
        "entropy": now.word_entropy.sum(), "robot_entropy": now.robot_entropy.sum(),
    }  # fmt: skip
    return loss, {name: float(number.detach()) for name, number in report.items()}


def freeze_for_grpo(model: BitMar, *, encoder: bool = False) -> list[nn.Parameter]:
    """Let only policy, value head and decoder train (and the text encoder where asked for); returns what trains.

    Of the policy, the suitability head stays.

    Raises:
        BitMarError: the model is packed: its ternary weights have no master weights any more.
    """
    if any(isinstance(part, BitLinear) and part.weight is None for part in model.modules()):
        raise BitMarError("the model is packed and cannot be trained; start from the training state of the run that made it")
    model.requires_grad_(False)
    for part in (model.policy, model.reasoning.value, model.decoder, *([model.encoder] if encoder else [])):
        part.requires_grad_(True)
    # "Would do as well" is an answer of its own, measured against labels; rewards of single choices would bend it.
    model.policy.suited.requires_grad_(False)
    model.policy.likeness_gain.requires_grad_(False)
    return [p for p in model.parameters() if p.requires_grad]


def tasks_of_step(tasks: list[RobotTask], size: int, draw: int, seed: int) -> list[RobotTask]:
    """The tasks of one draw: each pass over all of them is a shuffle of its own. A pure function of its arguments."""
    found: list[RobotTask] = []
    for at in range(draw * size, (draw + 1) * size):
        epoch, place = divmod(at, len(tasks))
        order = list(range(len(tasks)))
        random.Random(f"{seed}/grpo/{epoch}").shuffle(order)
        found.append(tasks[order[place]])
    return found


def report(batches: list[Batch], settings: GRPOConfig) -> dict:
    """Figures of a sample as fields of GRPOStep."""
    rollouts = [rollout for batch in batches for rollout in batch.rollouts]
    rewards = torch.cat([batch.rewards for batch in batches]) / settings.reward_scaling
    n = len(rollouts)
    parts = {name: sum(r.reward.parts[name] for r in rollouts) / n for name in rollouts[0].reward.parts}
    parts = {
        "task_success": sum(r.reward.task_success for r in rollouts) / n,
        "reasoning_quality": sum(r.reward.reasoning_quality for r in rollouts) / n,
    } | parts
    return {
        "reward": float(rewards.mean()), "reward_std": float(rewards.std(1).mean()), "parts": parts, "zero_std": zero_spread(rewards),
        "tokens": sum(len(r.free) for r in rollouts) / n, "finished": sum(r.stopped == "finished" for r in rollouts) / n,
    }  # fmt: skip


def train_grpo(
    model: BitMar, tasks: list[RobotTask], reader: ReaderTokenizer, writer: WriterTokenizer, config: BitMarConfig, *, out: Path,
    save_every: int = 20, updates: int = 1, encoder: bool = False, at_once: int = 2,
) -> Iterator[GRPOStep]:  # fmt: skip
    """Train; yields after each optimiser step. Goes on from the state in `out` where there is one, the reference included.

    Args:
        model: a finished model of `config`, not packed. What it is now becomes the reference.
        tasks: with text and answer; chains are not needed.
        updates: optimiser steps on each sample. From the second on the ratio leaves 1, and the clip has work.
        encoder: train the text encoder too.
        at_once: tasks whose chains are in memory together.

    Raises:
        BitMarError: no tasks; the model is packed or of another configuration; probabilities, loss or gradient are not finite
            (the last good state is in `out`).
    """
    settings, seed = config.grpo_reasoning, config.training.seed
    if not tasks:
        raise BitMarError("no tasks to train on; name a folder with JSON-lines files of tasks")
    if model.config != config:
        raise BitMarError("the model was built from another configuration than the one given; build it from this one")
    parameters = freeze_for_grpo(model, encoder=encoder)
    reference = served(model)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)  # the KL term holds it, not decay
    modules: dict[str, nn.Module] = {"model": model, "reference": reference}
    done = load_training_state(out, modules, optimiser)
    model.eval()
    batches: list[Batch] = []
    for at in range(done, settings.steps):
        began = time.perf_counter()
        if not batches or at % updates == 0:
            drawn = tasks_of_step(tasks, settings.batch_size, at // updates, seed)
            batches = collect(model, reference, drawn, reader, writer, seed=f"{seed}/chains/{at}", at_once=at_once)
        counts = [torch.tensor([len(rollout.free) for rollout in batch.rollouts]) for batch in batches]
        weights = chain_weights(torch.cat(counts), settings.loss, config.decoder.max_tokens).split([len(c) for c in counts])
        chains = sum(map(len, counts))
        optimiser.zero_grad(set_to_none=True)
        loss, sums = 0.0, {}  # type: float, dict[str, float]
        for batch, weight in zip(batches, weights, strict=True):
            part, figures = batch_loss(model, batch, weight, chains, reader, writer)
            if not bool(torch.isfinite(part)):
                raise BitMarError(f"the loss is not finite at step {at}; the last good state is in {out}: lower grpo_reasoning.learning_rate and start again")
            part.backward()
            loss += float(part.detach())
            sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        norm = float(nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
        if not math.isfinite(norm):
            raise BitMarError(f"the gradient is not finite at step {at}; the last good state is in {out}: lower grpo_reasoning.learning_rate and start again")
        optimiser.step()
        # Saved only where a sample is used up: the next step then samples anew, in a straight run as after a stop.
        if (at + 1) % save_every == 0 and (at + 1) % updates == 0:
            save_training_state(out, modules, optimiser, at + 1)
        words = sum(int(c.sum()) for c in counts)
        yield GRPOStep(
            step=at + 1, total=settings.steps, loss=loss, kl=sums["kl"] / (words + chains), clip_share=sums["clipped"] / (words + chains),
            drift=sums["drift"] / (words + chains),
            entropy=sums["entropy"] / max(1, words), robot_entropy=sums["robot_entropy"] / chains, policy_loss=sums["policy"], value_loss=sums["value"],
            learning_rate=settings.learning_rate, grad_norm=norm, seconds=time.perf_counter() - began, **report(batches, settings),
        )  # fmt: skip
    save_training_state(out, modules, optimiser, max(done, settings.steps))
    model.eval()
