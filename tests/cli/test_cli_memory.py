"""`bitmar memory` on a real store in a temporary home."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def taught(bitmar):
    """Two slots: 0 fix the gate -> Humanoid, 1 look under the [red]jetty[/red] -> Underwater Robot."""
    assert bitmar("memory", "teach", "fix the gate", "--robot", "Humanoid", "--because", "it needs tools", "--site", "a yard").code == 0
    ran = bitmar("memory", "teach", "-", "--robot", "underwater robot", stdin="look under the [red]jetty[/red]")
    assert ran.out.startswith("remembered in slot 1: Underwater Robot for ")
    return bitmar


def test_list(taught, sessions) -> None:
    sessions.clear()
    ran = taught("memory", "list")
    assert ran.out.splitlines()[1].split() == ["0", "Humanoid", "taught", "0", "2026-01-31", "fix", "the", "gate"]
    assert "[red]jetty[/red]" in ran.out and ran.out.endswith("2 of 4 slots in use\n")
    rows = json.loads(taught("memory", "list", "--json").out)
    assert [row["slot"] for row in rows] == [0, 1] and rows[0]["because"] == "it needs tools" and rows[0]["site"] == "a yard"
    assert not sessions


def test_list_of_nothing_creates_nothing(bitmar, home: Path) -> None:
    assert bitmar("memory", "list").out.startswith("the memory is empty") and bitmar("memory", "list", "--json").out == "[]\n"
    assert bitmar("memory", "verify").code == 0 and bitmar("memory", "inspect").code == 0 and bitmar("memory", "clear").code == 0
    assert bitmar("memory", "undo").code == 2 and bitmar("memory", "forget", "0").code == 2 and bitmar("memory", "export", "x").code == 2
    assert not home.exists()


def test_light_commands_do_not_need_torch(taught) -> None:
    code = """
import sys
sys.modules["torch"] = None
from bitmar_cli.main import run
lines = ("list", "pin 0", "verify", "export m.out", "forget 1", "undo", "clear --yes", "show 0 --no-rerun", "inspect")
sys.exit(any([run(["memory", *line.split()]) for line in lines]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0, ran.stderr


def test_show_reruns_without_the_slot(taught) -> None:
    ran = taught("memory", "show", "0")
    assert "because: it needs tools" in ran.out and "site: a yard" in ran.out
    assert "with it: *Humanoid 0.75" in ran.out and "without it: *Drone 0.75" in ran.out
    shown = json.loads(taught("memory", "show", "0", "--json").out)
    assert shown["rerun"]["with"]["robot"] == "Humanoid" and shown["rerun"]["without"]["robot"] == "Drone"
    assert json.loads(taught("memory", "show", "0", "--json", "--no-rerun").out)["rerun"] is None


def test_show_without_a_model_still_shows(taught, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli import opening
    from bitmar_core.errors import ModelMissingError

    def missing(**_):
        raise ModelMissingError("no model")

    monkeypatch.setattr(opening, "open_session", missing)
    ran = taught("memory", "show", "1")
    assert ran.code == 0 and "robot: Underwater Robot" in ran.out and "could not be computed: no model" in ran.err


def test_forget_pin_clear_undo(taught) -> None:
    assert taught("memory", "pin", "0").out.startswith("slot 0 is pinned")
    assert taught("memory", "clear").code == 2
    assert taught("memory", "clear", "--yes").out == "forgot 1 episode; `bitmar memory undo` brings it back\n"
    assert [row["slot"] for row in json.loads(taught("memory", "list", "--json").out)] == [0]
    assert taught("memory", "undo").out.startswith("taken back: cleared")
    assert len(json.loads(taught("memory", "list", "--json").out)) == 2
    assert taught("memory", "pin", "0", "--off").out.startswith("slot 0 is not pinned")
    assert taught("memory", "forget", "0").out.startswith('forgot slot 0: Humanoid for "fix the gate"')
    ran = taught("memory", "forget", "0")
    assert ran.code == 2 and "slot 0 is empty" in ran.err
    assert taught("memory", "forget", "7").code == 2 and taught("memory", "clear", "--yes", "--pinned").code == 0


def test_export_and_import(taught) -> None:
    assert taught("memory", "export", "m.bitmar").out == "exported 2 episodes to m.bitmar\n"
    before = Path("m.bitmar").read_bytes()
    ran = taught("memory", "export", "m.bitmar")
    assert ran.code == 2 and "already there" in ran.err and Path("m.bitmar").read_bytes() == before
    assert taught("memory", "import", "m.bitmar", "--store", "second").out.startswith("imported 2 episodes")
    assert len(json.loads(taught("memory", "list", "--json", "--store", "second").out)) == 2
    assert taught("memory", "import", "missing").code == 4


def test_import_never_runs_code(taught) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    Path("mem.safetensors").write_bytes(pickle.dumps(Evil()))
    ran = taught("memory", "import", "mem.safetensors")
    assert ran.code == 1 and ran.err.count("\n") == 1 and not Path("pwned").exists()
    assert len(json.loads(taught("memory", "list", "--json").out)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..\\..\\windows\\system32\\mem",
        "~root/$HOME/%TEMP%/mem",
        "..",
        ".",
        "",
        "a/b",
        "CON",
        "nul.txt",
        "a\x1bb",
        "a\u202eb",
        "x" * 65,
        "-rf",
        "mem.",
        "$HOME",
    ],
)
def test_names_with_tricks_are_refused(taught, home: Path, name: str) -> None:
    before = sorted(home.rglob("*"))
    for arguments in (["memory", "list"], ["memory", "teach", "t", "--robot", "Drone"], ["memory", "clear", "--yes"], ["ask", "t"]):
        ran = taught(*arguments, f"--store={name}")
        assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1 and "\x1b" not in ran.err
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("name", ["..\\..\\windows\\system32\\mem", "~root/$HOME/%TEMP%/mem", "a\nb", "a\x1bb", "", ".", "no/such/folder/mem"])
def test_files_with_tricks_are_refused(taught, name: str) -> None:
    for arguments in (["memory", "export", name], ["memory", "import", name]):
        ran = taught(*arguments)
        assert ran.code in (2, 4) and ran.out == "" and ran.err.count("\n") == 1
    assert os.listdir(".") == []


def test_teach_refuses_before_the_model_is_loaded(bitmar, sessions) -> None:
    ran = bitmar("memory", "teach", "roof", "--robot", "dron")
    assert ran.code == 1 and "did you mean 'Drone'?" in ran.err
    assert bitmar("memory", "teach", " ", "--robot", "Drone").code == 2 and bitmar("memory", "teach", "roof").code == 2
    assert not sessions


def test_verify_and_restore(taught, home: Path) -> None:
    assert taught("memory", "verify").out.endswith("is sound (2 of 4 slots in use)\n")
    newest = sorted((home / "memory").glob("generation-*"))[-1]
    (newest / "memory.json").write_text("{")
    ran = taught("memory", "verify")
    assert ran.code == 1 and ran.out == "" and "damaged" in ran.err and "--restore" in ran.err
    assert taught("memory", "list").code == 1
    report = json.loads(taught("memory", "verify", "--json").out)
    assert report["sound"] is False and report["problems"]
    ran = taught("memory", "verify", "--restore")
    assert ran.code == 0 and ran.out.startswith("restored: ")
    assert len(json.loads(taught("memory", "list", "--json").out)) == 1


def test_inspect(taught) -> None:
    assert "similarity" not in taught("memory", "inspect").out
    ran = taught("memory", "inspect", "--task", "look under the [red]jetty[/red]")
    rows = ran.out.splitlines()
    assert rows[0].split()[:3] == ["slot", "similarity", "weight"]
    assert rows[1].split()[:3] == ["1", "+1.00", "0.80"] and rows[2].split()[:3] == ["0", "-", "-"]
