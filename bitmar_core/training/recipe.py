"""The recipe of the shipped checkpoint: selection, calibration, writing, quality, packing.

`bitmar train robots` runs it. Every stage writes its state into the run folder and goes on from it, so a run that was
stopped is started again with the same command.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitmar_core.config import BitMarConfig
from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.data.robot_tasks import Corpus, RobotTask, held_out, read_corpus
from bitmar_core.errors import BitMarError, MissingError
from bitmar_core.evaluation.selection import expected_calibration_error, selective_accuracy, top1
from bitmar_core.model.bitmar import BitMar, create_bitmar_model
from bitmar_core.robots import Fleet
from bitmar_core.safe_yaml import read_yaml
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer, train_bpe
from bitmar_core.training.batches import Batches, FleetVariants
from bitmar_core.training.features import PhotoFeatures, SentenceVectors
from bitmar_core.training.robots import TrainStep, remembered, train_robots
from bitmar_core.training.writing import ChainData, perplexity, quality_auc, train_quality, train_writing


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files that the recipe reads."""

    data: Path
    """folder with tasks, families, fleets, photo tasks and card variants"""
    reader: Path
    """tokenizer.json of the text encoder"""
    text_encoder: Path | None = None
    """`encoder.safetensors` of `distill_text`; None starts from nothing"""
    vision: Path | None = None
    """folder of `distill_vision`, whose encoder is shipped"""
    photo_features: Path | None = None
    photo_index: Path | None = None
    skip_photos: frozenset[str] = frozenset()
    """names of photos that are never trained on"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage began or ended; `figures` where it measured something."""

    name: str
    figures: dict[str, Any]


@torch.no_grad()
def choose(model: BitMar, tasks: list[RobotTask], tokenizer: ReaderTokenizer, batch_size: int = 64) -> tuple[list[list[float]], list[list[float]]]:
    """Probabilities (before calibration is fitted: with the calibration that the model has) and raw logits for tasks of any fleets, in order."""
    model.eval()
    order: dict[Fleet, list[int]] = {}
    for index, task in enumerate(tasks):
        order.setdefault(task.fleet, []).append(index)
    probabilities: list[list[float]] = [[]] * len(tasks)
    logits: list[list[float]] = [[]] * len(tasks)
    for fleet, members in order.items():
        card_ids, card_mask = card_tensors(fleet, tokenizer)
        cards, seen = model.encode_cards(card_ids, card_mask)
        members = sorted(members, key=lambda i: len(tasks[i].text))
        for at in range(0, len(members), batch_size):
            chunk = members[at : at + batch_size]
            ids, mask = pad(tokenizer.encode([tasks[i].text for i in chunk])[0])
            output = model.decide(model.read(ids, mask), cards, seen)
            for i, p, z in zip(chunk, output.probabilities.tolist(), output.policy_logits.tolist(), strict=True):
                probabilities[i], logits[i] = p, z
    return probabilities, logits


def figures(tasks: list[RobotTask], probabilities: list[list[float]]) -> dict[str, float]:
    """Top-1 in gold, ECE, accuracy of the most confident 70 %."""
    chosen = [t.fleet.names[max(range(len(p)), key=p.__getitem__)] for t, p in zip(tasks, probabilities, strict=True)]
    confidence = [max(p) for p in probabilities]
    hit = [c in t.gold for t, c in zip(tasks, chosen, strict=True)]
    return {
        "n": len(tasks),
        "top1": round(top1([t.gold for t in tasks], chosen), 4),
        "ece": round(expected_calibration_error(confidence, hit), 4),
        "top70": round(selective_accuracy(confidence, hit), 4),
    }


def fit_temperature(tasks: list[RobotTask], logits: list[list[float]]) -> float:
    """Temperature that makes held-out answers likeliest (Guo et al., arXiv 1706.04599, section 4.2), by golden-section search."""

    def cost(log_t: float) -> float:
        temperature, value = 2.718281828**log_t, 0.0
        for task, row in zip(tasks, logits, strict=True):
            scores = torch.tensor(row) / temperature
            gold = torch.tensor([name in task.gold for name in task.fleet.names])
            value += float(scores.logsumexp(0) - scores[gold].logsumexp(0))
        return value

    low, high = -1.6, 1.6
    ratio = 0.6180339887
    for _ in range(30):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if cost(a) < cost(b):
            high = b
        else:
            low = a
    return 2.718281828 ** ((low + high) / 2)


@torch.no_grad()
def fit_scope(model: BitMar, batches: Batches) -> dict[str, float]:
    """Shift the scope score so that held-out rewordings and neighbours are told apart best (harmonic mean of both shares)."""
    families = batches.held_families
    if len(families) < 2:
        return {}
    model.eval()
    batch = batches.memory_batch(families, random.Random(0), candidates=min(8, len(families)), every=True)
    output, _, _ = remembered(model, batch)
    assert output.memory is not None
    scope = output.memory.scope
    # The best-placed slot decides whether a request is taken for a remembered case at all.
    inside = (batch.owner >= 0).tolist()
    own = [float(row[label > 0].max()) if hit else float(row.max()) for row, label, hit in zip(scope, batch.scope, inside, strict=True)]
    same, near = [s for s, hit in zip(own, inside, strict=True) if hit], [s for s, hit in zip(own, inside, strict=True) if not hit]
    best, score, rates = 0.0, -1.0, (0.0, 0.0)
    for threshold in sorted(own):
        follow, keep = sum(s > threshold for s in same) / len(same), sum(s <= threshold for s in near) / len(near)
        harmonic = 2 * follow * keep / max(1e-9, follow + keep)
        if harmonic > score:
            best, score, rates = threshold, harmonic, (follow, keep)
    model.memory.scope_output.bias.sub_(best + 1e-3)
    return {"families": len(families), "rewordings_followed": round(rates[0], 4), "neighbours_kept": round(rates[1], 4), "shift": round(best, 4)}


def load_text_encoder(model: BitMar, path: Path) -> None:
    """Take over a distilled text encoder (`encoder.safetensors` of `distill_text`)."""
    from safetensors.torch import load_file

    model.encoder.load_state_dict(load_file(path))


def log(out: Path, record: dict[str, Any]) -> None:
    """Append a line to the run's event log."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")


def words_of(corpus: Corpus) -> list[str]:
    """Every written text of the corpus whose sentence vector is a target."""
    texts: set[str] = set()
    for task in [*corpus.tasks, *corpus.fleets]:
        texts |= {task.thinking, task.environment, task.reasoning, task.doubt, *task.verdicts.values()}
    return sorted(texts - {""})


def chain_tasks(corpus: Corpus, holdout: float) -> tuple[list[RobotTask], list[RobotTask]]:
    """Tasks whose chain was written: to train on, and held out."""
    written = [t for t in [*corpus.tasks, *corpus.fleets] if t.has_chain or t.reasoning]
    return [t for t in written if not held_out(t.group, holdout)], [t for t in written if held_out(t.group, holdout) and t.has_chain]


def run(config: BitMarConfig, sources: Sources, out: Path, *, save_every: int = 200) -> Iterator[Stage | TrainStep]:
    """Run every stage into `out`; the checkpoint is `out/bitmar-<preset>`.

    Yields `TrainStep` after each optimiser step and `Stage` with the figures at the end of each stage.

    Raises:
        MissingError: a source is not there. BitMarError: a source is refused, or the loss is not finite.
    """
    for path in (sources.data, sources.reader, sources.text_encoder, sources.vision, sources.photo_features, sources.photo_index):
        if path is not None and not path.exists():
            raise MissingError(f"no {path}; see docs/training.md for how it is made")
    training = config.training
    out.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(sources.data)
    writer_file = out / "decoder.json"
    if not writer_file.exists():
        train_bpe(writer_texts(corpus), config.decoder.vocab_size, writer_file)
    reader, writer = ReaderTokenizer(sources.reader, config.text.max_tokens), WriterTokenizer(writer_file)
    if reader.size > config.text.vocab_size:
        raise BitMarError(f"{sources.reader} has {reader.size} tokens; set text.vocab_size to at least that")
    variants = FleetVariants(sources.data / "card_variants.yaml", reader)
    photos = None
    if sources.photo_features is not None and sources.photo_index is not None:
        photos = PhotoFeatures.load(sources.photo_features, sources.photo_index, skip=set(sources.skip_photos))
    vectors = SentenceVectors.compute(words_of(corpus), out / "vectors.safetensors")
    batches = Batches(
        corpus, reader, batch_size=training.batch_size, holdout=training.holdout, seed=training.seed, variants=variants, photos=photos, vectors=vectors
    )
    torch.manual_seed(training.seed)
    model = create_bitmar_model(config)
    if sources.text_encoder is not None:
        load_text_encoder(model, sources.text_encoder)
    yield from _logged(out, train_robots(model, batches, config, out=out / "selection", vector_width=vectors.width, save_every=save_every))
    measured: dict[str, Any] = {}
    held = [*batches.held, *batches.held_fleets]
    if held:
        _, logits = choose(model, held, reader)
        model.calibration.fill_(fit_temperature(held, logits))
        for name, tasks in (("held_out_tasks", batches.held), ("held_out_fleets", batches.held_fleets)):
            if tasks:
                measured[name] = figures(tasks, choose(model, tasks, reader)[0])
    measured["scope"] = fit_scope(model, batches)
    yield _stage(out, "selection", measured | {"temperature": float(model.calibration)})
    lines = read_yaml(sources.data / "no_robot_lines.yaml", error=BitMarError)
    learn, keep = chain_tasks(corpus, training.holdout)
    data, unseen = (ChainData(tasks, reader, writer, variants, lines, config) for tasks in (learn, keep))
    yield from _logged(out, train_writing(model, data, config, out=out / "writing", save_every=save_every))
    if keep:
        measured["perplexity"] = round(perplexity(model, unseen), 3)
    yield _stage(out, "writing", measured)
    # Only whole chains can be spoilt in a known way.
    whole = ChainData([t for t in learn if t.has_chain], reader, writer, variants, lines, config)
    yield from _logged(out, train_quality(model, whole, config, out=out / "quality", save_every=save_every))
    if keep:
        measured["quality_auc"] = quality_auc(model, unseen)
    yield _stage(out, "quality", measured)
    yield _stage(out, "packed", pack(model, config, sources, out, measured))


def pack(model: BitMar, config: BitMarConfig, sources: Sources, out: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint folder; returns where it is and its size in bytes."""
    from bitmar_core.checkpoint.folder import VISION, save_checkpoint

    files = {config.text.tokenizer: sources.reader, config.decoder.tokenizer: out / "decoder.json"}
    if sources.vision is not None:
        from bitmar_core.model.vision_encoder import load_compact_encoder, save_vision_file

        save_vision_file(load_compact_encoder(sources.vision), out / VISION)
        files[VISION] = out / VISION
    folder = out / f"bitmar-{config.preset}"
    info = {"recipe": "bitmar train robots (docs/training.md)", "seed": config.training.seed, "measured": measured}
    save_checkpoint(model, folder, files=files, info=info)
    return {"path": str(folder), "bytes": sum(f.stat().st_size for f in folder.iterdir())}


def writer_texts(corpus: Corpus) -> list[str]:
    """What the decoder's tokenizer is trained on: tasks and everything written about them."""
    texts = [t.text for t in [*corpus.tasks, *corpus.fleets]]
    texts += [text for family in corpus.families for text in (family.task, *family.same)]
    return [" " + text for text in [*texts, *words_of(corpus)]]


def _stage(out: Path, name: str, measured: dict[str, Any]) -> Stage:
    log(out, {"stage": name, **measured})
    return Stage(name=name, figures=measured)


def _logged(out: Path, steps: Iterator[TrainStep]) -> Iterator[TrainStep]:
    """Pass steps on; every tenth goes into the event log."""
    for step in steps:
        if step.step % 10 == 0 or step.step == step.total:
            log(
                out,
                {
                    "step": step.step,
                    "total": step.total,
                    "kind": step.kind,
                    "loss": step.loss,
                    "learning_rate": step.learning_rate,
                    "grad_norm": step.grad_norm,
                    **step.parts,
                },
            )
        yield step
