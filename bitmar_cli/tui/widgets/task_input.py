"""Where a task is written: Enter sends, Ctrl+J breaks the line, Up brings back what was sent, Tab completes."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from bitmar_cli.render import safe
from bitmar_cli.talk import unquoted
from bitmar_cli.tui import commands, keys

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")


class TaskInput(TextArea):
    """Plain text; what is in it means nothing to the terminal."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("input")]

    class Sent(Message):
        """A line to act on."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Dropped(Message):
        """A picture's path was pasted, as terminals do with a dropped file."""

        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

    def __init__(self, **more: Any) -> None:
        super().__init__(soft_wrap=True, show_line_numbers=False, tab_behavior="focus", highlight_cursor_line=False, **more)
        self.sent: list[str] = []
        self._at = 0
        self._draft = ""
        self.limit: int | None = None
        self.border_title = Content("Task (i)  Enter send, Ctrl+J new line, / commands, @ file")

    async def _on_key(self, event: events.Key) -> None:
        first, last = self.cursor_location[0] == 0, self.cursor_location[0] == self.document.line_count - 1
        if event.key == "enter":
            self._take(event)
            self.send()
        elif event.key == "up" and first and self.sent and self._at > 0:
            self._take(event)
            self._recall(self._at - 1)
        elif event.key == "down" and last and self._at < len(self.sent):
            self._take(event)
            self._recall(self._at + 1)
        elif event.key == "tab" and (longer := commands.complete(self.text)) is not None:
            self._take(event)
            self.put(longer)
        elif event.key == "tab" and self.text.startswith("/"):
            self._take(event)  # nothing fits; the focus stays with what is being typed
        else:
            await super()._on_key(event)

    def _take(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()

    def _recall(self, at: int) -> None:
        if self._at == len(self.sent):
            self._draft = self.text
        self._at = at
        self.put(self.sent[at] if at < len(self.sent) else self._draft)

    def put(self, text: str) -> None:
        """Replace the text; the cursor goes to its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def send(self) -> None:
        """Hand the text on and empty the field."""
        text = self.text
        if not text.strip():
            return
        if not self.sent or self.sent[-1] != text:
            self.sent.append(text)
        self._at = len(self.sent)
        self.text = ""
        self.post_message(self.Sent(text))

    def action_newline(self) -> None:
        """A line break at the cursor."""
        self.insert("\n")

    def action_editor(self) -> None:
        """Write the task in the person's editor."""
        from bitmar_cli.tui.outside import edited

        text = edited(self.app, self.text)
        if text is not None:
            self.put(text)

    async def _on_paste(self, event: events.Paste) -> None:
        path = os.path.expanduser(unquoted(event.text.strip()).replace("\\ ", " "))
        if not self.text and "\n" not in path and path.lower().endswith(PICTURES) and os.path.isfile(path):
            event.stop()
            event.prevent_default()
            self.post_message(self.Dropped(path))
            return
        await super()._on_paste(event)

    def show_facts(self, left: str) -> None:
        """The line under the text: a hint, or what is set, and the length."""
        limit = f"/{self.limit:,}" if self.limit else ""
        self.border_subtitle = Content(f"{safe(left)}{len(self.text):,}{limit} characters")

    def on_text_area_changed(self) -> None:
        """The length is shown as it grows."""
        self.screen.facts()  # type: ignore[attr-defined]
