"""Checkpoint folders: what is served equals what was trained, and damage is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import build_checkpoint, random_candidates, random_inputs, tiny_config, tiny_model, with_gates
from safetensors.numpy import load_file, save_file

from bitmar_core.checkpoint.folder import (
    CONFIG,
    MANIFEST,
    MODEL,
    describe,
    digest,
    find_model,
    list_models,
    load_checkpoint,
    model_digest,
    read_manifest,
    save_checkpoint,
    verify,
)  # fmt: skip
from bitmar_core.checkpoint.packing import quantise_rows, restore_rows
from bitmar_core.checkpoint.state import load_training_state, save_training_state
from bitmar_core.errors import CheckpointError, ConfigError, ModelMissingError
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.bitmar import BitMar

TABLES = ("encoder.embedding.weight", "encoder.positions.weight", "decoder.embedding.weight")


@torch.no_grad()
def round_as_stored(model: BitMar) -> BitMar:
    """Embeddings through int8 rows, other parameters through float16; master weights of BitLinear stay as they are."""
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, BitLinear)}
    for name, p in model.named_parameters():
        if name in TABLES:
            p.copy_(torch.from_numpy(restore_rows(*quantise_rows(p.numpy()))))
        elif name not in linear and p.ndim:
            p.copy_(p.half().float())
    return model


def shaken(layout: str) -> BitMar:
    """A model none of whose parameters is at a value that rounding keeps by chance."""
    model = with_gates(tiny_model(tiny_config(layout=layout)), 0.3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    model.calibration.fill_(1.37)
    return model.eval()


@pytest.mark.parametrize("layout", ["bitnet", "bert"])
@torch.no_grad()
def test_served_outputs_equal_the_training_graph(tmp_path: Path, layout: str):
    """Bit for bit, once the trained model's embeddings, norms and heads are rounded as the file rounds them."""
    model = shaken(layout)
    save_checkpoint(model, tmp_path / "model", files={})
    served, config, _ = load_checkpoint(tmp_path / "model")
    inputs, candidates = random_inputs(config), random_candidates(config)
    call = inputs.call(candidates=candidates)
    unrounded, mine, theirs = model(**call), round_as_stored(model)(**call), served(**call)
    for name in ("logits", "probabilities", "step_logits", "suited_logits", "quality_logits", "memory_key"):
        assert torch.equal(getattr(theirs, name), getattr(mine, name)), name
        # And rounding takes little away: less than a tenth of the spread of the values.
        error, spread = (getattr(theirs, name) - getattr(unrounded, name)).abs().mean(), getattr(unrounded, name).std()
        assert float(error) < 0.1 * float(spread), (name, float(error), float(spread))


def test_loaded_models_are_frozen_and_in_evaluation_mode(checkpoint: Path):
    model, config, manifest = load_checkpoint(checkpoint)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(m.weight is None and m.ternary.dtype == torch.int8 for m in model.modules() if isinstance(m, BitLinear))
    assert config.preset == "tiny" and manifest["name"] == "tiny"
    assert not any(t.is_meta for t in [*model.state_dict().values(), *model.buffers()])


def test_saving_again_gives_the_same_bytes(tmp_path: Path):
    """A loaded model packs to the same ternary weights; a build is reproducible."""
    one, two = build_checkpoint(tmp_path / "a" / "m"), build_checkpoint(tmp_path / "b" / "m")
    assert (one / MODEL).read_bytes() == (two / MODEL).read_bytes()
    assert {k: v for k, v in read_manifest(one).items() if k != "files"} == {k: v for k, v in read_manifest(two).items() if k != "files"}
    model, _, _ = load_checkpoint(one)
    save_checkpoint(model, tmp_path / "again", files={})
    first, again = load_file(one / MODEL), load_file(tmp_path / "again" / MODEL)
    assert first.keys() == again.keys()
    for name, tensor in first.items():
        assert np.array_equal(tensor, again[name]) or name.endswith((".rows", ".row_scale")), name


def test_packed_size(checkpoint: Path):
    """1.6 bits a ternary weight, 8 an embedding, 16 the rest."""
    tensors = load_file(checkpoint / MODEL)
    model = tiny_model()
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            assert tensors[f"{name}.ternary"].nbytes == -(-module.in_features * module.out_features // 5)
    assert tensors["encoder.embedding.weight.rows"].dtype == np.int8
    assert {t.dtype.name for t in tensors.values()} == {"uint8", "int8", "float16", "float32"}
    assert all(t.ndim == 0 for t in tensors.values() if t.dtype == np.float32)


def test_manifest_and_digests(checkpoint: Path):
    manifest = read_manifest(checkpoint)
    assert set(manifest["files"]) == {f.name for f in checkpoint.iterdir()} - {MANIFEST}
    assert {"tokenizer.json", "decoder.json", CONFIG, MODEL} <= set(manifest["files"])
    assert manifest["files"][MODEL] == digest(checkpoint / MODEL)
    assert model_digest(manifest) == manifest["files"][MODEL][:16]
    assert verify(checkpoint) == []


def test_info_goes_into_the_manifest(tmp_path: Path):
    save_checkpoint(tiny_model(), tmp_path / "m", files={}, info={"recipe": {"epochs": 3}})
    assert read_manifest(tmp_path / "m")["recipe"] == {"epochs": 3}


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(folder: Path, change) -> None:
    """Change the tensors of a checkpoint and write the digest that fits."""
    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file(tensors, folder / MODEL)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][MODEL] = digest(folder / MODEL)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def spoil(name: str, value: float):
    def change(tensors: dict) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1)[0] = value

    return change


SCALE = "decoder.step_projection.scale"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("chosen"), "the tensor chosen is missing"),
        (lambda t: t.pop(SCALE), f"the tensor {SCALE} is missing"),
        (lambda t: t.update(extra=np.zeros(2, np.float16)), "the tensor extra belongs to no part"),
        (lambda t: t.update(chosen=np.zeros(3, np.float16)), "chosen has shape"),
        (lambda t: t.update({"decoder.step_projection.ternary": np.zeros(3, np.uint8)}), "cannot hold 1024 weights"),
        (spoil("decoder.step_projection.ternary", 250), "byte 250"),
        (spoil("chosen", float("nan")), "the tensor chosen holds values that are not finite"),
        (spoil(SCALE, float("inf")), f"the tensor {SCALE} holds values that are not finite"),
        (spoil("encoder.embedding.weight.row_scale", float("nan")), "row_scale holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copied: Path, change, words: str):
    edit(copied, change)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copied)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "install the checkpoint again" in str(caught.value)
    assert [words in problem for problem in verify(copied)] == [True]


@pytest.mark.parametrize("at", [0, 4, 100, 4000, -1])
def test_a_changed_byte_is_found(copied: Path, at: int):
    data = bytearray((copied / MODEL).read_bytes())
    data[at] ^= 0x10
    (copied / MODEL).write_bytes(bytes(data))
    assert verify(copied) == [f"{MODEL} is not what the manifest says (SHA-256 differs)"]


@pytest.mark.parametrize("keep", [0, 3, 8, 2000])
def test_a_file_that_was_cut_short(copied: Path, keep: int):
    (copied / MODEL).write_bytes((copied / MODEL).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(copied)


def test_missing_files(copied: Path):
    (copied / "decoder.json").unlink()
    assert verify(copied) == ["decoder.json is missing"]
    (copied / MODEL).unlink()
    with pytest.raises(ModelMissingError, match="model.safetensors is missing"):
        load_checkpoint(copied)
    (copied / MANIFEST).unlink()
    with pytest.raises(ModelMissingError, match="manifest.json is missing"):
        load_checkpoint(copied)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": 3}', "null", '{"format": 1}'])
def test_damaged_manifests(copied: Path, text: str):
    (copied / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(copied)
    assert len(verify(copied)) == 1


def test_manifest_that_points_outside(copied: Path):
    manifest = json.loads((copied / MANIFEST).read_text())
    manifest["files"]["../secret"] = "0"
    (copied / MANIFEST).write_text(json.dumps(manifest))
    assert verify(copied) == ["../secret is missing"]


def test_newer_format(copied: Path):
    manifest = json.loads((copied / MANIFEST).read_text()) | {"format": 2}
    (copied / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="has checkpoint format 2; this program reads format 1: update"):
        load_checkpoint(copied)


def test_config_that_does_not_fit(copied: Path):
    text = (copied / CONFIG).read_text()
    (copied / CONFIG).write_text(text.replace("vocab_size: 600", "vocab_size: 700"))
    with pytest.raises(CheckpointError, match="the configuration needs"):
        load_checkpoint(copied)
    (copied / CONFIG).write_text("text: 3\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_checkpoint(copied)


def test_find_model(checkpoint: Path, tmp_path: Path):
    from bitmar_core import paths

    shutil.copytree(checkpoint, paths.home() / "models" / "mine")
    assert find_model("mine") == paths.home() / "models" / "mine"
    assert find_model(checkpoint) == checkpoint
    entry = next(e for e in list_models() if e.name == "mine")
    assert entry.bytes == sum(f.stat().st_size for f in checkpoint.iterdir())
    with pytest.raises(ModelMissingError, match="no model 'yours'; installed: .*mine"):
        find_model("yours")


def test_describe(checkpoint: Path):
    facts = describe(checkpoint)
    assert facts["parameters"] == sum(facts["parameters_by_part"].values())
    assert 0.3 < facts["sparsity"] < 0.5 and 0 < facts["ternary_share"] < 1
    assert facts["bytes_on_disk"] == sum(f.stat().st_size for f in checkpoint.iterdir())
    json.dumps(facts)


def test_training_state_goes_on_as_if_never_stopped(tmp_path: Path):
    """Three steps and three more equal six."""

    def start() -> tuple[BitLinear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = BitLinear(8, 4, bias=True)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.01)

    def go(layer: BitLinear, optimiser: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()

    whole, optimiser = start()
    go(whole, optimiser, range(6))
    part, optimiser = start()
    go(part, optimiser, range(3))
    save_training_state(tmp_path, {"layer": part}, optimiser, 3)
    fresh, optimiser = start()
    assert load_training_state(tmp_path / "nowhere", {"layer": fresh}, optimiser) == 0
    assert load_training_state(tmp_path, {"layer": fresh}, optimiser) == 3
    go(fresh, optimiser, range(3, 6))
    assert torch.equal(fresh.weight, whole.weight) and torch.equal(fresh.bias, whole.bias)
