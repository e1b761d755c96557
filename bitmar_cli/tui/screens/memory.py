"""The memory inspector: every slot, its numbers, its story, and what the answer would be without it."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from bitmar_cli.tui.drawing import squeeze
from bitmar_cli.tui.screens.base import BitMarScreen, screen_bindings
from bitmar_cli.tui.widgets.slot_panes import SlotStory, WhyPane, story_text
from bitmar_cli.tui.widgets.slots import SORTS, Slots


class MemoryScreen(BitMarScreen):
    """Slots on the left, the chosen one on the right, reasons below."""

    PLACE = "memory"
    NAME = "Memory"
    BINDINGS = screen_bindings("memory")
    AUTO_FOCUS = "Slots"

    def body(self) -> ComposeResult:
        """Two columns and a strip."""
        with Horizontal(id="body"):
            yield Slots(id="slots")
            yield SlotStory(id="slots-side")
        yield WhyPane(id="why-pane")

    def facts_line(self) -> list[str]:
        """Use, pins and what similarity is to."""
        state = self.bitmar.state
        if state.memory is None:
            return [self.NAME, "off" if state.ready is not None and not state.ready.memory else "not read yet"]
        rows = state.memory.rows
        facts = [self.NAME, f"{len(rows)} used of {state.memory.slots}", f"pinned {sum(row.pinned for row in rows)}"]
        if state.frozen:
            facts.append("frozen")
        question = state.question()
        if question is not None:
            facts.append(f"sim: {squeeze(question.task, 26)!r}")
        return facts

    def show(self, changed: set[str]) -> None:
        """Panes follow the state."""
        super().show(changed)
        if changed & {"memory", "ended", "session", "turn"}:
            self.query_one(Slots).redraw()
        if changed & {"memory", "answer", "turns", "ended", "session", "turn"}:
            self._chosen()
        if changed & {"memory", "ended"}:
            self.bitmar.controller.near()

    def redraw_all(self) -> None:
        """Also ask for similarities."""
        super().redraw_all()
        self.bitmar.controller.near()

    @on(Slots.Chosen)
    def _chosen(self) -> None:
        self.query_one(SlotStory).redraw()
        self.query_one(WhyPane).redraw()

    def chosen_slot(self) -> int | None:
        """The slot under the cursor where it holds a story; else the reason is said."""
        row = self.query_one(Slots).row()
        if row is None:
            self.bitmar.say("no filled slot is chosen", "warn")
            return None
        return row.slot

    # --- actions ---

    def action_teach(self) -> None:
        self.bitmar.teach()

    def action_forget(self) -> None:
        """Asks first."""
        slot = self.chosen_slot()
        if slot is not None:
            self.bitmar.confirm(f"Forget slot {slot}?", lambda: self.bitmar.attempt(lambda: self.bitmar.controller.change("forget", slot=slot)))

    def action_pin(self) -> None:
        """Pin or unpin."""
        row = self.query_one(Slots).row()
        if self.chosen_slot() is not None and row is not None:
            self.bitmar.attempt(lambda: self.bitmar.controller.change("unpin" if row.pinned else "pin", slot=row.slot))

    def action_undo(self) -> None:
        self.bitmar.attempt(lambda: self.bitmar.controller.change("undo"))

    def action_without(self) -> None:
        """A rerun with the slot masked."""
        slot = self.chosen_slot()
        if slot is not None:
            self.bitmar.attempt(lambda: self.bitmar.controller.without(slot))

    def action_sort(self) -> None:
        """The next order."""
        slots = self.query_one(Slots)
        slots.sort = SORTS[(SORTS.index(slots.sort) + 1) % len(SORTS)]
        slots.redraw()

    def action_find(self) -> None:
        """Ask for a text."""

        def find(text: str) -> None:
            slots = self.query_one(Slots)
            slots.find = text.strip()
            slots.redraw()
            slots.move(0)
            self._chosen()
            self.bitmar.say(f"{slots.count()} slots hold {text!r}" if text.strip() else "all slots")

        self.bitmar.ask_text("Find in stories (empty shows all)", self.query_one(Slots).find, find)

    def action_empty(self) -> None:
        """Show or fold the empty slots."""
        slots = self.query_one(Slots)
        slots.empty = not slots.empty
        slots.redraw()

    def action_export_memory(self) -> None:
        change = self.bitmar.controller.change
        self.bitmar.ask_text("Export the memory to a file", "memory-export.json", lambda path: change("export", path=path))

    def action_import_memory(self) -> None:
        change = self.bitmar.controller.change
        self.bitmar.ask_text("Import a file that was exported", "", lambda path: change("import", path=path))

    def action_diff(self) -> None:
        change = self.bitmar.controller.change
        self.bitmar.ask_text("Compare with an exported memory", "", lambda path: change("diff", path=path))

    def action_copy_slot(self) -> None:
        """Its story to the clipboard."""
        row = self.query_one(Slots).row()
        if self.chosen_slot() is not None and row is not None:
            self.app.copy_to_clipboard(story_text(row))
            self.bitmar.say(f"copied slot {row.slot}")
