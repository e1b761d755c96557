"""The memory store: M slots of remembered cases that outlive the program. Needs NumPy and filelock, no torch.

M slots, W width of keys and values. How bytes look stands in format.py, where files lie in generations.py.

A store holds a snapshot of what is on disk. Reading uses the snapshot and touches nothing. Every change takes the lock, reads
what is on disk now, changes that, and saves it, so two processes lose nothing to each other. What was forgotten or replaced
stays in the undo history and the last good copy until later changes push it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bitmar_core.errors import BitMarError, MemoryStoreError, TryAgainError, UsageError
from bitmar_core.memory import generations
from bitmar_core.memory.draft import Draft, frozen
from bitmar_core.memory.episode import Episode, now
from bitmar_core.memory.format import Before, Change, Held, Snapshot, encode_export, occupied

__all__ = ["Encode", "Episode", "MemoryStore"]

LOCK_SECONDS = 30.0

Encode = Callable[[Episode], tuple[Any, Any]]
"""Gives key [W] and value [W] of an episode; raises BitMarError where it cannot, say for want of the photo."""
T = TypeVar("T")


class MemoryStore:
    """Remembered cases, at most one a slot. Build it with `MemoryStore.open`."""

    def __init__(self, folder: Path, *, slots: int, width: int, model: str, encode: Encode | None = None) -> None:
        self.folder = Path(folder)
        self.slots = slots
        self.width = width
        self.model = model
        self._encode = encode
        self._raw: Snapshot | None = None  # as on disk
        self._stamp: tuple[int, ...] = ()
        self._now = self._empty()  # the same, fitted to our model and number of slots

    @classmethod
    def open(cls, folder: Path, *, slots: int, width: int, model: str, encode: Encode | None = None) -> MemoryStore:
        """Read the store in `folder`, or start an empty one; nothing is created on disk until the first write.

        Args:
            folder: where it lies.
            slots: M. A store that was made with another number is fitted, as long as its used slots fit.
            width: W.
            model: digest of the checkpoint that the vectors fit.
            encode: re-encodes the episodes of a store that another model made; saved with the next change.

        Raises:
            MemoryStoreError: damaged (says whether the last good copy is sound), newer, unreadable, made by another model and
                no `encode`, or more slots in use than `slots`.
        """
        store = cls(folder, slots=slots, width=width, model=model, encode=encode)
        store._take(*generations.read_newest(store.folder))
        return store

    # ---- reading: nothing here touches the disk, but for `reload_if_changed` and `export` ----

    def __len__(self) -> int:
        """Number of slots in use."""
        return len(self._now.held)

    @property
    def keys(self) -> np.ndarray:
        """float32 [M, W], read-only; free slots are zero."""
        return self._now.keys

    @property
    def values(self) -> np.ndarray:
        """float32 [M, W], read-only; free slots are zero."""
        return self._now.values

    @property
    def occupied(self) -> np.ndarray:
        """bool [M]: the slots in use."""
        return occupied(self._now)

    def episode(self, slot: int) -> Episode | None:
        """The episode in a slot, or None.

        Raises:
            UsageError: no such slot.
        """
        held = self._now.held.get(self._slot(slot))
        return held.episode if held else None

    def episodes(self) -> list[tuple[int, Episode]]:
        """Slot and episode of every slot in use, by slot."""
        return [(slot, self._now.held[slot].episode) for slot in sorted(self._now.held)]

    def next_slot(self) -> int | None:
        """Where `write` would put a new case now; None where every slot is pinned."""
        if len(self) == self.slots and all(held.episode.pinned for held in self._now.held.values()):
            return None
        return Draft(self._now).room()

    def undoable(self) -> list[str]:
        """What `undo` would take back, the next first."""
        return [change.what for change in reversed(self._now.changes)]

    def reload_if_changed(self) -> bool:
        """Read again where another process has saved; tells whether it had.

        Raises:
            MemoryStoreError: as `open`; the store keeps what it held.
        """
        found = generations.numbers(self.folder)
        if (generations.stamp(self.folder, found[-1]) if found else ()) == self._stamp:
            return False
        self._take(*generations.read_newest(self.folder, self._raw))
        return True

    # ---- changing: each of these takes the lock and saves ----

    def write(self, key: Any, value: Any, episode: Episode) -> int:
        """Remember a case and give its slot.

        The same case (task, site and image; case and spacing level) replaces its own slot and stays pinned where it was; but an
        observed answer never replaces what a person taught or imported, and then nothing changes. A new case takes the first
        free slot, else the least recently used one that is not pinned.

        Args:
            key: [W], finite.
            value: [W], finite.
            episode: the story.

        Raises:
            MemoryStoreError: all slots are pinned, a vector of the wrong shape or not finite, or it cannot be saved.
            TryAgainError: the lock is held for too long.
        """
        key, value = self._vector(key, "key"), self._vector(value, "value")

        def edit(draft: Draft) -> int:
            slot = draft.find(episode)
            if slot is not None and episode.source == "observed" and draft.held[slot].episode.source != "observed":
                return slot
            if slot is None:
                slot = draft.room()
            draft.remember(f"remembered {episode.brief()} (slot {slot})", [slot])
            draft.put(slot, episode, key, value)
            return slot

        return self._change(edit)

    def forget(self, slot: int) -> Episode:
        """Empty a slot and give what it held.

        Raises:
            UsageError: no such slot, or an empty one.
            MemoryStoreError: it cannot be saved.
            TryAgainError: another process changed that slot since it was read here, or holds the lock for too long.
        """
        seen = self._now.held.get(self._slot(slot))

        def edit(draft: Draft) -> Episode:
            episode = _same_case(draft, slot, seen)
            draft.remember(f"forgot {episode.brief()} (slot {slot})", [slot])
            draft.drop(slot)
            return episode

        return self._change(edit, on_empty=edit)

    def pin(self, slot: int, pinned: bool = True) -> Episode:
        """Keep a slot from being replaced, or let it be replaced again; gives the episode as it is now. Raises as `forget`."""
        seen = self._now.held.get(self._slot(slot))

        def edit(draft: Draft) -> Episode:
            episode = _same_case(draft, slot, seen)
            if episode.pinned != pinned:
                draft.remember(f"{'pinned' if pinned else 'unpinned'} {episode.brief()} (slot {slot})", [slot])
                episode = replace(episode, pinned=bool(pinned))
                draft.retell(slot, episode)
            return episode

        return self._change(edit, on_empty=edit)

    def touch(self, slots: Iterable[int]) -> None:
        """Count a use of each of `slots`. One that changed or emptied meanwhile is passed over. Not undone by `undo`.

        Raises:
            UsageError: no such slot.
            MemoryStoreError, TryAgainError: it cannot be saved.
        """
        wanted = [self._slot(slot) for slot in dict.fromkeys(slots)]
        before = self._now

        def edit(draft: Draft) -> None:
            for slot in wanted:
                held, seen = draft.held.get(slot), before.held.get(slot)
                if held and seen and held.episode.place == seen.episode.place:
                    draft.retell(slot, replace(held.episode, uses=held.episode.uses + 1, used=now()), used=True)

        if wanted:
            self._change(edit, on_empty=edit)

    def clear(self, *, pinned: bool = False) -> int:
        """Empty every slot, the pinned ones only with `pinned`; gives how many. Raises as `forget`."""

        def edit(draft: Draft) -> int:
            slots = [slot for slot, held in sorted(draft.held.items()) if pinned or not held.episode.pinned]
            if slots:
                draft.remember(f"cleared {len(slots)} episodes", slots)
                for slot in slots:
                    draft.drop(slot)
            return len(slots)

        return self._change(edit, on_empty=edit)

    def undo(self) -> str:
        """Take back the last change, whichever process made it, and say what it was. The last 20 changes can be taken back.

        Raises:
            UsageError: nothing to undo.
            MemoryStoreError, TryAgainError: it cannot be saved.
        """

        def edit(draft: Draft) -> str:
            if not draft.changes:
                raise UsageError("nothing to undo in this memory; `bitmar memory list` shows what it holds")
            return draft.undo()

        return self._change(edit, on_empty=edit)

    # ---- sharing ----

    def export(self, path: Path) -> None:
        """Write all episodes, without the undo history, as one file that names the model it fits. Replaces `path`.

        Raises:
            BitMarError: it cannot be written.
        """
        from bitmar_core.paths import write_atomic

        self.reload_if_changed()
        write_atomic(Path(path), encode_export(self._now))

    def import_(self, path: Path, encode: Encode | None = None) -> int:
        """Add the episodes of an export, or of another memory's folder, and give how many. All or none; one `undo` takes them back.

        The same case replaces its own slot; nothing else is pushed out. Vectors of another model are not mixed in: its
        episodes are encoded anew, with `encode` or the one the store was opened with.

        Raises:
            MissingError: no such file.
            MemoryStoreError: damaged, newer, of another model without `encode`, an episode that cannot be encoded, or no room.
            TryAgainError: the lock is held for too long.
        """
        path = Path(path)
        incoming = generations.read_import(path)
        encode = encode or self._encode
        if (incoming.model, incoming.width) != (self.model, self.width):
            if encode is None:
                raise MemoryStoreError(
                    f"{path} fits the model {incoming.model[:12]}, not {self.model[:12]}; import it with the model loaded, which encodes its episodes anew"
                )
            incoming = self._encode_anew(incoming, encode, where=str(path))
        order = sorted(incoming.held, key=lambda slot: incoming.held[slot].turn)

        def edit(draft: Draft) -> int:
            own = {held.episode.place: slot for slot, held in draft.held.items()}
            free = iter([slot for slot in range(self.slots) if slot not in draft.held])
            plan = []
            for row in order:
                place = incoming.held[row].episode.place
                slot = own.get(place)
                if slot is None:
                    slot = own[place] = next(free, -1)
                plan.append((row, slot))
            short = len({incoming.held[row].episode.place for row, slot in plan if slot < 0})
            if short:
                raise MemoryStoreError(
                    f"{path}: {short} of its {len(order)} episodes find no free slot, so nothing was imported; raise memory.slots or forget some"
                )
            if plan:
                draft.remember(f"imported {len(plan)} episodes from {path.name!a}", dict.fromkeys(slot for _, slot in plan))
            for row, slot in plan:
                draft.put(slot, replace(incoming.held[row].episode, source="imported"), incoming.keys[row], incoming.values[row])
            return len(plan)

        return self._change(edit) if order else 0

    # ---- health ----

    @staticmethod
    def verify(folder: Path) -> list[str]:
        """What is wrong with the store in `folder` and its last good copy, one line each; [] where all is sound or nothing is there."""
        return generations.verify(Path(folder))

    @staticmethod
    def restore(folder: Path) -> None:
        """Put the last good copy back where the store is damaged. The damaged one is set aside, not deleted; a sound store stays.

        Raises:
            MemoryStoreError: no sound copy is left, or the folder cannot be written; nothing was changed.
            TryAgainError: the lock is held for too long.
        """
        generations.restore(Path(folder), LOCK_SECONDS)

    # ---- inside ----

    def _change(self, edit: Callable[[Draft], T], on_empty: Callable[[Draft], T] | None = None) -> T:
        """Run `edit` on what is on disk now and save. With `on_empty`, a store that was never written stays unmade."""
        if on_empty is not None and not generations.numbers(self.folder):
            return on_empty(Draft(self._empty()))
        with generations.lock(self.folder, LOCK_SECONDS):
            self._take(*generations.read_newest(self.folder, self._raw))
            draft = Draft(self._now)
            result = edit(draft)
            if draft.changed:
                self._take(*generations.save(self.folder, draft.snapshot()))
        return result

    def _take(self, raw: Snapshot | None, stamp: tuple[int, ...]) -> None:
        if raw is None or raw is not self._raw:
            self._now = self._fit(raw)  # first, for it may raise
        self._raw, self._stamp = raw, stamp

    def _empty(self) -> Snapshot:
        zeros = frozen(np.zeros((self.slots, self.width), dtype=np.float32))
        return Snapshot(self.model, zeros, zeros, {})

    def _fit(self, raw: Snapshot | None) -> Snapshot:
        """`raw` with our model, width and number of slots."""
        if raw is None:
            return self._empty()
        highest = max(raw.held, default=-1)
        if highest >= self.slots:
            raise MemoryStoreError(f"the memory in {self.folder} uses slot {highest} and memory.slots is {self.slots}; set memory.slots to {raw.slots}")
        if raw.slots != self.slots:
            rows = min(raw.slots, self.slots)
            resized = [np.zeros((self.slots, raw.width), dtype=np.float32) for _ in range(2)]
            resized[0][:rows], resized[1][:rows] = raw.keys[:rows], raw.values[:rows]
            changes = tuple(change for change in raw.changes if all(item.slot < self.slots for item in change.before))
            raw = replace(raw, keys=frozen(resized[0]), values=frozen(resized[1]), changes=changes)
        if (raw.model, raw.width) == (self.model, self.width):
            return raw
        if self._encode is None:
            raise MemoryStoreError(
                f"the memory in {self.folder} was made by the model {raw.model[:12]}, not {self.model[:12]}; "
                "use that model, or move the folder away and `bitmar memory import` it, which encodes its episodes anew"
            )
        return self._encode_anew(raw, self._encode, where=f"the memory in {self.folder}")

    def _encode_anew(self, old: Snapshot, encode: Encode, *, where: str) -> Snapshot:
        """The episodes of `old` with vectors of our model. Undo goes back only as far as its episodes can be encoded."""

        def vectors(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
            key, value = encode(episode)
            return self._vector(key, "key"), self._vector(value, "value")

        keys, values = (np.zeros((old.slots, self.width), dtype=np.float32) for _ in range(2))
        for slot, held in old.held.items():
            try:
                keys[slot], values[slot] = vectors(held.episode)
            except BitMarError as error:
                raise MemoryStoreError(
                    f"{where} was made by the model {old.model[:12]}, and its slot {slot} ({held.episode.brief()}) cannot be encoded anew: {error}"
                ) from error
        changes: list[Change] = []
        try:
            for change in reversed(old.changes):
                changes.insert(0, replace(change, before=tuple(Before(b.slot, b.held, *vectors(b.held.episode)) if b.held else b for b in change.before)))
        except BitMarError:
            pass
        return replace(old, model=self.model, keys=frozen(keys), values=frozen(values), changes=tuple(changes), digest="", tensors_digest="")

    def _slot(self, slot: int) -> int:
        if isinstance(slot, bool) or not isinstance(slot, (int, np.integer)) or not 0 <= slot < self.slots:
            raise UsageError(f"no slot {slot}: this memory has the slots 0 to {self.slots - 1}")
        return int(slot)

    def _vector(self, vector: Any, name: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            array = np.array(vector, dtype=np.float32)  # a copy: the caller may go on with its own
        if array.shape != (self.width,):
            raise MemoryStoreError(f"a {name} has the shape {list(array.shape)} and must have [{self.width}]")
        if not np.isfinite(array).all():
            raise MemoryStoreError(f"a {name} holds numbers that are not finite; nothing was remembered")
        return frozen(array)


def _same_case(draft: Draft, slot: int, seen: Held | None) -> Episode:
    """The episode in `slot`, where it is still the case that was `seen` there: a slot's number alone could hit another one."""
    held = draft.held.get(slot)
    if (held.episode.place if held else None) != (seen.episode.place if seen else None):
        raise TryAgainError(f"slot {slot} was changed by another BitMar meanwhile; look again with `bitmar memory list`")
    if held is None:
        raise UsageError(f"slot {slot} is empty; `bitmar memory list` shows the slots in use")
    return held.episode
