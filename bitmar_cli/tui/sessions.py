"""Conversations on disk: one file each, a JSON line for every turn as it stands; the last line of a turn counts.

Appending is cheap, so a turn is written when it is asked, while it is answered, and when it ends. A line that a crash tore is passed over.
"""

from __future__ import annotations

import json
import queue
import re
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_cli.tui.turns import Turn
from bitmar_core import paths

_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{4}")


def folder() -> Path:
    """Where they lie."""
    return paths.home() / "sessions"


def new_name() -> str:
    """A name for a new session."""
    return f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(2)}"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A session as the list shows it."""

    name: str
    changed: float
    """Seconds since the epoch."""
    bytes: int
    first: str
    """Its first task."""


def line_of(turn: Turn) -> str:
    """A turn as it stands, as a line."""
    return json.dumps({"v": 1, **turn.to_json()}) + "\n"


def append(name: str, line: str) -> None:
    """Write a line of `line_of`. Raises OSError."""
    file = folder() / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    torn = file.exists() and not _ends_with_newline(file)
    with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(("\n" if torn else "") + line)


class Saver:
    """Writes lines in a thread, in order, so that a slow disk holds nobody up."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self.trouble = ""
        """What the last failed write said."""

    def keep(self, name: str, turn: Turn) -> None:
        """Write the turn as it stands now."""
        self._lines.put((name, line_of(turn)))

    def close(self, seconds: float = 5.0) -> None:
        """Wait until all is written."""
        self._lines.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (item := self._lines.get()) is not None:
            try:
                append(*item)
                self.trouble = ""
            except OSError as error:
                self.trouble = f"the session cannot be saved: {error.strerror or error}; free space or set BITMAR_HOME"


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(0, 2)
        if stream.tell() == 0:
            return True
        stream.seek(-1, 2)
        return stream.read(1) == b"\n"


def load(name: str) -> list[Turn]:
    """The turns of a session, in order. Raises OSError; what cannot be read is left out."""
    turns: dict[int, Turn] = {}
    with (folder() / f"{name}.jsonl").open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            turn = _turn(line)
            if turn is not None:
                turns[turn.id] = turn
    return [turns[id] for id in sorted(turns)]


def _turn(line: str) -> Turn | None:
    try:
        row: Any = json.loads(line)
        row.pop("v")
        return Turn.from_json(row)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def saved() -> list[Saved]:
    """All sessions, the latest first."""
    found = []
    for file in folder().glob("*.jsonl"):
        if not _NAME.fullmatch(file.stem):
            continue
        try:
            state = file.stat()
            with file.open(encoding="utf-8", errors="replace") as stream:
                turn = _turn(stream.readline())
        except OSError:
            continue
        found.append(Saved(name=file.stem, changed=state.st_mtime, bytes=state.st_size, first=turn.task if turn else ""))
    return sorted(found, key=lambda item: -item.changed)


def remove(name: str) -> None:
    """Delete a session's file. Raises OSError."""
    (folder() / f"{name}.jsonl").unlink()
