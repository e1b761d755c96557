"""Teach the compact vision encoder to see work sites: from a MobileNet warm start, with soft scene labels from a Places365 network.

    python -m bitmar_core.training.distill_vision --photos DIR --teachers DIR --out DIR [--epochs N] [--seed N] [--exclude FILE.jsonl]

--photos   one folder per environment, photos inside; folders whose name ends in `_gray` hold greyscale photos,
           and a folder named `imagenet_sample*` belongs to no environment
--teachers `mobilenet_v1_embedding.tflite`, and `photos_index.txt` with `photos_places365.safetensors` (one row a line of the index)
--exclude  JSON lines whose `image` names photos that must not be trained on (a development set)

The same command goes on where it was stopped (`--out`/state.pt, after each epoch).
Letters in shapes: B batch, N photos, D width, E environments, C scene categories of Places365.

Colour must not give an environment away. Half of the views of every photo are grey, and a colour view is only asked to tell apart
those environments that exist in colour, so that "it is grey" is never evidence. Environments that differ only in where the photos came
from (`kitchen`, `kitchen_gray`, `kitchen_home`) are one class here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.data.images import load_image, to_square
from bitmar_core.errors import BitMarError, MissingError
from bitmar_core.model.vision_encoder import (
    CompactVisionConfig,
    CompactVisionEncoder,
    pack_int8,
    save_compact_encoder,
    unpack_int8,
)

TEACHER = "mobilenet_v1_embedding.tflite"
VALIDATION_SHARE = 0.12


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """Every photo that the index names, decoded once; the folder is the environment."""

    names: list[str]
    squares: Tensor
    """(N, 3, S, S) uint8"""
    folders: list[str]
    """the environments and, apart from them, folders without one"""
    folder_of: Tensor
    """(N,) index into `folders`"""
    split: Tensor
    """(N,) 0 train, 1 validation, 2 excluded"""

    def rows(self, split: int, *, labelled: bool = False) -> Tensor:
        keep = self.split == split
        if labelled:
            keep &= torch.tensor([has_environment(f) for f in self.folders])[self.folder_of]
        return keep.nonzero().flatten()


def has_environment(folder: str) -> bool:
    return not folder.startswith("imagenet_sample")


def scene_class(folder: str) -> str:
    """The environment without the collection it came from: kitchen_gray and kitchen_home are kitchens."""
    return folder.removesuffix("_gray").removesuffix("_home")


def is_validation(content: bytes, share: float = VALIDATION_SHARE) -> bool:
    """By content, so that a copy of a photo is always on the same side."""
    return int(hashlib.sha256(content).hexdigest()[:8], 16) / 16**8 < share


def load_photos(folder: Path, names: Sequence[str], excluded: set[str], size: int, say: Callable[[str], None]) -> Photos:
    """Decode and cut all photos the way they are served (`to_square`)."""
    folders = sorted({name.split("/")[0] for name in names})
    squares = torch.empty((len(names), 3, size, size), dtype=torch.uint8)
    split = torch.zeros(len(names), dtype=torch.long)
    excluded_content = {hashlib.sha256((folder / name).read_bytes()).digest() for name in excluded if (folder / name).is_file()}
    for row, name in enumerate(names):
        content = (folder / name).read_bytes()
        squares[row] = image_to_bytes(load_image(folder / name), size)
        if name in excluded or hashlib.sha256(content).digest() in excluded_content:
            split[row] = 2
        else:
            split[row] = int(is_validation(content))
        if row % 2000 == 1999:
            say(f"decoded {row + 1} of {len(names)} photos")
    folder_of = torch.tensor([folders.index(name.split("/")[0]) for name in names])
    return Photos(list(names), squares, folders, folder_of, split)


def image_to_bytes(image: Any, size: int) -> Tensor:
    """PIL picture -> (3, S, S) uint8"""
    import numpy as np

    return torch.from_numpy(np.array(to_square(image, size))).permute(2, 0, 1)


def excluded_names(file: Path | None) -> set[str]:
    """`folder/photo.jpg` of every `image` in a JSON-lines file."""
    if file is None:
        return set()
    lines = file.read_text(encoding="utf-8").splitlines()
    return {"/".join(Path(json.loads(line)["image"]).parts[-2:]) for line in lines if line.strip()}


LUMA = (0.299, 0.587, 0.114)


def grey(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 or 0..255 as float -> the same in grey, three equal channels; weights of ITU-R BT.601."""
    return (pixels * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(pixels)


def augment(squares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) uint8 -> views (B, 3, S, S) float in 0..1, and (B,) True where the view is grey.

    Random crop of 35 to 100 % of the area, stretched by up to 4 : 3, flipped half the time, small rotation, brightness, contrast,
    saturation and white balance; half of the views grey.
    """
    count = squares.shape[0]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator) * (high - low) + low

    pixels = squares.float() / 255
    area, stretch = uniform(0.35, 1.0), torch.exp(uniform(-0.14, 0.14))
    wide, high = (area.sqrt() * stretch).clamp(max=1.0), (area.sqrt() / stretch).clamp(max=1.0)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    angle = uniform(-0.1, 0.1)
    shift_x, shift_y = uniform(-1, 1) * (1 - wide), uniform(-1, 1) * (1 - high)
    rows = [
        torch.stack([wide * flip * angle.cos(), -high * angle.sin(), shift_x], dim=1),
        torch.stack([wide * flip * angle.sin(), high * angle.cos(), shift_y], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)

    # A grey photo has grey views only: tinted it would be a third kind, found in the `_gray` collections alone.
    is_grey = (uniform(0, 1) < 0.5) | (pixels.amax(1) - pixels.amin(1) < 0.02).flatten(1).float().mean(1).gt(0.98)
    grey_pixels = grey(pixels)
    saturation = uniform(0.5, 1.4, 1, 1, 1)
    balance = uniform(0.9, 1.1, 3, 1, 1)
    coloured = (grey_pixels + (pixels - grey_pixels) * saturation) * balance
    pixels = torch.where(is_grey.view(-1, 1, 1, 1), grey_pixels, coloured)
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - middle) * uniform(0.6, 1.4, 1, 1, 1) + middle) * uniform(0.7, 1.3, 1, 1, 1)
    return pixels.clamp(0, 1), is_grey


def normalise(pixels: Tensor, encoder: CompactVisionEncoder) -> Tensor:
    """(B, 3, H, W) in 0..1 -> as the encoder wants them, channels last in memory (twice as fast on a CPU)"""
    mean, std = torch.tensor(encoder.mean).view(1, 3, 1, 1), torch.tensor(encoder.std).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


# --- teachers --------------------------------------------------------------------------------------------------------


def mobilenet_weights(file: Path) -> dict[str, Tensor]:
    """The constants of the TensorFlow Lite MobileNet v1 (1.0, 224), dequantised, under our names.

    TFLite keeps a convolution's weights as (out, H, W, in) and a depthwise one's as (1, H, W, channels); batch norm is folded in.
    """
    interpreter = _interpreter(file)
    details = {d["index"]: d for d in interpreter.get_tensor_details()}

    def dequantised(index: int) -> Tensor:
        value, quantisation = interpreter.get_tensor(index), details[index]["quantization_parameters"]
        scale, zero = float(quantisation["scales"][0]), int(quantisation["zero_points"][0])
        return torch.from_numpy((value.astype("float32") - zero) * scale)

    ops = [o for o in interpreter._get_ops_details() if o["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    state = {}
    for number, op in enumerate(ops):
        _, weight, bias = op["inputs"]
        depthwise = op["op_name"] == "DEPTHWISE_CONV_2D"
        name = "stem" if number == 0 else f"blocks.{(number - 1) // 2}.{'depthwise' if depthwise else 'pointwise'}"
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        state[f"{name}.weight"] = dequantised(weight).permute(*order).contiguous()
        state[f"{name}.bias"] = dequantised(bias)
    return state


def _interpreter(file: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingError("distilling needs the package ai-edge-litert: pip install ai-edge-litert") from None
    if not file.is_file():
        raise MissingError(f"{file}: this teacher is missing; put the MobileNet v1 embedding model there")
    interpreter = Interpreter(str(file), num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    return interpreter


def mobilenet_embeddings(file: Path, squares: Tensor) -> Tensor:
    """What the teacher itself says: (N, 3, S, S) uint8 -> (N, D), by its own eight-bit arithmetic."""
    interpreter = _interpreter(file)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]
    scale, zero = target["quantization"]
    rows = []
    for square in squares:
        interpreter.set_tensor(source, square.permute(1, 2, 0)[None].contiguous().numpy())
        interpreter.invoke()
        rows.append((torch.from_numpy(interpreter.get_tensor(target["index"]).copy()).float().flatten() - zero) * scale)
    return torch.stack(rows)


# --- measuring -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(encoder: CompactVisionEncoder, squares: Tensor, *, in_grey: bool = False) -> Tensor:
    """(N, 3, S, S) uint8 -> pooled (N, D) float32; worked in bfloat16, which moves them by a cosine of 0.002 at most"""
    encoder.eval()
    rows = []
    for batch in squares.split(64):
        pixels = batch.float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(encoder(normalise(grey(pixels) if in_grey else pixels, encoder)).pooled.float())
    return torch.cat(rows)


def linear_probe(train: Tensor, train_labels: Tensor, classes: int, steps: int = 400) -> Callable[[Tensor], Tensor]:
    """Logistic regression on standardised features, full batch: (N, D) -> a function from (M, D) to predicted classes (M,)"""
    mean, std = train.mean(0), train.std(0) + 1e-3
    weight = torch.zeros(train.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=3e-3)
    inputs = (train - mean) / std
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 + math.cos(math.pi * step / steps)) / 2
        loss = F.cross_entropy(inputs @ weight + bias, train_labels) + 2e-3 * weight.square().sum() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return lambda x: (((x - mean) / std) @ weight + bias).argmax(1).detach()


def probe_report(photos: Photos, colour: Tensor, grey_version: Tensor) -> dict[str, float]:
    """Linear probes of the 48 environments on pooled features, fitted on training photos, measured on validation photos.

    `colour`, `grey_version`: (N, D). Both versions of each training photo are fitted on. `of_colour_*` looks at those photos only
    that exist in colour: there, grey must do about as well as colour. `shortcut` is the share of grey versions of colour photos that are
    taken for an environment of the `_gray` collections: what is left of the belief that grey means such a collection.
    """
    names = [f for f in photos.folders if has_environment(f)]
    label_of = torch.tensor([names.index(f) if has_environment(f) else -1 for f in photos.folders])
    scenes = sorted({scene_class(n) for n in names})
    scene_of = torch.tensor([scenes.index(scene_class(n)) for n in names])
    from_grey = torch.tensor([n.endswith("_gray") for n in names])
    train = photos.rows(0, labelled=True)
    test = photos.rows(1, labelled=True)
    truth, train_truth = label_of[photos.folder_of[test]], label_of[photos.folder_of[train]]
    predict = linear_probe(torch.cat([colour[train], grey_version[train]]), torch.cat([train_truth, train_truth]), len(names))
    in_colour, in_grey = predict(colour[test]), predict(grey_version[test])
    coloured = ~from_grey[truth]

    def accuracy(guess: Tensor, keep: Tensor | None = None) -> float:
        right = (guess == truth) if keep is None else (guess == truth)[keep]
        return round(right.float().mean().item(), 4)

    def scene_accuracy(guess: Tensor, keep: Tensor) -> float:
        return round((scene_of[guess] == scene_of[truth])[keep].float().mean().item(), 4)

    everything = torch.ones_like(coloured)
    return {
        "photos": len(test),
        "photos_fitted_on": len(train),
        "photos_in_colour": int(coloured.sum()),
        "colour": accuracy(in_colour),
        "grey": accuracy(in_grey),
        "scene_colour": scene_accuracy(in_colour, everything),
        "scene_grey": scene_accuracy(in_grey, everything),
        "of_colour_in_colour": accuracy(in_colour, coloured),
        "of_colour_in_grey": accuracy(in_grey, coloured),
        "of_colour_scene_in_colour": scene_accuracy(in_colour, coloured),
        "of_colour_scene_in_grey": scene_accuracy(in_grey, coloured),
        "shortcut": round(from_grey[in_grey][coloured].float().mean().item(), 4),
    }


def places_agreement(photos: Photos, pooled: Tensor, places: Tensor) -> float:
    """R2-like share: 1 - KL(teacher | linear probe) / KL(teacher | mean of teacher) on validation photos, folders ignored."""
    train, test = photos.rows(0), photos.rows(1)
    mean, std = pooled[train].mean(0), pooled[train].std(0) + 1e-3
    head = nn.Linear(pooled.shape[1], places.shape[1])
    nn.init.zeros_(head.weight)
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 + math.cos(math.pi * step / 300)) / 2
        loss = -(places[train] * F.log_softmax(head((pooled[train] - mean) / std), 1)).sum(1).mean()
        loss = loss + 1e-3 * head.weight.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    entropy = -(places[test] * places[test].clamp(min=1e-9).log()).sum(1).mean()
    with torch.no_grad():
        cross = -(places[test] * F.log_softmax(head((pooled[test] - mean) / std), 1)).sum(1).mean()
    blind = -(places[test] * places[train].mean(0).clamp(min=1e-9).log()).sum(1).mean()
    return round(1 - ((cross - entropy) / (blind - entropy)).item(), 4)


def int8_version(encoder: CompactVisionEncoder) -> CompactVisionEncoder:
    """A copy that computes with the weights as eight-bit storage gives them back."""
    copy = CompactVisionEncoder(encoder.config)
    copy.load_state_dict(unpack_int8(pack_int8(encoder.state_dict())))
    return copy.to(memory_format=torch.channels_last)


def ternary_version(encoder: CompactVisionEncoder, first: int = 0) -> CompactVisionEncoder:
    """A copy whose 1x1 convolutions from block `first` on are ternary, per channel; w = gamma * sign(w) where |w| > 2/3 gamma."""
    copy = CompactVisionEncoder(encoder.config)
    copy.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        for block in copy.blocks[first:]:
            weight = block.pointwise.weight
            gamma = weight.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-5)
            kept = weight.abs() > gamma * 2 / 3
            # the scale that loses least, given which weights are kept
            scale = (weight.abs() * kept).sum((1, 2, 3), keepdim=True) / kept.sum((1, 2, 3), keepdim=True).clamp(min=1)
            weight.copy_(weight.sign() * kept * scale)
    return copy.to(memory_format=torch.channels_last)


# --- losses and loop -------------------------------------------------------------------------------------------------


def soft_label_loss(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """KL(teacher^(1/T) | student) * T^2 (Hinton et al. 2015, section 2). logits, probabilities: (B, C) -> ()"""
    teacher = F.log_softmax(probabilities.clamp(min=1e-6).log() / temperature, dim=1)
    student = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def environment_loss(logits: Tensor, labels: Tensor, is_grey: Tensor, only_grey: Tensor) -> Tensor:
    """Cross-entropy over environments; for colour views those that exist in grey only are not among the choices.

    logits (B, E); labels (B,), -1 for photos without an environment; is_grey (B,); only_grey (E,) -> ()
    """
    # In case a photo of a grey-only environment is not quite grey: its own class must stay among the choices.
    is_grey = is_grey | (only_grey[labels.clamp(min=0)] & (labels >= 0))
    logits = logits.masked_fill(~is_grey[:, None] & only_grey[None, :], -1e4)
    known = labels >= 0
    if not known.any():
        return logits.sum() * 0
    return F.cross_entropy(logits[known], labels[known], label_smoothing=0.0)


def run(args: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> dict:
    """Load, measure the warm start, train, measure again, save. Returns what meta.json holds."""
    from safetensors.torch import load_file

    started = time.time()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    needed = [args.photos, args.teachers / TEACHER, args.teachers / "photos_index.txt", args.teachers / "photos_places365.safetensors"]
    for path in [*needed, *([args.exclude] if args.exclude else [])]:
        if not path.exists():
            raise MissingError(f"{path}: there is nothing here; check --photos, --teachers and --exclude")
    names = (args.teachers / "photos_index.txt").read_text(encoding="utf-8").split()
    places = next(iter(load_file(args.teachers / "photos_places365.safetensors").values())).float()  # (N, C)
    config = CompactVisionConfig()
    photos = load_photos(args.photos, names, excluded_names(args.exclude), config.image_size, say)
    train = photos.rows(0)
    say(f"{len(train)} photos to train on, {len(photos.rows(1))} validation, {len(photos.rows(2))} excluded")

    encoder = CompactVisionEncoder(config)
    encoder.load_state_dict(mobilenet_weights(args.teachers / TEACHER))
    encoder = encoder.to(memory_format=torch.channels_last)
    target = teacher_targets(encoder, photos, args.out / "targets.safetensors")  # (N, D)
    say(f"teacher embeddings done after {time.time() - started:.0f} s")

    labels, only_grey = environment_labels(photos)
    heads = nn.ModuleDict(
        {
            "places": nn.Linear(encoder.width, places.shape[1]),
            "environment": nn.Linear(encoder.width, len(only_grey)),
        }
    )  # thrown away afterwards
    for parameter in [p for part in [encoder.stem, *encoder.blocks[: args.freeze]] for p in part.parameters()]:
        parameter.requires_grad_(False)
    trunk = [p for p in encoder.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trunk if p.dim() > 1], "peak": args.lr, "weight_decay": 1e-4},
        {"params": [p for p in trunk if p.dim() == 1], "peak": args.lr, "weight_decay": 0.0},
        {"params": list(heads.parameters()), "peak": 2e-3, "weight_decay": 1e-2},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.lr)
    steps_per_epoch = len(train) // args.batch
    total = args.epochs * steps_per_epoch
    first_epoch, log, state_file = 0, [], args.out / "state.pt"
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        if state["seed"] != args.seed:
            raise BitMarError(f"{state_file}: belongs to a run with seed {state['seed']}; delete it or choose another --out")
        if state["epochs"] != args.epochs:
            say(f"this run was planned for {state['epochs']} epochs, now for {args.epochs}: the learning rate follows the new plan")
        encoder.load_state_dict(state["encoder"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        first_epoch, log = state["epoch"], state["log"]
        say(f"going on after epoch {first_epoch}")

    for epoch in range(first_epoch, args.epochs):
        generator = torch.Generator().manual_seed(args.seed * 1000 + epoch)  # so that a resumed run sees the same views
        order = train[torch.randperm(len(train), generator=generator)]
        sums = torch.zeros(3)
        encoder.train()
        for step in range(steps_per_epoch):
            done = epoch * steps_per_epoch + step
            for group in optimiser.param_groups:
                warm_up = min(1.0, (done + 1) / 60)
                group["lr"] = group["peak"] * warm_up * (0.02 + 0.98 * (1 + math.cos(math.pi * done / total)) / 2)
            rows = order[step * args.batch : (step + 1) * args.batch]
            views, is_grey = augment(photos.squares[rows], generator)
            with torch.autocast("cpu", torch.bfloat16):
                pooled = encoder(normalise(views, encoder)).pooled  # (B, D)
            pooled = pooled.float()
            losses = torch.stack(
                [
                    soft_label_loss(heads["places"](pooled), places[rows], temperature=2.0),
                    environment_loss(heads["environment"](pooled), labels[rows], is_grey, only_grey),
                    (1 - F.cosine_similarity(pooled, target[rows], dim=1)).mean(),
                ]
            )
            loss = (losses * torch.tensor([0.5, args.environment_weight, args.cosine_weight])).sum()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*trunk, *heads.parameters()], 5.0)
            optimiser.step()
            sums += losses.detach()
            if step % 50 == 49:
                means = (sums / (step + 1)).tolist()
                say(f"epoch {epoch + 1}/{args.epochs} step {step + 1}/{steps_per_epoch} "
                    f"places {means[0]:.3f} environment {means[1]:.3f} cosine {means[2]:.3f} ({time.time() - started:.0f} s)")  # fmt: skip
        mean_losses = dict(zip(("places", "environment", "cosine"), (sums / steps_per_epoch).tolist(), strict=True))
        log.append({k: round(v, 4) for k, v in mean_losses.items()})
        state = {"encoder": encoder.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict(),
                 "epoch": epoch + 1, "epochs": args.epochs, "seed": args.seed, "log": log}  # fmt: skip
        torch.save(state, args.out / "state.pt.part")
        (args.out / "state.pt.part").replace(state_file)

    meta = {
        "started_from": "MobileNet v1 1.0 224 (Apache-2.0), eight-bit TensorFlow Lite file, dequantised",
        "sha256_of_teacher": hashlib.sha256((args.teachers / TEACHER).read_bytes()).hexdigest(),
        "sha256_of_photo_index": hashlib.sha256((args.teachers / "photos_index.txt").read_bytes()).hexdigest(),
        "seed": args.seed, "epochs": args.epochs, "frozen_blocks": args.freeze, "lr": args.lr, "batch": args.batch,
        "environment_weight": args.environment_weight, "cosine_weight": args.cosine_weight,
        "photos": {"train": len(train), "validation": len(photos.rows(1)), "excluded": len(photos.rows(2))},
        "losses": log, "seconds": round(time.time() - started),
    }  # fmt: skip
    save_compact_encoder(encoder, args.out, meta)  # before measuring, which takes minutes
    if args.measure_photos:
        meta["figures"] = measure(encoder, photos, places, args.teachers / TEACHER, say, args.measure_photos)
        save_compact_encoder(encoder, args.out, meta)
    say(f"saved in {args.out} after {time.time() - started:.0f} s")
    return meta


def teacher_targets(warm_start: CompactVisionEncoder, photos: Photos, cache: Path) -> Tensor:
    """What the warm start says of each undistorted colour photo, of length 1: (N, D). Kept on disk for the next start."""
    from safetensors.torch import load_file, save_file

    if cache.is_file():
        pooled = load_file(cache)["pooled"].float()
        if len(pooled) == len(photos.names):
            return F.normalize(pooled, dim=1)
    pooled = features(warm_start, photos.squares)
    save_file({"pooled": pooled.half()}, cache)
    return F.normalize(pooled, dim=1)


def environment_labels(photos: Photos) -> tuple[Tensor, Tensor]:
    """Scene class of each photo (N,), -1 without one; and which classes exist in grey only (E,)."""
    scenes = sorted({scene_class(f) for f in photos.folders if has_environment(f)})
    of_folder = torch.tensor([scenes.index(scene_class(f)) if has_environment(f) else -1 for f in photos.folders])
    only_grey = torch.ones(len(scenes), dtype=torch.bool)
    for folder, scene in zip(photos.folders, of_folder.tolist(), strict=True):
        if scene >= 0 and not folder.endswith("_gray"):
            only_grey[scene] = False
    return of_folder[photos.folder_of], only_grey


def measure(encoder: CompactVisionEncoder, photos: Photos, places: Tensor, teacher: Path, say: Callable[[str], None], train_photos: int = 3000) -> dict:
    """The same probe for the trained encoder, its eight-bit and ternary versions, the warm start and the teacher itself.

    Probes are fitted on `train_photos` of the training photos, drawn once, to keep the minutes down, and measured on all validation photos.
    """
    train = photos.rows(0)
    drawn = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:train_photos]]
    rows = torch.cat([drawn, photos.rows(1)])
    photos = Photos([photos.names[r] for r in rows], photos.squares[rows], photos.folders, photos.folder_of[rows], photos.split[rows])
    places, validation = places[rows], photos.rows(1)
    grey_squares = torch.cat([grey(batch.float()).round().to(torch.uint8) for batch in photos.squares[validation].split(256)])
    warm = CompactVisionEncoder(encoder.config)
    warm.load_state_dict(mobilenet_weights(teacher))
    warm = warm.to(memory_format=torch.channels_last)
    figures = {}

    def report(name: str, colour: Tensor, in_grey: Tensor) -> None:
        figures[name] = {**probe_report(photos, colour, in_grey), "places": places_agreement(photos, colour, places)}
        say(f"{name}: {figures[name]}")

    def swapped_in(base: Tensor, new: Tensor) -> Tensor:
        return base.index_copy(0, validation, new)

    base = {}
    for name, version in {"trained": encoder, "warm_start": warm}.items():
        base[name] = features(version, photos.squares), features(version, photos.squares, in_grey=True)
        report(name, *base[name])
    # What stores or computes otherwise is put in the place of the version that the probe was fitted on, as it would be in use.
    for name, version in {
        "trained_int8": int8_version(encoder),
        "trained_ternary_all_pointwise": ternary_version(encoder),
        "trained_ternary_last_two_pointwise": ternary_version(encoder, first=len(encoder.blocks) - 2),
    }.items():
        seen = features(version, photos.squares[validation]), features(version, photos.squares[validation], in_grey=True)
        report(name, *(swapped_in(b, s) for b, s in zip(base["trained"], seen, strict=True)))
    seen = mobilenet_embeddings(teacher, photos.squares[validation]), mobilenet_embeddings(teacher, grey_squares)
    report("teacher_tflite", *(swapped_in(b, s) for b, s in zip(base["warm_start"], seen, strict=True)))
    return figures


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bitmar_core.training.distill_vision", description=__doc__.splitlines()[0])
    p.add_argument("--photos", type=Path, required=True, help="one folder per environment")
    p.add_argument("--teachers", type=Path, required=True, help="MobileNet file, photo index and scene labels")
    p.add_argument("--out", type=Path, required=True, help="where weights, meta.json and the state of the run go")
    p.add_argument("--exclude", type=Path, help="JSON lines whose `image` must not be trained on")
    p.add_argument("--epochs", type=int, default=7)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=3e-4, help="peak learning rate of the encoder")
    p.add_argument("--freeze", type=int, default=5, help="stem and this many blocks stay as they are; half of the training time")
    p.add_argument("--environment-weight", type=float, default=0.5)
    p.add_argument("--cosine-weight", type=float, default=3.0)
    p.add_argument("--measure-photos", type=int, default=3000, help="training photos that probes are fitted on at the end; 0: no probes")
    p.add_argument("--threads", type=int, default=1)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    import sys

    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        run(args)
    except BitMarError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
