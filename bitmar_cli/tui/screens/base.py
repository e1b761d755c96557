"""What every screen has: the line at the top, the line of messages, the keys, and how it hears of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen

from bitmar_cli.tui import keys
from bitmar_cli.tui.drawing import Line, squeeze
from bitmar_cli.tui.widgets.keybar import KeyBar
from bitmar_cli.tui.widgets.lines import OneLine, Pane

if TYPE_CHECKING:
    from bitmar_cli.tui.app import BitMarApp

WORDS = {"loading": "loading the model", "ready": "ready", "answering": "answering", "stopping": "stopping", "down": "model not running"}


class BitMarScreen(Screen[None]):
    """A screen of the program. A subclass sets `PLACE` and gives `body`."""

    PLACE: ClassVar[str] = "chat"
    NAME: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-low"), (24, "-usual"), (30, "-middling"), (45, "-tall")]
    ESCAPE_TO_MINIMIZE = False

    @property
    def bitmar(self) -> BitMarApp:
        """The application."""
        return self.app  # type: ignore[return-value]

    def compose(self) -> ComposeResult:
        """Top, body, message, keys."""
        yield OneLine(self._top, id="top")
        yield from self.body()
        yield OneLine(self._said, id="said")
        yield KeyBar(self.PLACE, id="keys")

    def body(self) -> ComposeResult:
        """What is between."""
        yield Container(id="body")

    # --- lines ---

    def facts_line(self) -> list[str]:
        """What stands at the top, most important first."""
        state = self.bitmar.state
        facts = [self.NAME] if self.NAME else []
        if state.image:
            picture = state.pictures.get(state.image)
            size = f" {picture.width}x{picture.height}" if picture else ""
            facts.append(state.image.replace("\\", "/").rsplit("/", 1)[-1] + size)
        if state.ready is not None:
            facts.append(state.ready.model)
        if state.memory is not None:
            facts.append(f"mem {len(state.memory.rows)}/{state.memory.slots}")
        if state.seed is not None:
            facts.append(f"seed {state.seed}")
        facts.append(f"session {state.session}")
        return facts

    def state_word(self) -> tuple[str, str]:
        """What the model is doing, and its style."""
        status = self.bitmar.state.status
        return WORDS[status], {"ready": "good", "down": "bad"}.get(status, "warn")

    def _top(self, width: int) -> Line:
        word, style = self.state_word()
        right = f"{self.bitmar.glyphs.bullet} {word} "
        room = width - len(right) - 10
        kept = ""
        for fact in self.facts_line():
            fact = squeeze(fact, 40)
            if len(kept) + len(fact) + 2 <= room:
                kept += "  " + fact
        return [(" bitmar", "bold"), (kept, ""), (" " * max(1, width - 7 - _cells(kept) - len(right)), ""), (right, style)]

    def _said(self, width: int) -> Line:
        state = self.bitmar.state
        return [(squeeze(state.said, width), state.level or "dim")]

    # --- changes ---

    def show(self, changed: set[str]) -> None:
        """Draw what changed. A subclass draws its own panes."""
        for name in ("#top", "#said"):
            self.query_one(name).refresh()

    def redraw_all(self) -> None:
        """Draw everything anew."""
        for pane in self.query(Pane):
            pane.redraw()
        self.show({"status"})

    def on_mount(self) -> None:
        """What the terminal can show decides borders and shades."""
        self.set_class(self.bitmar.glyphs.ascii, "-ascii")
        self.set_class(self.bitmar.plain_colours, "-plain")

    def on_descendant_focus(self) -> None:
        """Other keys work elsewhere."""
        self.query_one(KeyBar).refresh()

    def on_screen_resume(self) -> None:
        """Much may have changed while it was covered."""
        self.call_after_refresh(self.redraw_all)

    def action_back(self) -> None:
        """To the chat."""
        self.bitmar.show_chat()


def _cells(text: str) -> int:
    from bitmar_cli.render import cells

    return cells(text)


def screen_bindings(place: str) -> list[BindingType]:
    """The registry's keys for a screen."""
    found: list[Any] = list(keys.bindings(place))
    assert all(isinstance(binding, Binding) for binding in found)
    return found


__all__ = ["BitMarScreen", "events", "screen_bindings"]
