"""A checkpoint is a folder: `model.safetensors` (packed), `config.yaml`, `manifest.json`, the tokenizers, the vision encoder.

Packed: ternary matrices as base-3 bytes with their scale, embeddings as int8 rows with a scale each, the rest float16
(norms, biases, LSTM, heads). Nothing in it can run code. The manifest holds a SHA-256 of every other file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitmar_core import paths
from bitmar_core.errors import BitMarError, CheckpointError, ModelMissingError

if TYPE_CHECKING:
    from bitmar_core.config import BitMarConfig
    from bitmar_core.model.bitmar import BitMar

FORMAT = 1
MODEL, CONFIG, MANIFEST, VISION = "model.safetensors", "config.yaml", "manifest.json", "vision.safetensors"
DEFAULT_MODEL = "bitmar-small"


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """An installed checkpoint."""

    name: str
    path: Path
    bytes: int


def list_models() -> list[ModelEntry]:
    """Checkpoints shipped with the program and kept in the home folder, by name."""
    found = {}
    for root in (paths.home() / "models", paths.assets() / "models"):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / MANIFEST).is_file():
                    found[folder.name] = ModelEntry(name=folder.name, path=folder, bytes=sum(f.stat().st_size for f in folder.iterdir() if f.is_file()))
    return sorted(found.values(), key=lambda entry: entry.name)


def find_model(name: str | Path | None = None) -> Path:
    """Folder of a checkpoint: by path, by name, or the shipped one.

    Raises:
        ModelMissingError: none there; says what is installed.
    """
    if name is not None and (Path(name) / MANIFEST).is_file():
        return Path(name)
    wanted = DEFAULT_MODEL if name is None else str(name)
    entries = list_models()
    for entry in entries:
        if entry.name == wanted:
            return entry.path
    known = ", ".join(entry.name for entry in entries) or "none"
    raise ModelMissingError(f"no model {wanted!r}; installed: {known} (see `bitmar model list`)")


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def save_checkpoint(model: BitMar, folder: Path, *, files: dict[str, Path], info: dict[str, Any] | None = None) -> None:
    """Pack a model into `folder`.

    Args:
        files: further files to copy, by the name that they get (tokenizers, vision encoder).
        info: what the manifest says of its making: data, recipe, figures.
    """
    import yaml
    from safetensors.numpy import save

    from bitmar_core.model.bitlinear import BitLinear

    tensors: dict[str, np.ndarray] = {}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    for name, module in linear.items():
        ternary, scale = module.quantised_weight()
        packed = pack_checked(ternary.to(dtype=_int8()).numpy(), name)
        tensors[f"{name}.ternary"] = packed
        tensors[f"{name}.scale"] = np.asarray(float(scale), dtype=np.float32)
    skip = {f"{name}.{leaf}" for name in linear for leaf in ("weight", "ternary", "scale")}
    tables = {"encoder.embedding.weight", "encoder.positions.weight", "decoder.embedding.weight"}
    for name, tensor in model.state_dict().items():
        if name in skip:
            continue
        array = tensor.detach().float().numpy()
        if name in tables:
            from bitmar_core.checkpoint.packing import quantise_rows

            tensors[f"{name}.rows"], tensors[f"{name}.row_scale"] = quantise_rows(array)
        else:
            tensors[name] = array.astype(np.float32 if array.ndim == 0 else np.float16)
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(folder / MODEL, save(tensors, metadata={"format": str(FORMAT)}))
    paths.write_atomic(folder / CONFIG, yaml.safe_dump(model.config.to_dict(), sort_keys=False).encode())
    for name, source in files.items():
        if source.resolve() != (folder / name).resolve():
            paths.write_atomic(folder / name, source.read_bytes())
    names = sorted(f.name for f in folder.iterdir() if f.is_file() and f.name != MANIFEST and not f.name.startswith("."))
    manifest = {"format": FORMAT, "name": folder.name, "files": {n: digest(folder / n) for n in names}, **(info or {})}
    paths.write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def pack_checked(ternary: np.ndarray, name: str) -> np.ndarray:
    """Pack and make sure that it comes back the same."""
    from bitmar_core.checkpoint.packing import pack, unpack

    packed = pack(ternary)
    assert np.array_equal(unpack(packed, ternary.shape), ternary), name
    return packed


def _int8() -> Any:
    import torch

    return torch.int8


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        ModelMissingError: there is none.
        CheckpointError: it is not JSON, or of a newer format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelMissingError(f"no checkpoint in {folder}: {MANIFEST} is missing; name a checkpoint folder")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            raise ValueError("`files` is missing")
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); install the checkpoint again") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has checkpoint format {manifest.get('format')!r}; this program reads format {FORMAT}: update BitMar or the checkpoint")
    return manifest


def load_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The packed tensors of a checkpoint.

    Raises:
        CheckpointError: not safetensors, or cut short.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / MODEL
    if not path.is_file():
        raise ModelMissingError(f"{path} is missing; install the checkpoint again")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); install the checkpoint again") from error


def load_checkpoint(folder: Path) -> tuple[BitMar, BitMarConfig, dict[str, Any]]:
    """Load a packed model, frozen and in evaluation mode, with its configuration and manifest.

    Raises:
        ModelMissingError, CheckpointError: absent, damaged, not finite, or not fitting its own configuration.
    """
    import torch

    from bitmar_core.checkpoint.packing import restore_rows, unpack
    from bitmar_core.config import load_config
    from bitmar_core.model.bitlinear import BitLinear
    from bitmar_core.model.bitmar import create_bitmar_model

    manifest = read_manifest(folder)
    config = load_config(folder / CONFIG)
    tensors = load_tensors(folder)
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{folder / MODEL}: the tensor {name} holds values that are not finite; install the checkpoint again")
    with torch.device("meta"):
        model = create_bitmar_model(config)
    model = model.to_empty(device="cpu")
    state: dict[str, torch.Tensor] = {}
    try:
        for name, module in model.named_modules():
            if isinstance(module, BitLinear):
                ternary = unpack(tensors.pop(f"{name}.ternary"), (module.out_features, module.in_features))
                module.load_ternary(torch.from_numpy(ternary.copy()), torch.from_numpy(tensors.pop(f"{name}.scale").copy()))
        for name, tensor in model.state_dict().items():
            if name.endswith((".ternary", ".scale")) and name not in tensors:
                continue
            if f"{name}.rows" in tensors:
                array = restore_rows(tensors.pop(f"{name}.rows"), tensors.pop(f"{name}.row_scale"))
            else:
                array = tensors.pop(name).astype(np.float32)
            if array.shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {array.shape}, the configuration needs {tuple(tensor.shape)}")
            state[name] = torch.from_numpy(array)
        if tensors:
            raise ValueError(f"the tensor {sorted(tensors)[0]} belongs to no part of the model")
    except (KeyError, ValueError) as error:
        problem = f"the tensor {error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{folder / MODEL} does not fit its configuration: {problem}; install the checkpoint again") from error
    model.load_state_dict(state, strict=False, assign=True)
    model.set_default_fleet(torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.long))
    return model.eval().requires_grad_(False), config, manifest


def model_digest(manifest: dict[str, Any]) -> str:
    """What vectors made by a checkpoint are marked with: the digest of its weights."""
    return str(manifest["files"].get(MODEL, ""))[:16]


def verify(folder: str | Path) -> list[str]:
    """Problems of a checkpoint, none where it is sound: digests, readability, finite weights."""
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except BitMarError as error:
        return [str(error)]
    problems = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if "/" in name or "\\" in name or not path.is_file():
            problems.append(f"{name} is missing")
        elif digest(path) != expected:
            problems.append(f"{name} is not what the manifest says (SHA-256 differs)")
    if not problems:
        try:
            load_checkpoint(folder)
        except BitMarError as error:
            problems.append(str(error))
    return problems


def describe(folder: str | Path) -> dict[str, Any]:
    """What `bitmar model info` prints: parameters, the ternary share, sparsity, bytes on disk and in memory."""
    from bitmar_core.model.bitlinear import BitLinear

    folder = Path(folder)
    model, config, manifest = load_checkpoint(folder)
    ternary = zeros = 0
    parts: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            count = module.in_features * module.out_features
            ternary += count
            zeros += int((module.ternary == 0).sum())
            part = name.split(".")[0]
            parts[part] = parts.get(part, 0) + count
    rest = 0
    for name, tensor in model.state_dict().items():
        if not name.endswith(".ternary"):
            rest += tensor.numel()
            part = name.split(".")[0]
            parts[part] = parts.get(part, 0) + tensor.numel()
    resident = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return {
        "name": manifest.get("name", folder.name),
        "path": str(folder),
        "preset": config.preset,
        "parameters": ternary + rest,
        "ternary_share": round(ternary / (ternary + rest), 4),
        "sparsity": round(zeros / max(1, ternary), 4),
        "bytes_on_disk": sum(f.stat().st_size for f in folder.iterdir() if f.is_file()),
        "bytes_in_memory": resident,
        "parameters_by_part": dict(sorted(parts.items())),
        "calibration_temperature": round(float(model.calibration), 4),
    }
