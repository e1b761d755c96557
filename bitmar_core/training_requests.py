"""What a person may ask of a training run from another program: save now, or save and stop. Files in the run's folder; no torch.

A run that takes requests calls `listen` when it starts and `taken` between steps, and `deaf` when it ends.
"""

from __future__ import annotations

import os
from pathlib import Path

REQUESTS = ("save", "stop")
_FOLDER = "requests"


def listen(run: Path) -> None:
    """Say that this process takes requests for the run; old ones are dropped. Raises OSError."""
    folder = run / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in REQUESTS:
        (folder / name).unlink(missing_ok=True)
    (folder / "listening").write_text(f"{os.getpid()}\n", encoding="ascii")


def deaf(run: Path) -> None:
    """Say that nobody takes requests any more."""
    (run / _FOLDER / "listening").unlink(missing_ok=True)


def listens(run: Path) -> bool:
    """Whether a run says that it takes requests."""
    return (run / _FOLDER / "listening").is_file()


def request(run: Path, what: str) -> None:
    """Ask for something of `REQUESTS`. Raises OSError."""
    assert what in REQUESTS
    (run / _FOLDER / what).touch()


def taken(run: Path) -> str | None:
    """The request that waits, which is thereby taken; stop goes before save."""
    for what in ("stop", "save"):
        file = run / _FOLDER / what
        if file.exists():
            file.unlink(missing_ok=True)
            return what
    return None
