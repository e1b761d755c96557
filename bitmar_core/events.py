"""What the engine says while it works. The core yields these; a front end only draws them.

A request yields, in this order: Started, MemoryRead, one Step per reasoning step, Decision, then (where reasoning text
is asked for) Token events section by section and one Section at the end of each, Quality, and last Done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SECTIONS = (
    "thinking",
    "environment_analysis",
    "robot_evaluation",
    "selection_reasoning",
    "confidence_check",
    "robot_selection",
)
"""The sections of a finished chain of thought. The first five belong to one reasoning step each."""

STEP_NAMES = ("context analysis", "environment analysis", "robot evaluation", "selection logic", "confidence check")


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """One memory slot that the answer used."""

    slot: int
    similarity: float
    """Cosine of the slot's key with the request's, -1 to 1."""
    weight: float
    """Share of the answer that the slot decides, 0 to 1: its attention times its scope."""
    robot: str
    task: str
    source: str = "taught"
    because: str = ""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The request as it was understood."""

    task: str
    site: str | None
    image: str | None
    fleet: tuple[str, ...]
    model: str
    truncated: bool = False
    """The task was longer than the model reads; the rest was left out."""


@dataclass(frozen=True, kw_only=True)
class MemoryRead:
    """What was read from the episodic memory; empty where nothing applied."""

    slots: tuple[Recalled, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One reasoning step."""

    index: int
    """1 to 5"""
    name: str
    probabilities: dict[str, float]
    value: float
    """The step's own estimate of its worth, V(h_t)."""
    attention: tuple[float, ...] = ()
    """Attention over the photo's patches, row by row; empty without a photo."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The choice, made by the policy. The text that follows explains it and names the same robot."""

    robot: str
    confidence: float
    """Calibrated probability of `robot`."""
    abstained: bool
    """True where the confidence is under the configured floor: "not sure"."""
    probabilities: dict[str, float]
    suited: tuple[str, ...]
    """Robots whose own suitability is over one half, best first."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A piece of decoded text, ready to append. Slot tokens are already rendered as robot names."""

    section: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A finished section."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The four quality scores of the chain, 0 to 1."""

    coherence: float
    relevance: float
    completeness: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event of every request."""

    reason: Literal["finished", "cancelled", "length"]
    answer: dict
    """The object that `bitmar ask --json` prints (see `docs/json.md`)."""
    tokens: int
    elapsed_ms: float
    extra: dict = field(default_factory=dict)


Event = Started | MemoryRead | Step | Decision | Token | Section | Quality | Done
