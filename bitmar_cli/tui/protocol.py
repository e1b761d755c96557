"""What the interface and the model's process say to each other: small frozen messages as JSON, each after its length.

JSON and a list of known classes, so that reading a message can never run code, whoever wrote it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from dataclasses import dataclass, field
from typing import IO, Any

from bitmar_core import events
from bitmar_core.events import Event

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The first message: what to load."""

    model: str | None = None
    fleet: str | None = None
    memory: str = "read"
    store: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task with its surroundings."""

    task: str
    image: str | None = None
    site: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Answer this; the reply is a `Said` for each event."""

    id: int
    question: Question
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Stop answering `id`."""

    id: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """Load this photo as the model sees it; the reply is `Looked`."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Near:
    """How near is every slot to this question? The reply is `Nearness`."""

    question: Question


@dataclass(frozen=True, kw_only=True)
class Without:
    """Ask again with one slot masked; without a question, the slot's own task. The reply is `Rerun`."""

    slot: int
    question: Question | None = None


@dataclass(frozen=True, kw_only=True)
class Why:
    """Ask again without each thing that the answer used. The reply is `Ablations`."""

    id: int
    question: Question


@dataclass(frozen=True, kw_only=True)
class Teach:
    """Remember that this question is for this robot."""

    question: Question
    robot: str
    because: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Change or share the memory: forget, pin, unpin, undo, export, import, diff, reload."""

    what: str
    slot: int = -1
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class SetFleet:
    """Choose from another fleet; None is the default one."""

    path: str | None


Request = Ask | Cancel | Look | Near | Without | Why | Teach | Change | SetFleet


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The model is loaded, or its fleet changed."""

    model: str
    fleet_name: str
    fleet: tuple[str, ...]
    memory: bool
    limit: int
    """Longest task, characters."""
    floor: float
    """Confidence under which the answer is "not sure"."""
    temperature: float | None
    """What the probabilities were calibrated with; None where that is not known or was not done."""
    ece: float | None = None
    """Calibration error that the checkpoint's training measured on held-out tasks."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """An event of the answer `id`."""

    id: int
    event: Event


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A photo, cut to the square that the model reads."""

    path: str
    width: int
    height: int
    digest: str
    side: int
    pixels: bytes
    """RGB, side * side * 3 bytes, row by row."""


@dataclass(frozen=True, kw_only=True)
class SlotRow:
    """What a memory slot holds, without its vectors."""

    slot: int
    task: str
    site: str | None
    image: str | None
    robot: str
    because: str
    confidence: float
    source: str
    made: str
    used: str | None
    uses: int
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class MemoryNow:
    """The memory as it is on disk."""

    slots: int
    width: int
    rows: tuple[SlotRow, ...]
    values: bytes
    """float32, a row of `width` for each of `rows`."""
    scale: float
    """The largest of those numbers, without its sign."""
    undo: tuple[str, ...]
    """What undo would take back, the next first."""
    folder: str
    next_slot: int
    """Where a new case would go; -1 where every slot is pinned."""
    replaces: bool
    """That slot is in use."""


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """Cosine of each slot's key with the question's."""

    question: Question
    similarity: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """The answer with a slot and with the slot masked, both computed now."""

    slot: int
    task: str
    own: bool
    """The question was the slot's own task, without its photo."""
    present: dict[str, Any]
    masked: dict[str, Any]
    nearest: tuple[tuple[int, float], ...] = ()
    """Other slots by cosine of their keys, nearest first."""


@dataclass(frozen=True, kw_only=True)
class Ablations:
    """The answer now, and without each thing it used: (what was left out, answer)."""

    id: int
    present: dict[str, Any]
    without: tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something was done; one line."""

    text: str
    lines: tuple[str, ...] = ()
    """More to read, where there is more."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A request was refused; one line. `id` names the answer it belongs to; `fatal` means that the worker ends."""

    line: str
    id: int | None = None
    fatal: bool = False
    about: str = field(default="")
    """The path or name that was refused, where one was."""


@dataclass(frozen=True, kw_only=True)
class Died:
    """The worker's end of the pipe closed. Made by `engine.py`, never sent."""

    code: int | None
    log: str


Reply = Ready | Said | Looked | MemoryNow | Nearness | Rerun | Ablations | Note | Failed | Died


KNOWN = {
    kind.__name__: kind
    for kind in [*globals().values(), *vars(events).values()]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}  # fmt: skip
"""Every class that a message may be or hold."""


def plain(value: Any) -> Any:
    """A message as JSON values: what JSON has no form for becomes a list that opens with its kind."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(plain(getattr(value, item.name)) for item in dataclasses.fields(value))]
    if isinstance(value, dict):
        return ["dict", *([plain(key), plain(inner)] for key, inner in value.items())]
    if isinstance(value, (tuple, list)):
        return [type(value).__name__, *map(plain, value)]
    if isinstance(value, bytes):
        return ["bytes", base64.b85encode(value).decode("ascii")]
    return value


def restored(value: Any) -> Any:
    """The message that `plain` took apart.

    Raises:
        KeyError: of a kind that is not known.
    """
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "dict":
        return {restored(key): restored(inner) for key, inner in rest}
    if kind == "tuple":
        return tuple(map(restored, rest))
    if kind == "list":
        return list(map(restored, rest))
    if kind == "bytes":
        return base64.b85decode(rest[0])
    known = KNOWN[kind]
    return known(**{item.name: restored(inner) for item, inner in zip(dataclasses.fields(known), rest, strict=True)})


def write(stream: IO[bytes], message: object) -> None:
    """Send one message."""
    data = json.dumps(plain(message)).encode("ascii")
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read(stream: IO[bytes]) -> Any:
    """The next message, or None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    size = _LENGTH.unpack(head)[0]
    data = stream.read(size)
    return restored(json.loads(data)) if len(data) == size else None
