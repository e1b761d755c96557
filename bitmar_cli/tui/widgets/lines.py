"""Panes made of lines: only those that can be seen are drawn, so ten thousand of them cost what thirty do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from bitmar_cli.render import safe
from bitmar_cli.tui.drawing import Line

if TYPE_CHECKING:
    from bitmar_cli.tui.app import BitMarApp

STYLES = ("dim", "bold", "you", "bot", "good", "warn", "bad", "key", "chosen", "heat", "cursor")


def as_strip(widget: Widget, line: Line, width: int) -> Strip:
    """A line as Textual draws it. Text stands for itself: there is no markup here."""
    base = widget.rich_style
    segments = []
    plain = widget.app.glyphs.ascii  # type: ignore[attr-defined]
    for text, style in line:
        if plain:
            text = text.replace("…", "~")
        if isinstance(style, str):
            style = widget.get_component_rich_style(f"lines--{style}", partial=True) if style else Style.null()
        segments.append(Segment(text, base + style))
    return Strip(segments).adjust_cell_length(width, base)


def set_title(widget: Widget, title: str, foot: str | None = None) -> None:
    """The border's title and subtitle as plain text."""
    widget.border_title = Content(safe(title)) if title else ""
    if foot is not None:
        widget.border_subtitle = Content(safe(foot)) if foot else ""


class OneLine(Widget):
    """A line that a function of the width gives."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{name}" for name in STYLES}
    DEFAULT_CSS = "OneLine { height: 1; width: 1fr; }"

    def __init__(self, compose_line: Callable[[int], Line], **more: Any) -> None:
        super().__init__(**more)
        self._compose_line = compose_line

    def render_line(self, y: int) -> Strip:
        """Only line 0 is there."""
        return as_strip(self, self._compose_line(self.size.width) if y == 0 else [], self.size.width)

    @property
    def text(self) -> str:
        """What it shows."""
        return "".join(text for text, _ in self._compose_line(self.size.width))


class Pane(ScrollView, can_focus=True):
    """Lines with a border. A subclass gives `build`, or `count` and `line` where there are many."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{name}" for name in STYLES}

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._lines: list[Line] = []

    @property
    def bitmar(self) -> BitMarApp:
        """The application."""
        return self.app  # type: ignore[return-value]

    # --- what a subclass gives ---

    def build(self, width: int) -> list[Line]:
        """All lines at this width."""
        return []

    def count(self) -> int:
        """Number of lines."""
        return len(self._lines)

    def line(self, y: int) -> Line:
        """Line `y`."""
        return self._lines[y]

    # --- drawing ---

    @property
    def inner(self) -> int:
        """Columns for text: one stays free for the scrollbar, whether it is there or not, so that lines never change for it."""
        return max(0, self.region.width - self.styles.gutter.width - 1)

    @property
    def text(self) -> str:
        """What it holds, as plain text; for tests, copying and screen readers."""
        return "\n".join("".join(text for text, _ in self.line(y)).rstrip() for y in range(self.count()))

    def redraw(self) -> None:
        """Draw the state anew."""
        if self.is_mounted and self.inner:
            self._lines = self.build(self.inner)
            self.resized()

    def resized(self) -> None:
        """The number of lines changed."""
        self.virtual_size = Size(self.size.width, self.count())
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Lines depend on the width."""
        self.redraw()

    def on_mount(self) -> None:
        """First lines."""
        self.redraw()

    def render_line(self, y: int) -> Strip:
        """Line `y` of what can be seen."""
        at = self.scroll_offset.y + y
        strip = as_strip(self, self.line(at) if at < self.count() else [], self.size.width)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(at)) is not None:
            start, end = span
            size = strip.cell_length
            end = size if end == -1 else end
            style = self.screen.get_component_rich_style("screen--selection")
            parts = [strip.crop(0, start), strip.crop(start, end), strip.crop(end, size)]
            strip = Strip.join([parts[0], Strip(Segment.apply_style(list(parts[1]), post_style=style)), parts[2]])
        return strip.apply_offsets(0, at)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The marked text, for copying."""
        return selection.extract(self.text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Marked text looks different."""
        self.refresh()


class ListPane(Pane):
    """Lines of which one is chosen with the arrow keys or the mouse."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.cursor = 0

    def moved(self) -> None:
        """The cursor went to another line."""

    def move(self, to: int) -> None:
        """Put the cursor on a line and bring it into view."""
        to = max(0, min(to, self.count() - 1))
        changed, self.cursor = to != self.cursor, to
        top, height = self.scroll_offset.y, max(1, self.scrollable_content_region.height)
        if to < top:
            self.scroll_to(y=to, animate=False, force=True)
        elif to >= top + height:
            self.scroll_to(y=to - height + 1, animate=False, force=True)
        self.refresh()
        if changed:
            self.moved()

    def on_key(self, event: events.Key) -> None:
        """Arrows, pages, ends."""
        page = max(1, self.scrollable_content_region.height - 1)
        steps = {"up": -1, "down": 1, "pageup": -page, "pagedown": page, "home": -self.count(), "end": self.count()}
        if event.key in steps:
            event.stop()
            event.prevent_default()
            self.move(self.cursor + steps[event.key])

    def on_click(self, event: events.Click) -> None:
        """Choose with the mouse."""
        at = self.scroll_offset.y + event.get_content_offset_capture(self).y
        if 0 <= at < self.count():
            self.move(at)

    def resized(self) -> None:
        """As for a pane; the cursor stays inside."""
        super().resized()
        if self.cursor >= self.count():
            self.move(self.count() - 1)
