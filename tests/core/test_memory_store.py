"""The memory store against a plain reference, damage, lying files, full disks, and writers that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitmar_core.errors import BitMarError, MemoryStoreError, MissingError, TryAgainError, UsageError
from bitmar_core.memory import format as layout
from bitmar_core.memory import generations
from bitmar_core.memory import store as store_module
from bitmar_core.memory.episode import Episode
from bitmar_core.memory.store import MemoryStore

W = 4
ROOT = Path(__file__).resolve().parents[2]


def vectors(seed) -> tuple[np.ndarray, np.ndarray]:
    """Key and value, each [W], that belong to `seed`."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little"))
    return rng.normal(size=W).astype(np.float32), rng.normal(size=W).astype(np.float32)


def encode(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    return vectors("other model: " + episode.task)


def case(task: str, robot: str = "Drone", **more) -> Episode:
    return Episode(task=task, robot=robot, made="2026-01-31T08:00:00Z", **more)


def opened(folder: Path, slots: int = 3, model: str = "model-a", **more) -> MemoryStore:
    return MemoryStore.open(folder, slots=slots, width=W, model=model, **more)


def filled(folder: Path, count: int = 3, **more) -> MemoryStore:
    store = opened(folder, **more)
    for number in range(count):
        store.write(*vectors(number), case(f"task {number}"))
    return store


def contents(store: MemoryStore) -> tuple:
    return store.episodes(), store.keys.tobytes(), store.values.tobytes(), store.occupied.tobytes(), store.undoable()


def disk(folder: Path) -> dict:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in [folder, *folder.rglob("*")]}


def newest(folder: Path) -> Path:
    return sorted(folder.glob("generation-*"))[-1]


def refusal(call, *words: str, kind=MemoryStoreError) -> str:
    """The message of the error that `call` raises: one line that holds `words`."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700, text
    for word in words:
        assert word in text, text
    return text


# ---- the rules, against a plain reference ----


class Reference:
    """What the store should do, written as plainly as can be: a list of cells, a counter, a list of what to put back."""

    def __init__(self, slots: int) -> None:
        self.cells: list[dict | None] = [None] * slots
        self.turn = 0
        self.history: list[dict[int, dict | None]] = []

    def _note(self, slots) -> None:
        self.history = [*self.history, {slot: self.cells[slot] for slot in slots}][-20:]

    def write(self, task: str, robot: str, seed: int, source: str) -> int | None:
        same = [i for i, cell in enumerate(self.cells) if cell and cell["task"].split() == task.casefold().split()]
        free = [i for i, cell in enumerate(self.cells) if cell is None]
        loose = sorted((cell["turn"], i) for i, cell in enumerate(self.cells) if cell and not cell["pinned"])
        if same and source == "observed" and self.cells[same[0]]["source"] != "observed":
            return same[0]
        slot = same[0] if same else free[0] if free else loose[0][1] if loose else None
        if slot is not None:
            self._note([slot])
            self.turn += 1
            pinned = bool(same) and self.cells[slot]["pinned"]
            cell = {"task": task.casefold(), "robot": robot, "seed": seed, "source": source, "pinned": pinned, "uses": 0, "turn": self.turn}
            self.cells[slot] = cell
        return slot

    def pin(self, slot: int, pinned: bool) -> None:
        if self.cells[slot]["pinned"] != pinned:
            self._note([slot])
            self.cells[slot] = {**self.cells[slot], "pinned": pinned}

    def touch(self, slots) -> None:
        for slot in dict.fromkeys(slots):
            if self.cells[slot]:
                self.turn += 1
                self.cells[slot] = {**self.cells[slot], "uses": self.cells[slot]["uses"] + 1, "turn": self.turn}

    def empty(self, slots) -> None:
        if slots:
            self._note(slots)
        for slot in slots:
            self.cells[slot] = None

    def undo(self) -> None:
        for slot, cell in self.history.pop().items():
            self.cells[slot] = cell


TASKS = st.sampled_from(["lift the box", "Lift  the BOX", "scan the dam", "mow", "dive for a pump", "sweep hall 3"])
SLOTS = st.integers(0, 2)
ARGUMENTS = {
    "write": st.tuples(TASKS, st.sampled_from(["Drone", "Legged Robot"]), st.integers(0, 99), st.sampled_from(["taught", "taught", "observed"])),
    "touch": st.tuples(st.lists(SLOTS, max_size=3)),
    "pin": st.tuples(SLOTS, st.booleans()),
    "forget": st.tuples(SLOTS),
    "clear": st.tuples(st.booleans()),
}
# Mostly writes and uses, so that slots run out and the order of use decides.
KINDS = ["write"] * 10 + ["touch"] * 4 + ["pin"] * 2 + ["undo"] * 2 + ["forget", "clear", "load", "other", "export"]
OPERATIONS = st.sampled_from(KINDS).flatmap(lambda kind: ARGUMENTS.get(kind, st.just(())).map(lambda given_: (kind, *given_)))


@settings(max_examples=60, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=10, max_size=40))
def test_store_follows_the_reference(tmp_path_factory, operations):
    folder = tmp_path_factory.mktemp("property") / "memory"
    stores, plain = [opened(folder), opened(folder)], Reference(3)
    with mock.patch("os.fsync"):
        for name, *given_ in operations:
            store = stores[0]
            if name == "write":
                task, robot, seed, source = given_
                expected = plain.write(*given_)
                write = lambda: store.write(*vectors(seed), case(task, robot, source=source))  # noqa: B023, E731
                if expected is None:
                    refusal(write, "pinned")
                else:
                    assert write() == expected
            elif name in ("pin", "forget") and plain.cells[given_[0]] is None:
                refusal(lambda: getattr(store, name)(given_[0]), "empty", kind=UsageError)  # noqa: B023
            elif name == "pin":
                assert store.pin(*given_).pinned is given_[1]
                plain.pin(*given_)
            elif name == "forget":
                assert store.forget(*given_).robot == plain.cells[given_[0]]["robot"]
                plain.empty(given_)
            elif name == "touch":
                store.touch(*given_)
                plain.touch(*given_)
            elif name == "clear":
                slots = [i for i, cell in enumerate(plain.cells) if cell and (given_[0] or not cell["pinned"])]
                assert store.clear(pinned=given_[0]) == len(slots)
                plain.empty(slots)
            elif name == "undo" and not plain.history:
                refusal(store.undo, "nothing to undo", kind=UsageError)
            elif name == "undo":
                store.undo()
                plain.undo()
            elif name == "load":
                stores[0] = opened(folder)
            elif name == "other":  # as if another process went on: it has not seen the last changes
                stores.reverse()
                stores[0].reload_if_changed()
            elif name == "export":
                store.export(folder.parent / "file")
                copy = opened(folder.parent / f"copy{random.random()}")
                assert copy.import_(folder.parent / "file") == len(store)
                assert sorted(e.task for _, e in copy.episodes()) == sorted(e.task for _, e in store.episodes())
            store = stores[0]
            assert len(store.undoable()) == len(plain.history)
            for slot, cell in enumerate(plain.cells):
                episode = store.episode(slot)
                assert bool(store.occupied[slot]) is (cell is not None) is (episode is not None)
                if cell is None:
                    assert not store.keys[slot].any() and not store.values[slot].any()
                    continue
                assert (" ".join(episode.task.casefold().split()), episode.robot) == (" ".join(cell["task"].split()), cell["robot"])
                assert (episode.source, episode.pinned, episode.uses) == (cell["source"], cell["pinned"], cell["uses"])
                assert [store.keys[slot].tolist(), store.values[slot].tolist()] == [vector.tolist() for vector in vectors(cell["seed"])]
    assert contents(opened(folder)) == contents(stores[0])
    assert MemoryStore.verify(folder) == []


def test_same_case_is_the_same_task_site_and_photo(tmp_path):
    store = opened(tmp_path, slots=8)
    photo = "ab" * 32
    first = store.write(*vectors(0), case("Café run", site="Yard  A", image=photo))
    assert store.write(*vectors(1), case("cafe\u0301  RUN", site="yard a", image=photo)) == first
    others = [case("Café run"), case("Café run", site="yard b", image=photo), case("Café run", site="Yard A"), case("Café run", image=photo)]
    assert len({store.write(*vectors(2), episode) for episode in others} | {first}) == 5


def test_a_full_memory_gives_up_its_least_recently_used_slot_and_never_a_pinned_one(tmp_path):
    store = filled(tmp_path, 3)
    store.touch([0])
    store.pin(1)
    store.pin(2), store.pin(2, False)  # which is no use
    assert [store.write(*vectors(n), case(f"new {n}")) for n in range(3)] == [2, 0, 2]
    store.pin(0), store.pin(2)
    before = disk(tmp_path)
    refusal(lambda: store.write(*vectors(0), case("one more")), "all 3 slots", "pinned")
    assert {k: v for k, v in disk(tmp_path).items() if "generation" in k} == {k: v for k, v in before.items() if "generation" in k}
    assert store.write(*vectors(5), case("TASK 1", robot="Legged Robot")) == 1 and store.episode(1).pinned
    assert store.clear() == 0 and store.clear(pinned=True) == 3 and len(store) == 0
    assert "cleared 3" in store.undo() and len(opened(tmp_path)) == 3


def test_undo_reaches_back_at_least_ten_changes_and_over_a_restart(tmp_path):
    filled(tmp_path, 30, slots=4)
    store = opened(tmp_path, slots=4)
    for number in reversed(range(18, 30)):
        assert f"task {number}" in store.undo()
    assert {episode.task for _, episode in store.episodes()} == {f"task {n}" for n in range(14, 18)}


def test_reading_changes_no_byte_and_opening_creates_nothing(tmp_path):
    store = opened(tmp_path / "deep" / "memory")
    assert len(store) == 0 and not store.keys.any() and store.clear() == 0 and not store.reload_if_changed()
    refusal(store.undo, kind=UsageError)
    refusal(lambda: store.forget(0), kind=UsageError)
    assert not (tmp_path / "deep").exists()
    filled(tmp_path / "m")
    before = disk(tmp_path / "m")
    store = opened(tmp_path / "m")
    assert store.keys.dtype == store.values.dtype == np.float32 and store.keys.shape == (3, W)
    with pytest.raises(ValueError):
        store.keys[0] = 1
    store.episodes(), store.undoable(), store.reload_if_changed(), MemoryStore.verify(tmp_path / "m")
    store.export(tmp_path / "out")
    MemoryStore.restore(tmp_path / "m")  # sound: nothing to put back
    after = disk(tmp_path / "m")
    after.pop(str(tmp_path / "m" / "memory.lock")), before.pop(str(tmp_path / "m" / "memory.lock"))
    assert after == before


@pytest.mark.parametrize("bad", [np.zeros(W + 1), np.zeros((1, W)), np.full(W, np.nan), np.full(W, np.inf), np.full(W, 1e300)])
def test_bad_vectors_are_refused(tmp_path, bad):
    store = filled(tmp_path)
    before = contents(store)
    refusal(lambda: store.write(bad, vectors(0)[1], case("x")), "key")
    refusal(lambda: store.write(vectors(0)[0], bad, case("x")), "value")
    assert contents(opened(tmp_path)) == before
    refusal(lambda: store.forget(7), "slot 7", kind=UsageError)


def test_bad_episodes_are_refused():
    for field, value in {"task": " ", "robot": "../x", "image": "../x.png", "confidence": float("nan"), "source": "rumour", "used": "today",
                         "because": "\x1b[2J", "site": "\ud800", "uses": -1, "pinned": 1, "made": "2026-13-41T00:00:00Z"}.items():  # fmt: skip
        refusal(lambda: replace(case("x"), **{field: value}), field)  # noqa: B023


def test_another_model_or_size(tmp_path):
    old = filled(tmp_path)
    before = disk(tmp_path)
    refusal(lambda: opened(tmp_path, model="model-b"), "model-a", "bitmar memory import")
    store = opened(tmp_path, model="model-b", encode=encode)
    assert store.keys[1].tolist() == encode(case("task 1"))[0].tolist() and disk(tmp_path) == before

    def blind(episode):
        raise MissingError("its photo is not here")

    refusal(lambda: opened(tmp_path, model="model-b", encode=blind), "slot 0", "its photo is not here")
    assert "task 2" in store.undo()  # and this saves it for model-b
    assert opened(tmp_path, model="model-b").keys.tolist() == store.keys.tolist()
    refusal(lambda: old.write(*vectors(9), case("late")), "model-b")
    assert opened(tmp_path, model="model-b", slots=9).keys.shape == (9, W)
    refusal(lambda: opened(tmp_path, model="model-b", slots=1), "slot 1", "memory.slots")


def test_export_and_import(tmp_path):
    store = filled(tmp_path / "a")
    store.pin(1)
    store.export(tmp_path / "file")
    other = opened(tmp_path / "b", slots=4)
    other.write(*vectors("own"), case("Task 1", robot="Legged Robot"))
    assert other.import_(tmp_path / "file") == 3
    assert other.episode(0).robot == "Drone" and other.episode(0).source == "imported" and len(other) == 3
    assert np.array_equal(other.keys[0], store.keys[1])
    assert "imported 3" in other.undo() and other.episode(0).robot == "Legged Robot" and len(other) == 1
    other.write(*vectors(7), case("own 2"))
    before = contents(other)
    refusal(lambda: opened(tmp_path / "b", slots=3).import_(tmp_path / "file"), "no free slot", "memory.slots")
    assert contents(opened(tmp_path / "b", slots=4)) == before
    stranger = opened(tmp_path / "c", model="model-b")
    refusal(lambda: stranger.import_(tmp_path / "file"), "model-a", "model-b")
    assert stranger.import_(tmp_path / "file", encode) == 3 and np.array_equal(stranger.keys[1], encode(case("task 1"))[0])
    assert opened(tmp_path / "d").import_(tmp_path / "a") == 3  # a memory's folder
    refusal(lambda: store.import_(tmp_path / "none"), "none", kind=MissingError)
    refusal(lambda: store.export(tmp_path / "file" / "x"), "cannot write", kind=BitMarError)


def test_the_safetensors_library_reads_the_same(tmp_path):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    store = filled(tmp_path, 5)
    tensors = load_file(newest(tmp_path) / "memory.safetensors")
    assert np.array_equal(tensors["keys"], store.keys) and np.array_equal(tensors["occupied"], store.occupied)
    assert np.array_equal(tensors["undo_values"][1], vectors(1)[1])
    store.export(tmp_path / "file")
    assert json.loads(load_file(tmp_path / "file")["document"].tobytes())["model"] == "model-a"


# ---- damage ----


def flips(data: bytes):
    """`data` once for each of its bytes, with that byte changed at random."""
    rng = random.Random(0)
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


@pytest.mark.parametrize("name", ["memory.json", "memory.safetensors"])
def test_any_changed_byte_is_noticed_and_the_last_good_copy_comes_back(tmp_path, name):
    store = filled(tmp_path, 3)
    good = contents(store)
    store.forget(2)
    path = newest(tmp_path) / name
    pair = {part: (newest(tmp_path) / part).read_bytes() for part in ("memory.safetensors", "memory.json")}
    data = pair[name]
    assert contents(opened(tmp_path)) != good
    for at, spoilt_data in enumerate(flips(data)):
        with pytest.raises(layout.Damaged):
            tensors, document = (pair | {name: spoilt_data}).values()
            layout.decode(layout.unpack(tensors, layout.TENSORS), document)
        if at % 10 == 0:
            path.write_bytes(spoilt_data)
            refusal(lambda: opened(tmp_path), "damaged", "last good copy is sound", "bitmar memory verify")
    for at in range(0, len(data), 20):
        path.write_bytes(data[:at])
        refusal(lambda: opened(tmp_path), "damaged")
    path.write_bytes(data + b" ")
    refusal(store.undo, "damaged")  # a store that is open does not write over damage either
    refusal(store.reload_if_changed, "damaged")
    assert len(MemoryStore.verify(tmp_path)) == 1
    MemoryStore.restore(tmp_path)
    assert MemoryStore.verify(tmp_path) == [] and contents(opened(tmp_path)) == good
    assert (next(tmp_path.glob("damaged-*")) / name).read_bytes() == data + b" "
    assert store.reload_if_changed() and contents(store) == good
    opened(tmp_path).write(*vectors(5), case("after"))
    assert len(sorted(tmp_path.glob("generation-*"))) == 2 and newest(tmp_path).name == "generation-00000005"


def test_lost_files_and_no_copy_left(tmp_path):
    store = filled(tmp_path, 2)
    for folder in tmp_path.glob("generation-*"):
        (folder / "memory.json").unlink()
    assert len(MemoryStore.verify(tmp_path)) == 2
    refusal(lambda: opened(tmp_path), "memory.json", "not there", "no sound copy is left")
    refusal(lambda: MemoryStore.restore(tmp_path), "no sound copy")
    refusal(lambda: store.write(*vectors(0), case("x")), "damaged")
    assert len(list(tmp_path.glob("generation-*"))) == 2


def test_any_changed_byte_of_an_export_is_noticed(tmp_path):
    filled(tmp_path / "a", 2).export(tmp_path / "file")
    store = opened(tmp_path / "b")
    for at, data in enumerate(flips((tmp_path / "file").read_bytes())):
        with pytest.raises(layout.Damaged):
            layout.decode_export(data)
        if at % 10 == 0:
            (tmp_path / "file").write_bytes(data)
            refusal(lambda: store.import_(tmp_path / "file"), "not imported", "bitmar memory export")
    assert not (tmp_path / "b").exists()


# ---- files that lie: their digests are right ----


def signed(document: bytes, tensors: dict) -> bytes:
    """`document` with digests that fit."""
    document = re.sub(rb'"sha256_tensors": "\w+"', f'"sha256_tensors": "{layout._tensors_digest(tensors)}"'.encode(), document)
    body = document[: document.rindex(b'"sha256_document"')]
    return body + f'"sha256_document": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def told(*pairs: tuple[str, str]):
    def lie(tensors, document):
        for old, new in pairs:
            assert old.encode() in document
            document = document.replace(old.encode(), new.encode())
        return tensors, document

    return lie


def with_tensor(name, make):
    return lambda tensors, document: (tensors | {name: make(tensors[name])}, document)


def spoilt(array, value):
    array = array.copy()
    array.flat[1] = value
    return array


LIES = {
    "shape": (with_tensor("keys", lambda x: x[:, :2]), "shape"),
    "rows": (with_tensor("values", lambda x: x[:2]), "shape"),
    "nan": (with_tensor("keys", lambda x: spoilt(x, np.nan)), "not finite"),
    "infinite": (with_tensor("values", lambda x: spoilt(x, np.inf)), "not finite"),
    "occupied": (with_tensor("occupied", lambda x: ~x), "disagree"),
    "undo rows": (with_tensor("undo_keys", lambda x: np.zeros((1, W), np.float32)), "undo"),
    "width": (told(('"width": 4', '"width": 5')), "shape"),
    "slots": (told(('"slots": 3', '"slots": 99999999999')), "slots"),
    "newer": (told(('"format_version": 1', '"format_version": 2')), "update"),
    "version": (told(('"format_version": 1', '"format_version": "1"')), "version"),
    "other format": (told(("bitmar memory", "other memory")), "not a BitMar memory"),
    "path in photo": (told(('"image": null', '"image": "../../etc/passwd"')), "image"),
    "path in robot": (told(('"Drone"', '"../../Drone"')), "not a path"),
    "path in model": (told(('"model-a"', '"../model-a"')), "model"),
    "escape": (told(("task 0", "\\u001b[2J")), "control characters"),
    "not a number": (told(('"confidence": 1.0', '"confidence": NaN')), "NaN"),
    "slot": (told(('{"slot": 1', '{"slot": 7')), "slot"),
    "slot twice": (told(('{"slot": 1', '{"slot": 0')), "two episodes"),
    "slot as text": (told(('{"slot": 1', '{"slot": "1"')), "slot"),
    "field gone": (told(('"uses": 0, ', "")), "fields"),
    "field more": (told(('"uses": 0, ', '"uses": 0, "shell": "rm", ')), "fields"),
    "head more": (told(('"turn": 2,\n', '"turn": 2,\n"more": 1,\n')), "nothing else"),
    "future turn": (told(('"turn": 2,\n', '"turn": 0,\n')), "turn"),
    "nested": (told(('"undo": [', '"undo": [' + "[" * 100_000)), "JSON"),
    "huge number": (told(('"uses": 0', '"uses": ' + "9" * 6000)), ""),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_content_is_refused(tmp_path, name):
    filled(tmp_path / "m", 2)
    lie, words = LIES[name]
    folder = newest(tmp_path / "m")
    tensors, document = lie(layout.unpack((folder / "memory.safetensors").read_bytes(), layout.TENSORS), (folder / "memory.json").read_bytes())
    document = signed(document, tensors)
    (folder / "memory.safetensors").write_bytes(layout.pack(tensors, layout.TENSORS))
    (folder / "memory.json").write_bytes(document)
    (tmp_path / "file").write_bytes(layout.pack(tensors | {"document": np.frombuffer(document, "u1")}, layout.EXPORT_TENSORS))
    mend = "update" if name == "newer" else "last good copy"
    refusal(lambda: opened(tmp_path / "m"), words, mend)
    refusal(lambda: opened(tmp_path / "b").import_(tmp_path / "file"), words, "update" if name == "newer" else "bitmar memory export")
    if name == "newer":  # not damage: the newer BitMar still wants it
        refusal(lambda: MemoryStore.restore(tmp_path / "m"), "update")
        assert folder.exists()
    else:
        MemoryStore.restore(tmp_path / "m")
        assert len(opened(tmp_path / "m")) == 1


class Trap:
    def __reduce__(self):
        return os.system, ("touch /tmp/bitmar-trap-sprung",)


def header(table: dict, length: int | None = None) -> bytes:
    text = json.dumps(table).encode()
    return (length or len(text)).to_bytes(8, "little") + text + bytes(400)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short"),
        (pickle.dumps(Trap()), "pickle"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (header({}, 2**40), "header claims"),
        (bytes([255] * 100), "header claims"),
        (header({"../../evil": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "'../../evil'"),
        (header({"keys": {"dtype": "F64", "shape": [1, 4], "data_offsets": [0, 32]}}), "F64"),
        (header({"keys": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 32]}}), "shape"),
        (header({"keys": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 32]}}), "shape"),
        (header({"keys": 3}), "lacks"),
        (header([]), "header"),  # type: ignore[arg-type]
    ],
)
def test_lying_files_are_refused(tmp_path, data, words):
    filled(tmp_path / "m", 2)
    (newest(tmp_path / "m") / "memory.safetensors").write_bytes(data)
    (tmp_path / "file").write_bytes(data)
    refusal(lambda: opened(tmp_path / "m"), words, "last good copy is sound")
    refusal(lambda: opened(tmp_path / "b").import_(tmp_path / "file"), words, "bitmar memory export")
    assert not Path("/tmp/bitmar-trap-sprung").exists()


# ---- disks and folders that refuse ----


def run(script: str, *arguments, **more) -> subprocess.Popen:
    """A fresh Python with the store at hand. Started where the package is, with one thread."""
    start = "import os, sys, signal\nimport numpy as np\nfrom pathlib import Path\nfrom bitmar_core.memory.store import Episode, MemoryStore\n"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", start + script, *map(str, arguments)], env=env, stdout=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize("call", ["os.fsync", "os.rename", "pathlib.Path.mkdir"])
def test_a_disk_that_fills_up_loses_nothing(tmp_path, call):
    store = filled(tmp_path, 2)
    before = contents(store)
    with mock.patch(call, side_effect=OSError(28, "No space left on device")):
        refusal(lambda: store.write(*vectors(9), case("new")), "No space left on device", "nothing was changed")
        assert contents(store) == contents(opened(tmp_path)) == before
    assert not (tmp_path / ".writing").exists()
    store.write(*vectors(9), case("new"))
    assert len(opened(tmp_path)) == 3


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_a_write_that_stops_half_way_loses_nothing(tmp_path):
    # A real limit on file size: the system itself cuts the write short.
    before = contents(filled(tmp_path, 2))
    script = """
import resource
store = MemoryStore.open(Path(sys.argv[1]), slots=3, width=4, model="model-a")
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
try: store.write(np.ones(4), np.ones(4), Episode(task="new", robot="Drone"))
except Exception as error: print(type(error).__name__, error)
"""
    output = run(script, tmp_path).communicate(timeout=60)[0]
    assert output.startswith("MemoryStoreError cannot write") and output.count("\n") == 1, output
    assert contents(opened(tmp_path)) == before and MemoryStore.verify(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_read_only_folder_can_be_read_and_gives_one_line_on_writing(tmp_path):
    before = contents(filled(tmp_path / "m", 2))
    script = """
os.chdir(sys.argv[1])
if os.getuid() == 0: os.setuid(65534)
store = MemoryStore.open(Path("m"), slots=3, width=4, model="model-a")
print(len(store), MemoryStore.verify(Path("m")))
for folder in ("m", "m/below"):
    try: MemoryStore.open(Path(folder), slots=3, width=4, model="model-a").write(np.ones(4), np.ones(4), Episode(task="new", robot="Drone"))
    except Exception as error: print(type(error).__name__, error)
"""
    os.chmod(tmp_path, 0o755)
    os.chmod(tmp_path / "m", 0o555)
    try:
        lines = run(script, tmp_path).communicate(timeout=60)[0].splitlines()
    finally:
        os.chmod(tmp_path / "m", 0o755)
    assert lines[0] == "2 []" and len(lines) == 3, lines
    assert all(line.startswith("MemoryStoreError cannot write") and "Permission denied" in line for line in lines[1:]), lines
    assert contents(opened(tmp_path / "m")) == before
    (tmp_path / "file").write_text("x")
    refusal(lambda: opened(tmp_path / "file"), "file")


# ---- other processes ----


def test_import_needs_no_torch():
    assert run("print('torch' in sys.modules)").communicate(timeout=60)[0] == "False\n"


def test_a_held_lock_and_a_slot_that_changed_meanwhile(tmp_path, monkeypatch):
    store, other = filled(tmp_path), opened(tmp_path)
    other.forget(1)
    other.write(*vectors(8), case("other"))
    refusal(lambda: store.forget(1), "slot 1", "meanwhile", kind=TryAgainError)
    assert store.episode(1).task == "other"
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.05)
    with generations.lock(tmp_path, 1):
        refusal(lambda: store.forget(1), "try again", kind=TryAgainError)
        assert opened(tmp_path).episode(1).task == "other"  # readers do not wait
    store.forget(1)


WRITER = """
store = MemoryStore.open(Path(sys.argv[1]), slots=int(sys.argv[2]), width=4, model="model-a")
name, count = sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
for number in range(count):
    store.write(np.full(4, number), np.full(4, -number), Episode(task=f"{name} {number}", robot="Drone"))
    print(f"{name} {number}", flush=True)
"""


@pytest.mark.parametrize(("processes", "writes"), [(4, 10), pytest.param(8, 50, marks=pytest.mark.slow)])
def test_writers_lose_nothing_to_each_other(tmp_path, processes, writes):
    children = [run(WRITER, tmp_path / "m", 400, f"p{number}", writes) for number in range(processes)]
    while any(child.poll() is None for child in children):  # readers meanwhile always see a sound memory
        opened(tmp_path / "m", slots=400)
        time.sleep(0.01)
    assert [child.wait(timeout=100) for child in children] == [0] * processes
    for child in children:
        child.stdout.close()
    store = opened(tmp_path / "m", slots=400)
    assert {episode.task for _, episode in store.episodes()} == {f"p{p} {n}" for p in range(processes) for n in range(writes)}
    for slot, episode in store.episodes():
        assert store.keys[slot].tolist() == [float(episode.task.split()[1])] * W
    assert MemoryStore.verify(tmp_path / "m") == []


REWRITER = """
store = MemoryStore.open(Path(sys.argv[1]), slots=16, width=4, model="model-a")
print("ready", flush=True)
for number in range(int(sys.argv[2]), 10**6):
    store.write(np.full(4, number), np.full(4, -number), Episode(task=f"task {number % 16}", robot="Drone"))
    print(number, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_9_loses_no_acknowledged_write(tmp_path, kills):
    # Sixteen tasks are written over and over with rising numbers, so each slot shows at once if a write went missing.
    rng, folder = random.Random(kills), tmp_path / "m"
    last, acknowledged, kept = -1, {}, {}
    for _ in range(kills):
        child = run(REWRITER, folder, last + 1)
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        numbers = [int(line) for line in child.communicate(timeout=60)[0].split("\n")[:-1]]
        acknowledged |= {f"task {number % 16}": number for number in numbers}
        store = opened(folder, slots=16)
        kept = {episode.task: int(store.keys[slot][0]) for slot, episode in store.episodes()}
        assert all(kept.get(task, -1) >= number for task, number in acknowledged.items())
        # The write that was under way may have happened; nothing beyond it may.
        assert max(kept.values(), default=-1) <= max([last, *numbers]) + 1
        assert all(store.values[slot].tolist() == [-float(kept[episode.task])] * W for slot, episode in store.episodes())
        assert MemoryStore.verify(folder) == []
        last = max([last, *kept.values()])
    assert last >= kills / 2
    opened(folder, slots=17).write(*vectors(0), case("the lock is free again"))
    assert len(list(folder.glob("generation-*"))) == 2 and not (folder / ".writing").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_dying_at_every_single_step_of_a_save(tmp_path):
    # Where kill -9 at random moments rarely lands: right before and after each call that changes the disk.
    script = """
import builtins, shutil
folder = Path(sys.argv[1])
def opened(): return MemoryStore.open(folder, slots=3, width=4, model="model-a")
steps = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (builtins, "open")]
acknowledged, number, survived = set(), 0, 0
while survived < 2:
    number += 1
    child = os.fork()
    if child == 0:
        count = 0
        def dying(call):
            def wrapper(*args, **named):
                global count
                if args and str(args[0]).startswith("/proc"): return call(*args, **named)
                count += 1
                if count == number: os._exit(9)
                result = call(*args, **named)
                count += 1
                if count == number: os._exit(9)
                return result
            return wrapper
        store = opened()
        for module, name in steps: setattr(module, name, dying(getattr(module, name)))
        store.write(np.ones(4), np.ones(4), Episode(task=f"task {number}", robot="Drone"))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    survived += code == 0
    assert MemoryStore.verify(folder) == [], number
    tasks = {episode.task for _, episode in opened().episodes()}
    if code == 0:
        assert f"task {number}" in tasks
    store = opened()
    store.write(np.ones(4), np.ones(4), Episode(task="acknowledged", robot="Drone"))
    assert MemoryStore.verify(folder) == [], number
print(number)
"""
    child = run(script, tmp_path / "m")
    output = child.communicate(timeout=120)[0]
    assert child.returncode == 0 and int(output) > 20, output
