"""One remembered case: a task, the robot that is right for it, and why. Plain text and numbers, no vectors."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from bitmar_core.errors import MemoryStoreError

SOURCES = ("taught", "observed", "imported")
MAX_USES = 2**53  # what any reader of JSON keeps exact

# Escape sequences in a shared file could act on the terminal that lists it; lone surrogates cannot be written as UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?(Z|\+00:00)")
_SHA256 = re.compile("[0-9a-f]{64}")
_PARENT = re.compile(r"\.\.[/\\]")


def now() -> str:
    """The time as ISO-8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A remembered case. Values are checked when it is built.

    Raises:
        MemoryStoreError: names the field, what is wrong and what is needed.
    """

    task: str
    """The task as it was asked."""
    site: str | None = None
    """The site note that was given with the task."""
    image: str | None = None
    """SHA-256 of the photo's bytes, 64 lower-case hex digits."""
    robot: str
    """Name of the robot on the fleet of that time."""
    because: str = ""
    """The reason that the person gave."""
    confidence: float = 1.0
    """From 0 to 1."""
    source: str = "taught"
    """taught (a correction), observed (one of BitMar's own answers) or imported."""
    made: str = field(default_factory=now)
    """When it was written, ISO-8601 UTC."""
    used: str | None = None
    """When it last helped, ISO-8601 UTC."""
    uses: int = 0
    """How often it helped."""
    pinned: bool = False
    """A pinned episode is never replaced to make room."""

    def __post_init__(self) -> None:
        for name in ("task", "robot", "because", "made", "source"):
            check_text(name, getattr(self, name))
        for name in ("site", "image", "used"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        for name in ("task", "robot"):
            if not getattr(self, name).strip():
                raise MemoryStoreError(f"an episode's {name} is empty; give it some text")
        if _PARENT.search(self.robot):
            raise MemoryStoreError(f"an episode's robot is called {self.robot[:60]!r}; a robot's name is not a path")
        if self.image is not None and not _SHA256.fullmatch(self.image):
            raise MemoryStoreError(f"an episode's image is {self.image[:70]!r}; the photo's SHA-256 is needed, 64 hex digits")
        if self.source not in SOURCES:
            raise MemoryStoreError(f"an episode's source is {self.source[:60]!r}; it must be one of {', '.join(SOURCES)}")
        if type(self.confidence) not in (int, float) or not 0 <= self.confidence <= 1:
            raise MemoryStoreError(f"an episode's confidence is {str(self.confidence)[:60]!r}; a number from 0 to 1 is needed")
        object.__setattr__(self, "confidence", float(self.confidence))
        if type(self.uses) is not int or not 0 <= self.uses <= MAX_USES:
            raise MemoryStoreError("an episode's uses must be a whole number that is not negative")
        if type(self.pinned) is not bool:
            raise MemoryStoreError("an episode's pinned must be true or false")
        _time("made", self.made)
        if self.used is not None:
            _time("used", self.used)

    @property
    def place(self) -> tuple[str, str | None, str | None]:
        """What makes two episodes the same case: task, site and image, whatever their case and spacing."""
        return fold(self.task), None if self.site is None else fold(self.site), self.image

    def brief(self) -> str:
        """The case in one short line, as messages show it."""
        task = " ".join(self.task.split())
        return f"{task if len(task) <= 60 else task[:57] + '...'} -> {self.robot}"


FIELDS = tuple(item.name for item in fields(Episode))


def fold(text: str) -> str:
    """Text with case, spacing and the way accents are composed levelled."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def check_text(name: str, value: Any) -> None:
    """Refuse what is not text, or text that could act on a terminal, with MemoryStoreError."""
    if not isinstance(value, str):
        raise MemoryStoreError(f"an episode's {name} must be text, not {type(value).__name__}")
    if _CONTROL.search(value):
        raise MemoryStoreError(f"an episode's {name} holds control characters; use printable text")


def _time(name: str, value: str) -> None:
    try:
        if not _TIME.fullmatch(value):
            raise ValueError
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise MemoryStoreError(f"an episode's {name} is {value[:60]!r}; a time such as 2026-01-31T08:00:00Z is needed") from None
