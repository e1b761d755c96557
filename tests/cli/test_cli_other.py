"""`bitmar config`, `bitmar model` and `bitmar doctor`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitmar_core import config


@dataclass
class Entry:
    name: str
    path: Path
    bytes: int


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    from bitmar_cli import opening
    from bitmar_core.errors import ModelMissingError

    def find_model(name=None):
        for entry in fake.entries:
            if name in (None, entry.name):
                return entry.path
        raise ModelMissingError(f"no model {name!r}")

    fake = SimpleNamespace(
        entries=[Entry("bitmar-small", tmp_path / "bitmar-small", 23_400_000)],
        problems=[],
        list_models=lambda: fake.entries,
        describe=lambda path: {"path": Path(path), "parameters": 1_234_567, "ternary_share": 0.5, "bytes": {"disk": 23_400_000}, "calibrated": True},
        verify=lambda path: fake.problems,
        find_model=find_model,
    )
    monkeypatch.setattr(opening, "models", lambda: fake)
    return fake


def test_model(bitmar, models) -> None:
    assert bitmar("model", "list").out.splitlines()[1].startswith("bitmar-small  23.4 MB")
    assert json.loads(bitmar("model", "list", "--json").out)[0]["name"] == "bitmar-small"
    shown = bitmar("model", "info").out
    assert "parameters: 1,234,567" in shown and "ternary share: 50.0%" in shown and "bytes, disk: 23,400,000 (23.4 MB)" in shown
    assert json.loads(bitmar("model", "info", "bitmar-small", "--json").out)["parameters"] == 1_234_567
    assert bitmar("model", "verify").out.endswith("is sound\n")
    models.problems = ["weights.safetensors: digest differs"]
    ran = bitmar("model", "verify", "bitmar-small")
    assert ran.code == 1 and ran.err == "bitmar: weights.safetensors: digest differs\n"


def test_a_missing_model(bitmar, models) -> None:
    ran = bitmar("model", "info", "bitmar-smal")
    assert ran.code == 4 and ran.err == "bitmar: no model 'bitmar-smal'\n"
    models.entries = []
    assert bitmar("model", "info").code == 4 and bitmar("model", "list").code == 4 and bitmar("model", "verify", "a\0b").code == 4


def test_config_round_trip(bitmar) -> None:
    for preset in config.PRESETS:
        ran = bitmar("config", "init", f"{preset}.yaml", "--preset", preset)
        assert ran.code == 0 and config.load_config(f"{preset}.yaml") == config.PRESETS[preset]()
        assert bitmar("config", "validate", f"{preset}.yaml").out == f"{preset}.yaml is sound\n"
        assert bitmar("config", "show", f"{preset}.yaml").out == Path(f"{preset}.yaml").read_text()
    text = Path("base.yaml").read_text()
    assert "# Number of slots. (1 to 1e+06)\n  slots: 32\n" in text
    ran = bitmar("config", "init", "base.yaml")
    assert ran.code == 2 and "already there" in ran.err and Path("base.yaml").read_text() == text
    assert bitmar("config", "init").code == 0 and Path("bitmar.yaml").is_file()


def test_config_show(bitmar, home: Path) -> None:
    assert "  slots: 64\n" in bitmar("config", "show", "--preset", "small", "--set", "memory.slots=64").out
    assert f"home: {home}\n" in bitmar("config", "path").out
    for arguments, said in ((["--preset", "smal"], "did you mean 'small'?"), (["--set", "memory.slot=1"], "slots"), (["--set", "x"], "key=value")):
        ran = bitmar("config", "show", *arguments)
        assert ran.code == 1 and said in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text:\n\twidth: 8\n", "tab"),
        ("training: {learning_rate: .nan}\n", "nan"),
        ("training: {batch_size: 0}\n", "batch_size is 0"),
        ("text: {width: 1000000000}\n", "width"),
        ("seed: !!python/object/new:os.system ['touch pwned']\n", "tag"),
        ("preset: base\npreset: tiny\n", "twice"),
        ("memory: {slotz: 3}\n", "did you mean `memory.slots`?"),
    ],
)
def test_config_refusals(bitmar, text: str, said: str) -> None:
    Path("c.yaml").write_text(text)
    ran = bitmar("config", "validate", "c.yaml")
    assert ran.code == 1 and said in ran.err and "c.yaml" in ran.err and ran.err.count("\n") == 1 and not Path("pwned").exists()


def test_doctor(bitmar, models, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli.commands import doctor

    monkeypatch.setattr(doctor, "CHECKS", [check for check in doctor.CHECKS if check.__name__ != "_torch"])
    ran = bitmar("doctor")
    assert ran.code == 0 and "BROKEN" not in ran.out and "every digest matches" in ran.out and str(home / "logs" / "bitmar.log") in ran.out
    assert not home.exists()
    models.problems = ["a digest differs"]
    home.write_text("a file in the way")
    ran = bitmar("doctor")
    assert ran.code == 1 and "BROKEN  model files: a digest differs" in ran.out and "BROKEN  home" in ran.out and "are broken" in ran.out


def test_doctor_survives_a_check_that_fails(bitmar, models, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli.commands import doctor

    def _torch():
        raise OSError("no \x1b[31mtorch")
        yield

    monkeypatch.setattr(doctor, "CHECKS", [_torch])
    ran = bitmar("doctor")
    assert ran.code == 1 and ran.out.startswith("BROKEN  torch: OSError: no \\x1b[31mtorch\n")
