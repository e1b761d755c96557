"""The conversation. Only the turn that changes is laid out anew; older ones follow in small portions, the latest first."""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import accumulate
from typing import Any

from bitmar_cli.tui.drawing import Line
from bitmar_cli.tui.widgets.lines import Pane, set_title
from bitmar_cli.tui.widgets.turn_lines import turn_lines

PORTION = 0.02
"""Seconds of laying out before the interface gets its turn again."""


class Conversation(Pane):
    """Turns of the state, as lines; stays at the end while it is at the end."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._blocks: list[list[Line]] = []
        self._starts: list[int] = []
        self._first = 0  # turns before this one are not laid out yet
        self._width = 0
        self._busy = False

    def count(self) -> int:
        """Lines laid out so far."""
        return self._starts[-1] + len(self._blocks[-1]) if self._blocks else len(self._lines)

    def line(self, y: int) -> Line:
        """Line `y` of those."""
        if not self._blocks:
            return self._lines[y]
        at = bisect_right(self._starts, y) - 1
        return self._blocks[at][y - self._starts[at]]

    def redraw(self) -> None:
        """Lay out everything anew: another session, another width."""
        if not self.is_mounted or not self.inner:
            return
        self._width = self.inner
        self._lines = self._welcome()
        self._blocks, self._starts, self._first = [], [], len(self.bitmar.state.turns)
        self._more(stay=False)
        self.scroll_end(animate=False, force=True, immediate=True)

    def on_resize(self, event: Any) -> None:
        """Another width is another layout; another height is not."""
        if self.inner != self._width:
            self.redraw()
        elif self.at_end:
            self.scroll_end(animate=False, force=True, immediate=True)

    @property
    def at_end(self) -> bool:
        """Whether the last line can be seen."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    def update_turns(self, only: int | None = None) -> None:
        """The last turn grew, or turns were added; `only` is the index of another one that changed."""
        if not self.is_mounted or not self._width:
            return
        turns = self.bitmar.state.turns
        if len(turns) < self._first + len(self._blocks):
            self.redraw()
            return
        end = self.at_end
        if not self._blocks:
            self._first = min(self._first, len(turns))
        for index in range(max(self._first, self._first + len(self._blocks) - 1), len(turns)) if only is None else (only,):
            at = index - self._first
            if at < 0:
                continue
            block = self._lay_out(index)
            if at < len(self._blocks):
                self._blocks[at] = block
            else:
                self._blocks.append(block)
        self._count()
        if end and only is None:
            self.scroll_end(animate=False, force=True, immediate=True)

    def show_turn(self, index: int) -> None:
        """Bring a turn into view."""
        if 0 <= index - self._first < len(self._starts):
            self.scroll_to(y=self._starts[index - self._first], animate=False, force=True)

    def _lay_out(self, index: int) -> list[Line]:
        state = self.bitmar.state
        turn = state.turns[index]
        step = state.step if turn is state.turn() else None
        return turn_lines(turn, self._width, self.bitmar.glyphs, state.why.get(turn.id), step)

    def _count(self) -> None:
        self._starts = [0, *accumulate(len(block) for block in self._blocks)][:-1]
        self.resized()
        self.hint()

    def hint(self) -> None:
        """What the model is doing, on the border."""
        state = self.bitmar.state
        hint = {"answering": "Esc stops", "loading": "loading the model"}.get(state.status, "")
        set_title(self, "Chat (1)", hint)

    def _more(self, *, stay: bool = True) -> None:
        """Lay out a portion of the turns before the first that is there."""
        self._busy = False
        began, early = time.perf_counter(), []
        turns = self.bitmar.state.turns
        while self._first > 0 and self._first <= len(turns) and time.perf_counter() - began < PORTION:
            self._first -= 1
            early.append(self._lay_out(self._first))
        if early:
            added = sum(len(block) for block in early)
            self._blocks[:0] = reversed(early)
            y = self.scroll_offset.y
            self._count()
            if stay:
                self.scroll_to(y=y + added, animate=False, force=True, immediate=True)
        else:
            self._count()
        if self._first > 0 and not self._busy:
            self._busy = True
            self.set_timer(0.01, self._more)

    def _welcome(self) -> list[Line]:
        dot = self.bitmar.glyphs.dot
        return [
            [("Which robot should go?", "bold")],
            [("Write below what is to be done and press Enter.", "")],
            [],
            [("/image PATH", "key"), (f"  {dot} a photo of the place", "dim")],
            [("/teach ROBOT", "key"), (f" {dot} correct the last answer", "dim")],
            [("/help", "key"), (f"        {dot} all commands   ", "dim"), ("F1", "key"), (" keys", "dim")],
        ]
