"""Batches of robot tasks. Each is a pure function of (data, seed, epoch), so that a run can stop and go on.

Letters: B batch, R robots, T tokens, P patches, W vision width, F families, K candidates.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.data.robot_tasks import Corpus, Family, RobotTask, held_out
from bitmar_core.robots import NO_ROBOT, Fleet, RobotCard, load_fleet, parse_fleet
from bitmar_core.tokenizer import ReaderTokenizer
from bitmar_core.training.features import PhotoFeatures, SentenceVectors


@dataclass
class TaskBatch:
    """Tasks over one fleet."""

    ids: Tensor
    mask: Tensor
    card_ids: Tensor
    card_mask: Tensor
    gold: Tensor
    """(B, R) of 0/1"""
    robot_mask: Tensor
    """(B, R) of 0/1: robots in the running"""
    features: Tensor | None = None
    """(B, P, W)"""
    has_image: Tensor | None = None
    """(B,) bool"""
    step_vectors: Tensor | None = None
    """(B, S, V) sentence vectors of what was written for each step"""
    step_present: Tensor | None = None
    verdict_vectors: Tensor | None = None
    """(B, R, V) sentence vectors of each robot's verdict"""
    verdict_present: Tensor | None = None


@dataclass
class MemoryBatch:
    """Stories that were taught, and requests that read them."""

    story_ids: Tensor
    story_mask: Tensor
    ids: Tensor
    mask: Tensor
    card_ids: Tensor
    card_mask: Tensor
    taught: Tensor
    """(F,) robot that each story teaches"""
    candidates: Tensor
    """(B, K) index of the stories that each request may look at"""
    scope: Tensor
    """(B, K) 1 where the story is this very case"""
    owner: Tensor
    """(B,) story that the request rewords, -1 where none"""
    gold: Tensor
    """(B, R) the right answer with this memory"""


class FleetVariants:
    """The default fleet under other names, in other words and another order, so that cards must be read."""

    def __init__(self, path: Path | None, tokenizer: ReaderTokenizer) -> None:
        from bitmar_core.errors import FleetError
        from bitmar_core.safe_yaml import read_yaml

        self.default = load_fleet()
        self.tokenizer = tokenizer
        self.variants: dict[str, list[RobotCard]] = {card.name: [card] for card in self.default.robots}
        if path is not None and path.exists():
            for name, cards in read_yaml(path, error=FleetError).items():
                pair = [{"name": "\u2013"}]  # a fleet needs two robots; this one is dropped again
                self.variants[name] += [parse_fleet({"name": name, "robots": [card, *pair]}, where=f"{path}, {name}").robots[0] for card in cards]

    def draw(self, rng: random.Random) -> tuple[list[int], Fleet]:
        """Order of the default robots, and the fleet as it is shown; the plain default about half of the time."""
        order = list(range(len(self.default.robots)))
        if rng.random() < 0.45:
            return order, self.default
        rng.shuffle(order)
        cards: list[RobotCard] = []
        for index in order:
            choices = self.variants[self.default.robots[index].name]
            card = rng.choice(choices) if rng.random() < 0.8 else choices[0]
            if any(card.name == other.name for other in cards):
                card = choices[0]
            cards.append(card)
        return order, Fleet(name="variant", robots=tuple(cards))


def augment(ids: list[int], rng: random.Random, mask_id: int) -> list[int]:
    """Hide some tokens (not the first and last), so that no single word carries the answer."""
    if len(ids) < 8 or rng.random() < 0.4:
        return ids
    rate = rng.uniform(0.02, 0.12)
    return [mask_id if 0 < i < len(ids) - 1 and rng.random() < rate else token for i, token in enumerate(ids)]


def length_batches(items: list[int], lengths: list[int], size: int, rng: random.Random) -> list[list[int]]:
    """Batches of items of like length: shuffled, sorted inside pools of sixteen batches, cut, shuffled again."""
    rng.shuffle(items)
    batches = []
    for at in range(0, len(items), size * 16):
        pool = sorted(items[at : at + size * 16], key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


class Batches:
    """Everything that one epoch shows, mixed: default-fleet tasks, custom fleets, photos, memory."""

    def __init__(
        self, corpus: Corpus, tokenizer: ReaderTokenizer, *, batch_size: int, holdout: float, seed: int, variants: FleetVariants,
        photos: PhotoFeatures | None = None, vectors: SentenceVectors | None = None,
    ) -> None:  # fmt: skip
        self.tokenizer, self.batch_size, self.seed, self.variants, self.photos, self.vectors = tokenizer, batch_size, seed, variants, photos, vectors
        self.train = [t for t in corpus.tasks if not held_out(t.group, holdout)]
        self.held = [t for t in corpus.tasks if held_out(t.group, holdout)]
        self.families = [f for f in corpus.families if not held_out(f.id, holdout)]
        self.held_families = [f for f in corpus.families if held_out(f.id, holdout)]
        default = load_fleet()
        for family in self.families:
            texts = [(family.task, family.gold), *((s, family.gold) for s in family.same), *family.near]
            self.train += [RobotTask(id=f"{family.id}/{i}", task=text, gold=gold, fleet=default, group=family.id) for i, (text, gold) in enumerate(texts)]
        self.fleets: dict[str, list[RobotTask]] = {}
        self.held_fleets: list[RobotTask] = []
        for task in corpus.fleets:
            if held_out(task.group, holdout):
                self.held_fleets.append(task)
            else:
                self.fleets.setdefault(task.group, []).append(task)
        self.photo_tasks = corpus.photos if photos is not None else []
        self.encoded = tokenizer.encode([t.text for t in self.train])[0]
        self.lengths = [len(e) for e in self.encoded]
        mask = tokenizer.tokenizer.token_to_id("[MASK]")
        self.mask_id = 0 if mask is None else mask

    def plan(self, epoch: int) -> list[tuple]:
        """The epoch's batches as (kind, payload), in order."""
        rng = random.Random(f"{self.seed}/{epoch}")
        # Texts of families carry a label and no chain: half of them an epoch, so that they do not crowd out the chains.
        shown = [i for i, task in enumerate(self.train) if task.has_chain or rng.random() < 0.5]
        plan: list[tuple] = [("tasks", b) for b in length_batches(shown, self.lengths, self.batch_size, rng)]
        plan += [("fleet", name) for name in self.fleets for _ in range(2)]
        share = len(plan)
        if self.photo_tasks:
            plan += [("photos", n) for n in range(share // 6)]
        plan += [("memory", n) for n in range(share // 5 if len(self.families) >= 2 else 0)]
        rng.shuffle(plan)
        return plan

    def build(self, epoch: int, number: int, kind: str, payload: Any) -> TaskBatch | MemoryBatch:
        """The tensors of one planned batch."""
        rng = random.Random(f"{self.seed}/{epoch}/{number}")
        if kind == "tasks":
            return self._tasks([self.train[i] for i in payload], [self.encoded[i] for i in payload], rng)
        if kind == "fleet":
            tasks = self.fleets[str(payload)]
            return self._tasks(tasks, self.tokenizer.encode([t.text for t in tasks])[0], rng)
        return self._photos(rng) if kind == "photos" else self._memory(rng)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, str, TaskBatch | MemoryBatch]]:
        """Batches of an epoch from number `start` on."""
        for number, (kind, payload) in enumerate(self.plan(epoch)):
            if number >= start:
                yield number, kind, self.build(epoch, number, kind, payload)

    def _tasks(self, tasks: list[RobotTask], encoded: list[list[int]], rng: random.Random) -> TaskBatch:
        own = tasks[0].fleet
        if own == self.variants.default:
            order, shown = self.variants.draw(rng)
        else:
            order = list(range(len(own.robots)))
            rng.shuffle(order)
            shown = Fleet(name=own.name, robots=tuple(own.robots[i] for i in order))
        names = [own.robots[i].name for i in order]
        gold = torch.tensor([[float(name in t.gold) for name in names] for t in tasks])
        robot_mask = torch.ones_like(gold)
        for row in range(len(tasks)):
            if rng.random() < 0.15:
                for column in range(len(names)):
                    if not gold[row, column] and rng.random() < 0.3 and robot_mask[row].sum() > 2:
                        robot_mask[row, column] = 0
        ids, mask = pad([augment(e, rng, self.mask_id) for e in encoded])
        card_ids, card_mask = card_tensors(shown, self.tokenizer)
        batch = TaskBatch(ids=ids, mask=mask, card_ids=card_ids, card_mask=card_mask, gold=gold, robot_mask=robot_mask)
        if self.vectors is not None:
            self._add_vectors(batch, tasks, names)
        return batch

    def _add_vectors(self, batch: TaskBatch, tasks: list[RobotTask], names: list[str]) -> None:
        assert self.vectors is not None
        steps, step_present, verdicts, verdict_present = [], [], [], []
        for task in tasks:
            chosen = task.verdicts.get(task.gold[0], task.reasoning)
            pairs = [self.vectors.get(text) for text in (task.thinking, task.environment, chosen, task.reasoning, task.doubt)]
            steps.append(torch.stack([p[0] for p in pairs]))
            step_present.append([p[1] for p in pairs])
            pairs = [self.vectors.get(task.verdicts.get(name, task.reasoning if name in task.gold and name == NO_ROBOT else "")) for name in names]
            verdicts.append(torch.stack([p[0] for p in pairs]))
            verdict_present.append([p[1] for p in pairs])
        batch.step_vectors, batch.step_present = torch.stack(steps), torch.tensor(step_present)
        batch.verdict_vectors, batch.verdict_present = torch.stack(verdicts), torch.tensor(verdict_present)

    def _photos(self, rng: random.Random) -> TaskBatch:
        """Half vague tasks with a photo that decides, the rest clear tasks, most with a photo that has nothing to say."""
        assert self.photos is not None
        texts: list[str] = []
        golds: list[tuple[str, ...]] = []
        features: list[Tensor | None] = []
        for row in range(self.batch_size):
            if row < self.batch_size * 0.55:
                task = rng.choice(self.photo_tasks)
                place = rng.choice(sorted(task.by_place))
                texts.append(task.task)
                golds.append(task.by_place[place])
                features.append(self.photos.pick(place, rng))
            else:
                clear = self.train[rng.randrange(len(self.train))]
                texts.append(clear.text)
                golds.append(clear.gold)
                place = rng.choice(sorted(self.photos.places))
                features.append(self.photos.pick(place, rng) if rng.random() < 0.75 else None)
        order, shown = self.variants.draw(rng)
        names = [self.variants.default.robots[i].name for i in order]
        gold = torch.tensor([[float(name in g) for name in names] for g in golds])
        ids, mask = pad(self.tokenizer.encode(texts)[0])
        card_ids, card_mask = card_tensors(shown, self.tokenizer)
        blank = torch.zeros_like(next(f for f in features if f is not None))
        return TaskBatch(
            ids=ids, mask=mask, card_ids=card_ids, card_mask=card_mask, gold=gold, robot_mask=torch.ones_like(gold),
            features=torch.stack([blank if f is None else f for f in features]), has_image=torch.tensor([f is not None for f in features]),
        )  # fmt: skip

    def _memory(self, rng: random.Random) -> MemoryBatch:
        families = rng.sample(self.families, min(6, len(self.families)))
        return self.memory_batch(families, rng)

    def memory_batch(self, families: list[Family], rng: random.Random, *, candidates: int = 4, every: bool = False) -> MemoryBatch:
        """Teach each family's task, then ask rewordings and neighbours; `every` asks all of them instead of a few."""
        order, shown = self.variants.draw(rng) if not every else (list(range(len(self.variants.default.robots))), self.variants.default)
        names = [self.variants.default.robots[i].name for i in order]
        taught, requests = [], []  # type: list[int], list[tuple[str, tuple[str, ...], int, bool]]
        for index, family in enumerate(families):
            others = [i for i, name in enumerate(names) if name not in family.gold]
            taught.append(rng.choice(others))
            same = list(family.same) if every else rng.sample(family.same, min(2, len(family.same)))
            near = list(family.near) if every else rng.sample(family.near, min(3, len(family.near)))
            requests += [(text, (), index, True) for text in [*same, *([family.task] if every or rng.random() < 0.3 else [])]]
            requests += [(text, gold, index, False) for text, gold in near]
        count = min(candidates, len(families))
        rows, scope, gold, owner = [], [], [], []
        for _, right, index, inside in requests:
            pool = [i for i in range(len(families)) if i != index]
            picked = rng.sample(pool, count - 1)
            picked.insert(rng.randrange(count), index)
            if not inside and not every and rng.random() < 0.2:
                picked = rng.sample(pool, min(count, len(pool))) + ([index] if len(pool) < count else [])
            rows.append(picked)
            scope.append([float(inside and i == index) for i in picked])
            gold.append([float(i == taught[index]) if inside else float(name in right) for i, name in enumerate(names)])
            owner.append(index if inside else -1)
        story_ids, story_mask = pad(self.tokenizer.encode([f.task for f in families])[0])
        ids, mask = pad(self.tokenizer.encode([r[0] for r in requests])[0])
        card_ids, card_mask = card_tensors(shown, self.tokenizer)
        return MemoryBatch(
            story_ids=story_ids, story_mask=story_mask, ids=ids, mask=mask, card_ids=card_ids, card_mask=card_mask, taught=torch.tensor(taught),
            candidates=torch.tensor(rows), scope=torch.tensor(scope), owner=torch.tensor(owner), gold=torch.tensor(gold),
        )  # fmt: skip
