"""A memory while it is being changed: a copy of a snapshot, the rules for slots, and the undo history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from bitmar_core.errors import MemoryStoreError
from bitmar_core.memory.episode import Episode
from bitmar_core.memory.format import Before, Change, Held, Snapshot

UNDO_DEPTH = 20


def frozen(array: np.ndarray) -> np.ndarray:
    """`array`, made read-only: snapshots share arrays."""
    array.setflags(write=False)
    return array


class Draft:
    """What one change does to a snapshot. M slots, W width."""

    def __init__(self, start: Snapshot) -> None:
        self._start = start
        self._keys, self._values = start.keys.copy(), start.values.copy()
        self.held = dict(start.held)
        self.changes = list(start.changes)
        self._turn = start.turn
        self.changed = False

    def find(self, episode: Episode) -> int | None:
        """The slot that holds the same case."""
        place = episode.place
        return next((slot for slot, held in self.held.items() if held.episode.place == place), None)

    def room(self) -> int:
        """The first free slot, else the least recently used one that is not pinned.

        Raises:
            MemoryStoreError: all are pinned.
        """
        slots = self._keys.shape[0]
        if len(self.held) < slots:
            return next(slot for slot in range(slots) if slot not in self.held)
        loose = [slot for slot, held in self.held.items() if not held.episode.pinned]
        if not loose:
            raise MemoryStoreError(f"all {slots} slots of the memory are pinned; unpin or forget one, or raise memory.slots")
        return min(loose, key=lambda slot: self.held[slot].turn)

    def remember(self, what: str, slots: Iterable[int]) -> None:
        """Note what `slots` hold now, so that `undo` can put it back. Call it before changing them."""
        before = []
        for slot in slots:
            held = self.held.get(slot)
            before.append(Before(slot, held, self._keys[slot].copy(), self._values[slot].copy()) if held else Before(slot, None))
        self.changes = [*self.changes, Change(what, tuple(before))][-UNDO_DEPTH:]

    def put(self, slot: int, episode: Episode, key: np.ndarray, value: np.ndarray) -> None:
        """Fill a slot with a case and its vectors [W]. The same case stays pinned where it was."""
        old = self.held.get(slot)
        if old is not None and old.episode.pinned and old.episode.place == episode.place:
            episode = replace(episode, pinned=True)
        self._keys[slot], self._values[slot] = key, value
        self.retell(slot, episode, used=True)

    def retell(self, slot: int, episode: Episode, *, used: bool = False) -> None:
        """Change the story of a slot and keep its vectors; `used` makes it the most recently used."""
        self._turn += used
        self.held[slot] = Held(episode, self._turn if used else self.held[slot].turn)
        self.changed = True

    def drop(self, slot: int) -> None:
        """Empty a slot."""
        self.held.pop(slot, None)
        self._keys[slot], self._values[slot] = 0, 0
        self.changed = True

    def undo(self) -> str:
        """Put back what the last change found, and say what it was. The history must not be empty."""
        change = self.changes.pop()
        for item in change.before:
            self.drop(item.slot)
            if item.held is not None:
                self._keys[item.slot], self._values[item.slot] = item.key, item.value
                self.held[item.slot] = item.held
        self.changed = True
        return change.what

    def snapshot(self) -> Snapshot:
        """The outcome. The draft is not used after it."""
        return Snapshot(self._start.model, frozen(self._keys), frozen(self._values), self.held, tuple(self.changes), self._turn)
