"""A training run, read from its event log (`events.jsonl`) while it grows or long after. No torch, no screen.

The log has a line for some steps, `{"step", "total", "kind", "loss", "learning_rate", "grad_norm", ...parts}`, and one at the end of
each stage, `{"stage", ...figures}`. "time" (seconds since the epoch) is read where it is there; else rates are known only of what
was watched live.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP_KEYS = {"step", "total", "kind", "loss", "learning_rate", "grad_norm", "time", "seconds"}
PART = 1_000_000
"""Bytes read at a time, so that a long log does not hold up the interface."""
ALIVE = 120.0
"""Seconds since the last line after which a run is no longer called running."""


@dataclass
class Run:
    """What is known of a run."""

    folder: Path
    stage: str = ""
    """Kind of the steps now: robots, writing, ..."""
    step: int = 0
    total: int = 0
    latest: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) of the stage now."""
    parts: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """What the last finished stage measured, flattened."""
    events: list[str] = field(default_factory=list)
    """A line for each stage begun and finished."""
    finished: bool = False
    changed: float = 0.0
    """When the log last grew, seconds since the epoch."""
    bad_lines: int = 0
    offset: int = 0
    _seen: list[tuple[float, int]] = field(default_factory=list)
    _rest: bytes = b""

    @property
    def log(self) -> Path:
        """The event log."""
        return self.folder / "events.jsonl"

    def read(self, now: float | None = None) -> bool:
        """Read what the log has gained, a part at a time; tells whether there was anything. Raises OSError."""
        now = time.time() if now is None else now
        with self.log.open("rb") as file:
            size = file.seek(0, 2)
            if size < self.offset:  # begun anew
                self.__init__(self.folder)  # type: ignore[misc]
            file.seek(self.offset)
            data = file.read(PART)
        if not data:
            return False
        at_once = len(data) == PART
        self.offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.strip():
                self._line(line)
        self.changed = self.log.stat().st_mtime
        if not at_once and self.total:
            self._seen = [*self._seen[-200:], (float(self.latest.get("time", now)), self.step)]
        return True

    def _line(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            if "stage" in row:
                self._stage(row)
            elif "step" in row:
                self._step(row)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.bad_lines += 1

    def _step(self, row: dict[str, Any]) -> None:
        step, loss = int(row["step"]), float(row["loss"])
        kind = str(row.get("kind", "training"))
        total = int(row.get("total", 0))
        if total != self.total or step < self.step:
            self.losses, self.parts, self._seen = [], {}, []
            self.events.append(f"steps to {total:,} ({kind})" if total != self.total else f"resumed at step {step:,}")
        self.stage, self.step, self.total, self.latest, self.finished = kind, step, total, row, False
        if math.isfinite(loss):
            self.losses.append((step, loss))
        for name, value in row.items():
            if name not in STEP_KEYS and isinstance(value, int | float) and math.isfinite(value):
                self.parts.setdefault(name, []).append((step, float(value)))

    def _stage(self, row: dict[str, Any]) -> None:
        name = str(row["stage"])
        self.figures.update(dict(_flat({key: value for key, value in row.items() if key not in ("stage", "time")})))
        self.events.append(f"finished: {name}" + (f" ({row['bytes'] / 1e6:.1f} MB)" if isinstance(row.get("bytes"), int) else ""))
        self.finished = name == "packed"

    def rate(self) -> float | None:
        """Steps a second, over what was watched; None where nothing was."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return None
        first, last = self._seen[max(0, len(self._seen) - 20)], self._seen[-1]
        return (last[1] - first[1]) / (last[0] - first[0]) if last[1] > first[1] and last[0] > first[0] else None

    def left(self) -> float | None:
        """Seconds to the end of this stage, at that rate."""
        rate = self.rate()
        return None if rate is None else (self.total - self.step) / rate

    def status(self, now: float | None = None) -> str:
        """finished, running, or silent since its last line."""
        if self.finished:
            return "finished"
        now = time.time() if now is None else now
        return "running" if now - self.changed < ALIVE else "silent"

    def rewards(self) -> dict[str, float]:
        """Latest rewards by part, where this stage has rewards."""
        names = [name for name in self.parts if name.startswith(("reward", "task_success", "reasoning_quality"))]
        return {name: self.parts[name][-1][1] for name in names}

    def csv(self) -> str:
        """Steps, losses and parts of this stage as CSV."""
        names = list(self.parts)
        rows = {step: {"loss": loss} for step, loss in self.losses}
        for name in names:
            for step, value in self.parts[name]:
                rows.setdefault(step, {})[name] = value
        lines = [",".join(["step", "loss", *names])]
        lines += [",".join([str(step), *(repr(rows[step][n]) if n in rows[step] else "" for n in ["loss", *names])]) for step in sorted(rows)]
        return "\n".join(lines) + "\n"


def _flat(row: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{key} ")
        else:
            found.append((f"{before}{key}".replace("_", " "), value))
    return found


def latest_run(where: Path) -> Path | None:
    """The folder under `where` (or `where`/runs) whose event log grew last."""
    logs = [log for pattern in ("events.jsonl", "*/events.jsonl", "runs/*/events.jsonl") for log in where.glob(pattern)]
    return max(logs, key=lambda log: log.stat().st_mtime).parent if logs else None
