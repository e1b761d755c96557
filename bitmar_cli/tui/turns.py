"""One turn of a conversation, built from the events of its answer. Plain data: no screen, no model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from bitmar_core import events as ev
from bitmar_core.events import SECTIONS, STEP_NAMES

SECTION_STEP = (0, 1, 2, 3, 4, 4)
"""Reasoning step that each section belongs to."""
LIVE = ("waiting", "reading", "writing")


@dataclass
class Turn:
    """A task and what has been said to it so far."""

    id: int
    task: str
    image: str | None = None
    site: str | None = None
    seed: int | None = None
    status: str = "waiting"
    """waiting, reading, writing, stopped, done, length or failed"""
    truncated: bool = False
    memory: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """name, probabilities, value, attention"""
    decision: dict[str, Any] | None = None
    sections: dict[str, str] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    """Seconds from sending to: "read", "decided", and the end of each section."""
    quality: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    answer: dict[str, Any] | None = None
    error: str = ""
    folded: bool = False
    note: str = ""
    """What a command said in this turn; then there is no task to the model."""
    request: int = 0
    """Number of the request that answers it; another one when a stopped answer is taken up again."""
    fresh: dict[str, str] = field(default_factory=dict)
    """Sections as this request writes them. A request is a function of its input, so a resumed answer first repeats what is there."""

    @property
    def live(self) -> bool:
        """Whether more is to come."""
        return self.status in LIVE

    def take(self, event: ev.Event, seconds: float) -> None:
        """Fold in the next event, which came `seconds` after the task was sent."""
        match event:
            case ev.Started():
                self.status, self.truncated = "reading", event.truncated
                self.fresh, self.tokens = {}, 0
            case ev.MemoryRead():
                self.memory, self.steps = [asdict(slot) for slot in event.slots], []
                self.times["read"] = seconds
            case ev.Step():
                self.steps.append({
                    "name": event.name, "probabilities": dict(event.probabilities), "value": event.value,
                    "attention": [round(a, 5) for a in event.attention],
                })  # fmt: skip
            case ev.Decision():
                self.decision = {
                    "robot": event.robot, "confidence": event.confidence, "abstained": event.abstained, "probabilities": dict(event.probabilities),
                    "suited": list(event.suited),
                }  # fmt: skip
                self.times["decided"] = seconds
                self.status = "writing"
            case ev.Token():
                written = self.fresh[event.section] = self.fresh.get(event.section, "") + event.text
                if len(written) >= len(self.sections.get(event.section, "")):
                    self.sections[event.section] = written
                self.tokens += 1
            case ev.Section():
                self.sections[event.name] = event.text
                self.times[event.name] = seconds
            case ev.Quality():
                self.quality = asdict(event)
            case ev.Done():
                self.answer, self.tokens, self.seconds = event.answer, event.tokens, seconds
                self.status = {"finished": "done", "cancelled": "stopped", "length": "length"}[event.reason]

    def stop(self, seconds: float) -> None:
        """The person stopped it: what was said stays."""
        self.status, self.seconds = "stopped", seconds

    def fail(self, line: str) -> None:
        """It was refused, or its worker died."""
        self.status, self.error = "failed", line

    def probabilities(self, step: int | None) -> dict[str, float]:
        """Robots' probabilities after a step (0-based), or of the decision."""
        if step is not None and step < len(self.steps):
            return self.steps[step]["probabilities"]
        if self.decision is not None:
            return self.decision["probabilities"]
        return self.steps[-1]["probabilities"] if self.steps else {}

    def changes(self, step: int | None) -> dict[str, float]:
        """What a step changed in each probability; of the decision: since the first step."""
        if not self.steps or step == 0:
            return {}
        before = self.steps[0 if step is None or step > len(self.steps) else step - 1]["probabilities"]
        return {name: p - before.get(name, 0.0) for name, p in self.probabilities(step).items()}

    def attention(self, step: int | None) -> list[float]:
        """Attention over the photo's patches at a step; without a step, of the last one."""
        if not self.steps:
            return []
        return self.steps[len(self.steps) - 1 if step is None else min(step, len(self.steps) - 1)]["attention"]

    def section_texts(self, step: int) -> list[tuple[str, str]]:
        """The sections that belong to a step, as far as they are written."""
        return [(name, self.sections[name]) for name, at in zip(SECTIONS, SECTION_STEP, strict=True) if at == step and name in self.sections]

    def result(self) -> dict[str, Any] | None:
        """The object that `bitmar ask --json` prints, from what is known; None before the decision."""
        if self.answer is not None:
            return self.answer
        if self.decision is None:
            return None
        empty = dict.fromkeys(("coherence", "relevance", "completeness", "accuracy"))
        return {
            "task": self.task, "image": self.image, **self.decision, "reasoning": dict(self.sections), "quality": self.quality or empty,
            "memory": [{key: slot[key] for key in ("slot", "similarity", "weight", "robot", "task")} for slot in self.memory],
            "steps": [{key: step[key] for key in ("name", "probabilities", "value")} for step in self.steps], "model": "", "elapsed_ms": self.seconds * 1000,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For the session's file."""
        return {**asdict(self), "fresh": {}}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Turn:
        """From the session's file; an answer that never ended counts as stopped. Raises TypeError or KeyError for other things."""
        turn = cls(**row)
        if not isinstance(turn.id, int) or not isinstance(turn.task, str) or not isinstance(turn.sections, dict):
            raise TypeError("not a turn")
        if turn.live:
            turn.status = "stopped"
        return turn


def entropy(probabilities: dict[str, float]) -> float:
    """Spread of a choice in bits: 0 for certainty, log2(R) for even odds among R robots."""
    return -sum(p * math.log2(p) for p in probabilities.values() if p > 0)


def margin(probabilities: dict[str, float]) -> float | None:
    """Lead of the first robot over the second."""
    best = sorted(probabilities.values(), reverse=True)
    return best[0] - best[1] if len(best) > 1 else None


assert len(STEP_NAMES) == max(SECTION_STEP) + 1
