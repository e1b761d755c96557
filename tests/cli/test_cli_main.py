"""Help, errors, exit codes, and what may be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitmar_cli.exits import MEANING, ExitCode
from bitmar_core import errors

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "textual", "PIL", "numpy", "rich", "yaml", "safetensors")


def fresh(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30, env={**os.environ, **env})


def test_help_and_version_import_nothing_heavy() -> None:
    code = f"""
import sys
from bitmar_cli.main import run
codes = [run(line) for line in (["--help"], ["--version"], [], ["ask", "--help"], ["memory", "teach", "--help"], ["ask", "--nonsense"])]
print([name for name in {HEAVY!r} if name in sys.modules], [int(code) for code in codes])
"""
    assert fresh(code).stdout.splitlines()[-1] == "[] [0, 0, 0, 0, 0, 2]"


def test_reference_page_is_fresh() -> None:
    from bitmar_cli.reference import page

    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page(), "run: python -m bitmar_cli.reference > docs/cli.md"


def test_every_error_class_has_a_known_exit_code() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BitMarError)}
    assert codes <= set(MEANING) and set(MEANING) == set(ExitCode)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--nonsense"], 2, "No such option"),
        (["frobnicate"], 2, "No such command"),
        (["ask", "x", "--top", "0"], 2, "--top"),
        (["memory", "show"], 2, "Missing argument"),
        (["memory", "show", "../../etc/passwd"], 2, "valid integer"),
        (["ask", "x", "--fleet", "missing.yaml"], 4, "missing.yaml"),
        (["config", "validate", "missing.yaml"], 4, "missing.yaml"),
        (["ask", "\x1b[31m", "--json", "--jsonl"], 2, "--json and --jsonl"),
    ],
)
def test_errors_are_one_line(bitmar, arguments, code, said) -> None:
    ran = bitmar(*arguments)
    assert ran.code == code and said in ran.err and ran.out == ""
    assert ran.err.startswith("bitmar: ") and ran.err.count("\n") == 1


def test_unexpected_errors_go_to_the_log(bitmar, home: Path) -> None:
    ran = bitmar("ask", "explode")
    log = home / "logs" / "bitmar.log"
    assert ran.code == 1 and ran.err == f"bitmar: unexpected RuntimeError: the fake \\x1b[31mbroke; the traceback is in {log}\n"
    assert "Traceback" in log.read_text() and "\x1b" not in log.read_text()


def test_debug_shows_the_traceback(bitmar, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = bitmar("--debug", "ask", "explode")
    assert ran.code == 1 and "Traceback" in ran.err and "\x1b" not in ran.err
    assert "Traceback" not in bitmar("ask", "explode").err


def test_debug_from_the_environment(process) -> None:
    assert b"Traceback" in process("ask", "explode", env={"BITMAR_DEBUG": "1"}).stderr


def test_a_log_that_cannot_be_written_is_said(bitmar, home: Path) -> None:
    home.write_text("a file where the folder should be")
    ran = bitmar("ask", "explode", "--memory", "off")
    assert ran.code == 1 and "could not be written" in ran.err and ran.err.count("\n") == 1


def test_interrupt(bitmar, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli import opening

    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "open_session", interrupted)
    ran = bitmar("ask", "x")
    assert ran.code == 130 and ran.err == "bitmar: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of a shell")
def test_a_reader_that_leaves_ends_the_program_quietly(home: Path) -> None:
    fake = Path(__file__).with_name("cli_fakes.py")
    tasks = home.parent / "many.jsonl"
    tasks.write_text("".join(json.dumps({"task": f"task {i}"}) + "\n" for i in range(3000)))
    shell = f'"{sys.executable}" "{fake}" ask --input "{tasks}" --no-reasoning | head -n 1; echo ${{PIPESTATUS[0]}}'
    ran = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{fake.parent}"}
    )
    assert ran.stderr == "" and ran.stdout.splitlines()[1] == "141"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_stdout(home: Path) -> None:
    fake = Path(__file__).with_name("cli_fakes.py")
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, str(fake), "ask", "x", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{fake.parent}"},
        )
    assert ran.returncode == 1 and ran.stderr.startswith("bitmar: cannot write the output") and ran.stderr.count("\n") == 1


def test_runs_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "bitmar_cli", "--version"], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert ran.returncode == 0 and ran.stdout.startswith("bitmar ")
