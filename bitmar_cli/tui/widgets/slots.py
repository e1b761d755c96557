"""The memory's slots as a list, with a heat map of the stored numbers. Ten thousand of them scroll as ten do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from textual.message import Message

from bitmar_cli.render import fit, safe
from bitmar_cli.tui.drawing import Line, num
from bitmar_cli.tui.protocol import SlotRow
from bitmar_cli.tui.state import State
from bitmar_cli.tui.widgets.lines import ListPane, set_title

SORTS = ("similarity", "slot", "age", "uses")
WIDE = 70
"""Columns from which a slot's robot and weight stand in its line."""


def age_days(row: SlotRow, now: datetime | None = None) -> int:
    """Whole days since it was made."""
    now = now or datetime.now(UTC)
    return max(0, (now - datetime.fromisoformat(row.made.replace("Z", "+00:00"))).days)


def ordered(state: State, sort: str, find: str = "") -> list[tuple[int, SlotRow]]:
    """(index among the rows, row) of the slots whose story holds `find`, in order."""
    if state.memory is None:
        return []
    rows = list(enumerate(state.memory.rows))
    if find:
        wanted = find.casefold()
        rows = [(at, row) for at, row in rows if wanted in f"{row.task}\n{row.site or ''}\n{row.robot}\n{row.because}".casefold()]
    near = state.nearness.similarity if state.nearness else {}
    weight = state.weights()
    match sort:
        case "similarity":
            rows.sort(key=lambda pair: (-weight.get(pair[1].slot, 0.0), -near.get(pair[1].slot, -2.0), pair[1].slot))
        case "age":
            rows.sort(key=lambda pair: pair[1].made, reverse=True)
        case "uses":
            rows.sort(key=lambda pair: (-pair[1].uses, pair[1].slot))
    return rows


class Slots(ListPane):
    """One line for each slot."""

    class Chosen(Message):
        """The cursor is on another slot."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.sort, self.find, self.empty = "similarity", "", False
        self._rows: list[tuple[int, SlotRow | None, int]] = []
        self._free = 0

    def redraw(self) -> None:
        """Order the rows anew; the cursor stays on its slot."""
        state = self.bitmar.state
        before = self.slot()
        self._rows = [(at, row, row.slot) for at, row in ordered(state, self.sort, self.find)]
        free = 0
        if state.memory is not None:
            free = state.memory.slots - len(state.memory.rows)
            if self.empty and not self.find:
                used = {row.slot for row in state.memory.rows}
                self._rows += [(-1, None, slot) for slot in range(state.memory.slots) if slot not in used]
        self._free = free
        if self.is_mounted and self.inner:
            at = next((i for i, item in enumerate(self._rows) if item[2] == before), None)
            if at is not None and at != self.cursor:
                self.cursor = at
            self._title()
            self.resized()

    def _title(self) -> None:
        state = self.bitmar.state
        wide = self.inner >= WIDE
        head = f"{'#':>{self._digits - 1}}   sim" + ("   wt" if wide else "") + "  age  use p" + (" robot" if wide else " its numbers")
        facts = [f"sort: {self.sort}", f"find: {self.find}" if self.find else ""]
        facts.append(f"{self._free} empty {'shown' if self.empty else 'folded'}" if self._free else "full" if state.memory else "")
        set_title(self, head, f" {self.bitmar.glyphs.dot} ".join(fact for fact in facts if fact))

    @property
    def _digits(self) -> int:
        memory = self.bitmar.state.memory
        return max(2, len(str(memory.slots - 1))) if memory is not None else 2

    def slot(self) -> int | None:
        """The slot under the cursor."""
        return self._rows[self.cursor][2] if self.cursor < len(self._rows) else None

    def row(self) -> SlotRow | None:
        """Its story; None where it is empty."""
        return self._rows[self.cursor][1] if self.cursor < len(self._rows) else None

    def moved(self) -> None:
        """Tell the screen."""
        self.post_message(self.Chosen())

    def count(self) -> int:
        """A line for the headings and one for each slot."""
        return len(self._rows)

    def line(self, y: int) -> Line:
        """One slot."""
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        at, row, slot = self._rows[y]
        width = self.inner
        style = "cursor" if y == self.cursor else ""
        mark = glyphs.fold if y == self.cursor else " "
        if row is None:
            return [(fit(f"{mark}{slot:0{self._digits}} empty", width), style or "dim")]
        near = state.nearness.similarity.get(slot) if state.nearness else None
        similar = num(near, sign=True) if near is not None else ""
        wide = width >= WIDE
        weight = state.weights().get(slot)
        decides = f" {num(weight) if weight else '':>4}" if wide else ""
        head = f"{mark}{slot:0{self._digits}} {similar:>4}{decides} {min(age_days(row), 9999):>4} {min(row.uses, 9999):>4} {'P' if row.pinned else ' '} "
        name = fit(safe(row.robot), 18) + " " if wide else ""
        rest = max(0, width - len(head) - len(name))
        cells = next((size for size in (128, 64, 32) if size <= rest - (24 if size > 32 else 0)), min(rest, 16))
        heat = glyphs.heat(state.values(at), state.memory.scale if state.memory else 0.0, cells)
        task = fit(safe(row.task), rest - cells - 1) if rest - cells > 12 else ""
        return [(head, style), (name, style), (heat, "heat"), (f" {task}" if task else "", style or "dim")]
