"""Small windows that ask one thing, or show a text. Each gives its answer through `dismiss`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from bitmar_cli.render import safe
from bitmar_cli.tui.drawing import Line, squeeze, wrap
from bitmar_cli.tui.widgets.lines import ListPane, OneLine, Pane

if TYPE_CHECKING:
    from bitmar_cli.tui.app import BitMarApp

ESCAPE: list[BindingType] = [("escape", "cancel", "Cancel")]


class Dialog(ModalScreen[Any]):
    """A window with a title and a hint."""

    BINDINGS = ESCAPE

    def __init__(self, title: str, hint: str) -> None:
        super().__init__(classes="modal")
        self._title, self._hint = title, hint

    @property
    def bitmar(self) -> BitMarApp:
        """The application."""
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        """Title, middle, hint."""
        with Vertical(classes="dialog"):
            yield OneLine(lambda width: [(squeeze(self._title, width), "bold")])
            yield from self.middle()
            yield OneLine(lambda width: [(squeeze(self._hint, width), "dim")])

    def middle(self) -> ComposeResult:
        """What is asked."""
        yield from ()

    def on_mount(self) -> None:
        """What the terminal can show decides borders and shades."""
        self.set_class(self.bitmar.glyphs.ascii, "-ascii")
        self.set_class(self.bitmar.plain_colours, "-plain")

    def action_cancel(self) -> None:
        """Nothing."""
        self.dismiss(None)


class AskText(Dialog):
    """One line of text; None where it was left."""

    def __init__(self, title: str, value: str = "", hint: str = "Enter takes it, Esc leaves") -> None:
        super().__init__(title, hint)
        self._value = value

    def middle(self) -> ComposeResult:
        """A field."""
        yield Input(self._value, id="field", compact=True)

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class Confirm(Dialog):
    """y or n."""

    BINDINGS = [*ESCAPE, ("y,enter", "yes", "Yes"), ("n", "cancel", "No")]

    def __init__(self, question: str) -> None:
        super().__init__(question, "y yes, n no")

    def action_yes(self) -> None:
        """Do it."""
        self.dismiss(True)


class ChoicePane(ListPane):
    """Options, one a line."""

    def __init__(self, options: list[str]) -> None:
        super().__init__()
        self.options = options

    def count(self) -> int:
        """One line each."""
        return len(self.options)

    def line(self, y: int) -> Line:
        """An option."""
        return [(squeeze(f" {safe(self.options[y])}", self.inner), "cursor" if y == self.cursor else "")]

    def get_content_height(self, container: Any, viewport: Any, width: int) -> int:
        """As high as its options."""
        return len(self.options)


class Choose(Dialog):
    """One of several; its index, or None."""

    BINDINGS = [*ESCAPE, ("enter", "take", "Take")]

    def __init__(self, title: str, options: list[str], *, letters: str = "") -> None:
        super().__init__(title, "a letter, or arrows and Enter; Esc leaves" if letters else "arrows and Enter; Esc leaves")
        self._options, self._letters = options, letters

    def middle(self) -> ComposeResult:
        """The list."""
        yield ChoicePane(self._options)

    def on_key(self, event: events.Key) -> None:
        """A letter chooses at once."""
        if self._letters and event.character and event.character in self._letters:
            event.stop()
            self.dismiss(self._letters.index(event.character))

    def action_take(self) -> None:
        """The one under the cursor."""
        self.dismiss(self.query_one(ChoicePane).cursor)


class TextPane(Pane):
    """A text, broken to the width."""

    def __init__(self, rows: list[str]) -> None:
        super().__init__()
        self._rows = rows

    def build(self, width: int) -> list[Line]:
        """Broken lines; those without an indent stand out."""
        lines: list[Line] = []
        for row in self._rows:
            parts = wrap(row, width)
            if row.startswith("  ") and len(parts) > 1:
                parts = [parts[0], *(f"    {part}" for part in wrap(row[len(parts[0]) :].strip(), width - 4))]
            lines += [[(part, "bold" if row and not row.startswith(" ") else "")] for part in parts]
        return lines

    def get_content_height(self, container: Any, viewport: Any, width: int) -> int:
        """As high as the text."""
        return len(self.build(max(1, width)))


class ShowText(Dialog):
    """Something to read."""

    BINDINGS = [*ESCAPE, ("q,f1,question_mark,enter", "cancel", "Close")]

    def __init__(self, title: str, rows: list[str]) -> None:
        super().__init__(title, "arrows scroll, Esc closes")
        self._rows = rows

    def middle(self) -> ComposeResult:
        """The text."""
        yield TextPane(self._rows)
