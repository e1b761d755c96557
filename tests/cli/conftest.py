"""The command line with a fake session and a home of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("cli_fakes.py")
for folder in (ROOT, FAKE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BITMAR_HOME that is not there yet, and a working folder beside it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("BITMAR_HOME", str(folder))
    monkeypatch.delenv("BITMAR_DEBUG", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list:
    """The fake sessions that commands opened, in order."""
    from cli_fakes import open_fake

    from bitmar_cli import opening

    opened: list = []

    def open_session(**options):
        opened.append(open_fake(**options))
        return opened[-1]

    monkeypatch.setattr(opening, "open_session", open_session)
    return opened


@pytest.fixture
def bitmar(home: Path, sessions: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run one command line in this process."""
    from bitmar_cli.main import run

    def call(*arguments: str, stdin: str | bytes = "") -> Ran:
        data = stdin if isinstance(stdin, bytes) else stdin.encode("utf-8", "surrogatepass")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        code = run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err or "--debug" in arguments
        return Ran(int(code), out, err)

    return call


@pytest.fixture
def process(home: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run one command line with the fake session in a process of its own."""

    def call(*arguments: str, **options) -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{FAKE.parent}", **options.pop("env", {})}
        return subprocess.run([sys.executable, str(FAKE), *arguments], capture_output=True, timeout=30, env=env, **options)

    return call
