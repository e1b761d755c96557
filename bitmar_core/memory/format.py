"""The memory's file format: tensors as safetensors, stories as readable JSON, and the checks on reading them back.

M slots, N occupied slots, R vectors kept for undo, W width of keys and values.

    memory.safetensors  keys [M, W] F32, undo_keys [R, W] F32, undo_values [R, W] F32, values [M, W] F32, occupied [M] BOOL
    memory.json         format, format_version, model, slots, width, turn, sha256_tensors, episodes, undo, sha256_document
    an export           one safetensors file: the same tensors for N slots, and the JSON text as `document` U8

Every byte is covered: the safetensors header must be the one this module writes, `sha256_tensors` covers the tensors' bytes
in the order above, and `sha256_document` covers all of the JSON text before it. A digest shows damage, not malice, so what
the digests let through is still checked: names, types, shapes, ranges, finite numbers.

We pack safetensors ourselves (format: github.com/huggingface/safetensors, README "Format"), because the library orders
metadata at random and accepts several headers for one content; the tests read our files with the library.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from bitmar_core.errors import MemoryStoreError
from bitmar_core.memory.episode import FIELDS, Episode, check_text

VERSION = 1
MAX_SLOTS, MAX_WIDTH = 1_000_000, 65_536
MAX_HEADER = 100_000

DTYPES = {"F32": np.dtype("<f4"), "BOOL": np.dtype("bool"), "U8": np.dtype("u1")}
# In this order in the file: four-byte numbers first, so that they stay aligned.
TENSORS = {"keys": "F32", "undo_keys": "F32", "undo_values": "F32", "values": "F32", "occupied": "BOOL"}
EXPORT_TENSORS = TENSORS | {"document": "U8"}
DOCUMENT_KEYS = ("format", "format_version", "model", "slots", "width", "turn", "sha256_tensors", "episodes", "undo", "sha256_document")
# Every later version keeps this last line, so that damage and a newer version can be told apart.
_TAIL = re.compile(rb'"sha256_document": "([0-9a-f]{64})"\n}\n')
_TAIL_LENGTH = len('"sha256_document": ""\n}\n') + 64


class Damaged(MemoryStoreError):
    """The bytes are not a sound memory. The message is the cause alone; the caller adds place and mend."""


@dataclass(frozen=True)
class Held:
    """An occupied slot without its vectors. `turn` orders slots by last use; a clock can step back, turns cannot."""

    episode: Episode
    turn: int


@dataclass(frozen=True)
class Before:
    """What a slot held before a change; `held`, `key` [W] and `value` [W] are None where it was free."""

    slot: int
    held: Held | None
    key: np.ndarray | None = None
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Change:
    """A change that can be undone."""

    what: str
    before: tuple[Before, ...]


@dataclass(frozen=True)
class Snapshot:
    """A whole memory at one moment. Never altered; its arrays are read-only."""

    model: str
    keys: np.ndarray  # (M, W) float32
    values: np.ndarray  # (M, W) float32
    held: dict[int, Held]
    changes: tuple[Change, ...] = ()
    turn: int = 0
    digest: str = ""
    """sha256_document of the bytes that this was read from or written as."""
    tensors_digest: str = ""
    """sha256_tensors of the same."""

    @property
    def slots(self) -> int:
        """M."""
        return self.keys.shape[0]

    @property
    def width(self) -> int:
        """W."""
        return self.keys.shape[1]


def occupied(snapshot: Snapshot) -> np.ndarray:
    """Which slots hold an episode: bool [M]."""
    mask = np.zeros(snapshot.slots, dtype=bool)
    mask[list(snapshot.held)] = True
    return mask


# ---- tensors ----


def _header(shapes: dict[str, tuple[int, ...]], dtypes: dict[str, str]) -> bytes:
    entries, offset = {}, 0
    for name, dtype in dtypes.items():
        end = offset + math.prod(shapes[name]) * DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def pack(tensors: dict[str, np.ndarray], dtypes: dict[str, str]) -> bytes:
    """Safetensors bytes of `tensors`, in the order of `dtypes`. The same tensors give the same bytes."""
    data = [np.ascontiguousarray(tensors[name], dtype=DTYPES[dtype]).tobytes() for name, dtype in dtypes.items()]
    return _header({name: tensors[name].shape for name in dtypes}, dtypes) + b"".join(data)


def unpack(data: bytes, dtypes: dict[str, str]) -> dict[str, np.ndarray]:
    """Read what `pack` wrote, as read-only arrays over `data`.

    Raises:
        Damaged: any other bytes.
    """
    if len(data) < 8:
        raise Damaged("it is cut short: no safetensors header")
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        _refuse_disguise(data)
    if length > len(data) - 8:
        raise Damaged(f"its header claims {length} bytes and only {len(data) - 8} are there")
    if data[8:9] != b"{" or length > MAX_HEADER:
        raise Damaged("it has no safetensors header of a memory")
    entries = _parse_json(data[8 : 8 + length])
    if not isinstance(entries, dict):
        raise Damaged("its safetensors header is not a table of tensors")
    for name in entries:
        if name not in dtypes:
            raise Damaged(f"it holds something called {name[:60]!r}, which no memory holds")
    shapes = {}
    for name, dtype in dtypes.items():
        entry = entries.get(name)
        if not isinstance(entry, dict):
            raise Damaged(f"it lacks the tensor {name!r}")
        if entry.get("dtype") != dtype:
            raise Damaged(f"its {name} are {str(entry.get('dtype'))[:20]!r} and must be {dtype}")
        shape = entry.get("shape")
        dims = 1 if dtype in ("BOOL", "U8") else 2
        if not isinstance(shape, list) or len(shape) != dims or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise Damaged(f"its {name} have the shape {str(shape)[:60]}; {dims} numbers that are not negative are needed")
        shapes[name] = tuple(shape)
    if _header(shapes, dtypes) != data[: 8 + length]:
        raise Damaged("its header does not describe its bytes")
    tensors, offset = {}, 8 + length
    if len(data) - offset != sum(math.prod(shapes[name]) * DTYPES[dtype].itemsize for name, dtype in dtypes.items()):
        raise Damaged("it is cut short or has bytes at its end that no tensor claims")
    for name, dtype in dtypes.items():
        count = math.prod(shapes[name])
        if dtype == "BOOL" and any(byte > 1 for byte in data[offset : offset + count]):
            raise Damaged(f"its {name} hold bytes that are neither true nor false")
        tensors[name] = np.frombuffer(data, dtype=DTYPES[dtype], count=count, offset=offset).reshape(shapes[name])
        offset += count * DTYPES[dtype].itemsize
    return tensors


def _refuse_disguise(data: bytes) -> None:
    # Protocol 2 and later start so, and torch.save writes a zip around a pickle.
    if (data[:1] == b"\x80" and data[1:2] <= b"\x08") or data[:4] == b"PK\x03\x04":
        raise Damaged("it is a pickle or zip in disguise, which could run code, and was not opened")


def _tensors_digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, dtype in TENSORS.items():
        digest.update(np.ascontiguousarray(tensors[name], dtype=DTYPES[dtype]).view("u1").data if tensors[name].size else b"")
    return digest.hexdigest()


# ---- document ----


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _dump_list(items: list[dict]) -> str:
    # One line an item: readable, quick to write, and a diff shows the slot that changed.
    return "[\n" + ",\n".join(map(_dump, items)) + "\n]" if items else "[]"


def _story(slot: int, held: Held) -> dict[str, Any]:
    # Not dataclasses.asdict, which copies deeply and takes most of the time of a save at 10,000 slots.
    return {"slot": slot, "turn": held.turn} | {name: getattr(held.episode, name) for name in FIELDS}


def encode(snapshot: Snapshot) -> tuple[dict[str, np.ndarray], bytes, Snapshot]:
    """The tensors, the JSON document, and the snapshot with their digests. Undo vectors lie in the order of the document."""
    rows: list[Before] = []
    undo = []
    for change in snapshot.changes:
        before: list[dict[str, Any]] = []
        for item in change.before:
            if item.held is None:
                before.append({"slot": item.slot, "row": None})
            else:
                before.append(_story(item.slot, item.held) | {"row": len(rows)})
                rows.append(item)
        undo.append({"what": change.what, "before": before})
    none = np.zeros((0, snapshot.width), dtype=np.float32)
    tensors = {
        "keys": snapshot.keys,
        "values": snapshot.values,
        "occupied": occupied(snapshot),
        "undo_keys": np.stack([row.key for row in rows if row.key is not None]) if rows else none,
        "undo_values": np.stack([row.value for row in rows if row.value is not None]) if rows else none,
    }
    stories = [_story(slot, snapshot.held[slot]) for slot in sorted(snapshot.held)]
    head = {
        "format": "bitmar memory", "format_version": VERSION, "model": snapshot.model, "slots": snapshot.slots,
        "width": snapshot.width, "turn": snapshot.turn, "sha256_tensors": (tensors_digest := _tensors_digest(tensors)),
    }  # fmt: skip
    lines = ["{"] + [f"{_dump(key)}: {_dump(value)}," for key, value in head.items()]
    lines += [f'"episodes": {_dump_list(stories)},', f'"undo": {_dump_list(undo)},', ""]
    text = "\n".join(lines).encode()
    digest = hashlib.sha256(text).hexdigest()
    document = text + f'"sha256_document": "{digest}"\n}}\n'.encode()
    return tensors, document, replace(snapshot, digest=digest, tensors_digest=tensors_digest)


def decode(tensors: dict[str, np.ndarray], document: bytes, *, known: Snapshot | None = None) -> Snapshot:
    """Check a document and its tensors and put them together.

    Args:
        tensors: keys [M, W], values [M, W], occupied [M], undo_keys [R, W], undo_values [R, W].
        document: the JSON text.
        known: what was read before; given back as it is where the digests show the same content, which saves the parsing.

    Raises:
        Damaged: digests, structure or values are wrong.
        MemoryStoreError: the format is newer than this code.
    """
    _refuse_disguise(document)
    tail = _TAIL.fullmatch(document[-_TAIL_LENGTH:])
    if tail is None or hashlib.sha256(document[:-_TAIL_LENGTH]).hexdigest() != tail[1].decode():
        raise Damaged("its stories do not match their SHA-256: bytes were changed")
    digest = tail[1].decode()
    if known is not None and known.digest == digest:
        _check_tensors(tensors, known.tensors_digest)
        return known
    data = _parse_json(document)
    _check_head(data)
    _check_tensors(tensors, data["sha256_tensors"])
    try:
        return replace(_build(tensors, data), digest=digest, tensors_digest=data["sha256_tensors"])
    except Damaged:
        raise
    except MemoryStoreError as error:  # an episode's own checks
        raise Damaged(str(error)) from None


def _check_tensors(tensors: dict[str, np.ndarray], digest: str) -> None:
    if _tensors_digest(tensors) != digest:
        raise Damaged("its tensors do not match their SHA-256: bytes were changed")


def encode_export(snapshot: Snapshot) -> bytes:
    """One file with the occupied slots of `snapshot`, in the order of last use, without its undo history."""
    order = sorted(snapshot.held, key=lambda slot: snapshot.held[slot].turn)
    held = {row: snapshot.held[slot] for row, slot in enumerate(order)}
    small = replace(snapshot, keys=snapshot.keys[order], values=snapshot.values[order], held=held, changes=())
    tensors, document, _ = encode(small)
    return pack(tensors | {"document": np.frombuffer(document, dtype="u1")}, EXPORT_TENSORS)


def decode_export(data: bytes) -> Snapshot:
    """Read what `encode_export` wrote.

    Raises:
        Damaged: not a sound export.
        MemoryStoreError: the format is newer than this code.
    """
    tensors = unpack(data, EXPORT_TENSORS)
    return decode(tensors, tensors["document"].tobytes())


def _refuse_constant(name: str) -> NoReturn:
    raise Damaged(f"it holds the number {name}; finite numbers are needed")


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Damaged("its text is not JSON") from None


def _check_head(data: Any) -> None:
    if not isinstance(data, dict) or data.get("format") != "bitmar memory":
        raise Damaged("it is not a BitMar memory")
    version = data.get("format_version")
    if type(version) is int and version > VERSION:
        raise MemoryStoreError(f"it has format version {str(version)[:20]} and this BitMar reads up to {VERSION}; update with `pip install --upgrade bitmar`")
    if version != VERSION or type(version) is not int:
        raise Damaged(f"its format version is {str(version)[:20]!r}")
    if tuple(data) != DOCUMENT_KEYS:
        raise Damaged(f"it must hold {', '.join(DOCUMENT_KEYS)}, in this order and nothing else")
    if not isinstance(data["model"], str) or not re.fullmatch(r"[\w.:@+-]{1,200}", data["model"]):
        raise Damaged(f"the name of its model, {str(data['model'])[:60]!r}, is not a digest")
    for name, low, high in (("slots", 0, MAX_SLOTS), ("width", 1, MAX_WIDTH), ("turn", 0, 2**53)):
        _whole(data[name], name, low, high)


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Damaged(f"its {name} is {str(value)[:40]!r}; a whole number from {low} to {high} is needed")
    return value


def _build(tensors: dict[str, np.ndarray], data: dict[str, Any]) -> Snapshot:
    slots, width, rows = data["slots"], data["width"], tensors["undo_keys"].shape[0]
    wanted = {"keys": (slots, width), "values": (slots, width), "occupied": (slots,), "undo_keys": (rows, width), "undo_values": (rows, width)}
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise Damaged(f"its {name} have the shape {list(tensors[name].shape)} and must have {list(shape)}")
        if not np.isfinite(tensors[name]).all():
            raise Damaged(f"its {name} hold numbers that are not finite")
    held: dict[int, Held] = {}
    for item in _items(data["episodes"], "episodes"):
        slot, entry = _read_story(item, data)
        if slot in held:
            raise Damaged(f"it has two episodes in slot {slot}")
        held[slot] = entry
    if set(np.flatnonzero(tensors["occupied"]).tolist()) != set(held):
        raise Damaged("its tensors and its stories disagree on which slots are used")
    changes, row = [], 0
    for change in _items(data["undo"], "undo"):
        if set(change) != {"what", "before"} or not isinstance(change["what"], str):
            raise Damaged("its undo history is malformed")
        check_text("undo line", change["what"])
        before = []
        for item in _items(change["before"], "undo"):
            if item.get("row") is None:
                if set(item) != {"slot", "row"}:
                    raise Damaged("its undo history is malformed")
                before.append(Before(_whole(item["slot"], "slot", 0, slots - 1), None))
                continue
            if _whole(item["row"], "row", 0, rows - 1) != row:
                raise Damaged("its undo history names a vector out of turn")
            slot, entry = _read_story({key: value for key, value in item.items() if key != "row"}, data)
            before.append(Before(slot, entry, tensors["undo_keys"][row], tensors["undo_values"][row]))
            row += 1
        changes.append(Change(change["what"], tuple(before)))
    if row != rows:
        raise Damaged("its undo history leaves vectors without a story")
    return Snapshot(data["model"], tensors["keys"], tensors["values"], held, tuple(changes), data["turn"])


def _items(value: Any, name: str) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Damaged(f"its {name} must be a list of entries")
    return value


_STORY_KEYS = {"slot", "turn", *FIELDS}


def _read_story(item: dict[str, Any], data: dict[str, Any]) -> tuple[int, Held]:
    if set(item) != _STORY_KEYS:
        odd = sorted(str(key)[:60] for key in set(item) ^ _STORY_KEYS)
        raise Damaged(f"an episode has wrong or missing fields: {', '.join(odd)[:200]!r}")
    slot = _whole(item["slot"], "slot", 0, data["slots"] - 1)
    turn = _whole(item["turn"], "turn", 0, data["turn"])
    return slot, Held(Episode(**{name: item[name] for name in FIELDS}), turn)
