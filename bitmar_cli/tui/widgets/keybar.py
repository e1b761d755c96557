"""The last line: what can be done here, from the registry of keys."""

from __future__ import annotations

from typing import Any

from textual.widgets import TextArea

from bitmar_cli.tui import keys
from bitmar_cli.tui.drawing import Line
from bitmar_cli.tui.widgets.lines import OneLine


class KeyBar(OneLine):
    """Whole words only; Quit, Stop, Commands and Help stay the longest."""

    def __init__(self, place: str, **more: Any) -> None:
        self.place = place
        super().__init__(self._line, **more)

    def _line(self, width: int) -> Line:
        line: Line = []
        typing = isinstance(self.screen.focused, TextArea)
        for action in keys.footer(self.place, width, typing=typing):
            shown = {"←": "<", "→": ">"}.get(action.shown, action.shown) if self.app.glyphs.ascii else action.shown  # type: ignore[attr-defined]
            line += [(shown, "key"), (f" {action.label}  ", "")]
        return line
