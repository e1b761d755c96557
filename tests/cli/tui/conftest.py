"""The real application with a scripted engine, a home of its own, and a terminal that is what the test says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal with all colours; an empty working folder."""
    for name in ("NO_COLOR", "BITMAR_ASCII", "BITMAR_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    from bitmar_cli.tui import themes

    monkeypatch.setattr(themes, "ascii_only", lambda: False)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A small picture, light on the left and dark on the right."""
    from PIL import Image

    picture = Image.new("RGB", (160, 120), (20, 40, 60))
    picture.paste((240, 220, 180), (0, 0, 80, 120))
    file = tmp_path / "site.png"
    picture.save(file)
    return str(file)


@pytest.fixture
def until() -> Callable:
    """Wait until something holds, at most some seconds."""

    async def wait(pilot, holds: Callable[[], object], seconds: float = 10.0) -> None:
        import time

        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"still waiting; the foot says: {pilot.app.state.said!r}"
            await pilot.pause(0.02)
        await pilot.pause()

    return wait
