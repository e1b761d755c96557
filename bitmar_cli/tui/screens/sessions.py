"""Saved sessions."""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.containers import Horizontal

from bitmar_cli.render import fit, safe
from bitmar_cli.tui import sessions
from bitmar_cli.tui.drawing import Line
from bitmar_cli.tui.screens.base import BitMarScreen, screen_bindings
from bitmar_cli.tui.widgets.lines import ListPane, set_title


class SessionList(ListPane):
    """A line for each, the latest first."""

    saved: list[sessions.Saved] = []

    def redraw(self) -> None:
        """Read the folder anew."""
        self.saved = sessions.saved()
        set_title(self, f"Sessions  {len(self.saved)}", str(sessions.folder()))
        super().redraw()

    def count(self) -> int:
        """At least the line that says there are none."""
        return max(1, len(self.saved))

    def line(self, y: int) -> Line:
        """One session."""
        if not self.saved:
            return [("no sessions are saved yet", "dim")]
        item = self.saved[y]
        width = self.inner
        here = item.name == self.bitmar.state.session
        head = f" {item.name}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(item.changed))}  {'*' if here else ' '} "
        return [(head, "cursor" if y == self.cursor else ""), (fit(safe(item.first), max(0, width - len(head))), "" if y == self.cursor else "dim")]


class SessionsScreen(BitMarScreen):
    """Resume, begin, remove."""

    PLACE = "sessions"
    NAME = "Sessions"
    BINDINGS = screen_bindings("sessions")
    AUTO_FOCUS = "SessionList"

    def body(self) -> ComposeResult:
        """One list."""
        with Horizontal(id="body"):
            yield SessionList(id="sessions")

    def _chosen(self) -> sessions.Saved | None:
        pane = self.query_one(SessionList)
        return pane.saved[pane.cursor] if pane.saved else None

    def action_open_session(self) -> None:
        """Go on with it."""
        item = self._chosen()
        if item is not None and self.bitmar.resume_session(item.name):
            self.bitmar.show_chat()

    def action_begin_session(self) -> None:
        self.bitmar.action_new_session()
        self.bitmar.show_chat()

    def action_remove(self) -> None:
        """Asks first."""
        item = self._chosen()
        if item is None:
            return
        if item.name == self.bitmar.state.session:
            self.bitmar.say("this is the session that is open; begin another one first", "warn")
            return

        def remove() -> None:
            try:
                sessions.remove(item.name)
            except OSError as error:
                self.bitmar.say(f"cannot remove {item.name}: {error.strerror or error}", "bad")
            self.query_one(SessionList).redraw()

        self.bitmar.confirm(f"Delete session {item.name} for good?", remove)
