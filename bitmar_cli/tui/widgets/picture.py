"""The photo as the model sees it, two pixels a character, with the attention of a step over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from bitmar_cli.tui.drawing import Glyphs, num
from bitmar_cli.tui.protocol import Looked
from bitmar_cli.tui.widgets.lines import Pane, as_strip, set_title

HOT = (255, 170, 0)


def fitted(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the largest square on `width` x `height` characters, each twice as high as wide."""
    rows = max(1, min(height, width // 2))
    return rows * 2, rows


def attention_at(grid: Sequence[float], side: int, x: float, y: float) -> float:
    """Attention at a point of the unit square, between patch centres in proportion."""
    gx, gy = min(max(x * side - 0.5, 0.0), side - 1.0), min(max(y * side - 0.5, 0.0), side - 1.0)
    x0, y0 = int(gx), int(gy)
    x1, y1 = min(x0 + 1, side - 1), min(y0 + 1, side - 1)
    fx, fy = gx - x0, gy - y0
    top = grid[y0 * side + x0] * (1 - fx) + grid[y0 * side + x1] * fx
    low = grid[y1 * side + x0] * (1 - fx) + grid[y1 * side + x1] * fx
    return top * (1 - fy) + low * fy


class Raster:
    """Samples a photo and its attention for a size in characters."""

    def __init__(self, picture: Looked, attention: Sequence[float], columns: int, rows: int, *, zoom: bool = False) -> None:
        self.picture, self.columns, self.rows = picture, columns, rows
        self.side = math.isqrt(len(attention)) if attention else 0
        if self.side * self.side != len(attention):
            self.side = 0
        self.attention = attention
        self.highest = max(attention, default=0.0) if self.side else 0.0
        self.low = min(attention, default=0.0)
        self.x0, self.y0, self.span = 0.0, 0.0, 1.0
        if zoom:
            px, py = self.peak() or (0, 0)
            side = self.side or 1
            self.span = 0.5
            self.x0, self.y0 = (min(max((p + 0.5) / side - 0.25, 0.0), 0.5) for p in (px, py))

    def peak(self) -> tuple[int, int] | None:
        """Column and row of the patch that is looked at most."""
        if not self.side:
            return None
        at = max(range(len(self.attention)), key=self.attention.__getitem__)
        return at % self.side, at // self.side

    def point(self, column: int, half_row: int) -> tuple[float, float]:
        """Where a half character lies in the photo's unit square."""
        return self.x0 + (column + 0.5) / self.columns * self.span, self.y0 + (half_row + 0.5) / (2 * self.rows) * self.span

    def colour(self, column: int, half_row: int) -> tuple[int, int, int]:
        """The photo there."""
        x, y = self.point(column, half_row)
        side = self.picture.side
        at = (min(int(y * side), side - 1) * side + min(int(x * side), side - 1)) * 3
        return self.picture.pixels[at], self.picture.pixels[at + 1], self.picture.pixels[at + 2]

    def share(self, column: int, half_row: int) -> float:
        """Attention there, 0 for the least and 1 for the most of any patch."""
        if not self.side or self.highest <= self.low:
            return 0.0
        return (attention_at(self.attention, self.side, *self.point(column, half_row)) - self.low) / (self.highest - self.low)


def shaded(raster: Raster, glyphs: Glyphs, row: int, *, overlay: bool) -> str:
    """A row without colours: the attention's ramp, or the photo's brightness."""
    cells = []
    for column in range(raster.columns):
        if overlay and raster.side:
            cells.append(glyphs.level((raster.share(column, row * 2) + raster.share(column, row * 2 + 1)) / 2))
        else:
            top, low = raster.colour(column, row * 2), raster.colour(column, row * 2 + 1)
            cells.append(glyphs.level((sum(top) + sum(low)) / 1530))
    return "".join(cells)


def coloured(raster: Raster, row: int, *, overlay: bool) -> list[Segment]:
    """A row of half blocks."""
    segments = []
    for column in range(raster.columns):
        halves = []
        for half in (row * 2, row * 2 + 1):
            r, g, b = raster.colour(column, half)
            if overlay and raster.side:
                share = raster.share(column, half)
                keep = 0.45 + 0.55 * share  # what is not looked at goes dark
                mix = 0.45 * share
                r, g, b = (round(c * keep * (1 - mix) + hot * mix) for c, hot in zip((r, g, b), HOT, strict=True))
            halves.append(Color.from_rgb(r, g, b))
        segments.append(Segment("▀", Style(color=halves[0], bgcolor=halves[1])))
    return segments


class Picture(Pane):
    """The photo of the turn that is shown."""

    DEFAULT_CLASSES: ClassVar[str] = "picture"
    overlay = True
    zoom = False
    _strips: list[Strip]

    def redraw(self) -> None:
        """Sample it for this size."""
        self._strips = []
        if not self.is_mounted or not self.size.width:
            return
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        picture, turn = state.picture(), state.turn()
        overlay = self.overlay
        width, height = self.size
        if picture is None:
            waiting = state.image is not None
            self._strips = [as_strip(self, [(text, "dim")], width) for text in (["loading the photo"] if waiting else ["no photo", "/image PATH shows one"])]
            set_title(self, "Image (F3)", "")
            self.refresh()
            return
        attention = turn.attention(state.step) if turn is not None and turn.image == picture.path else []
        columns, rows = fitted(width, max(1, height - 1))
        raster = Raster(picture, attention, columns, rows, zoom=self.zoom)
        margin = " " * ((width - columns) // 2)
        for row in range(rows):
            if self.bitmar.plain_colours:
                self._strips.append(as_strip(self, [(margin + shaded(raster, glyphs, row, overlay=overlay), "")], width))
            else:
                strip = Strip([Segment(margin, self.rich_style), *coloured(raster, row, overlay=overlay)])
                self._strips.append(strip.adjust_cell_length(width, self.rich_style))
        self._strips.append(as_strip(self, [(self._caption(raster, overlay), "dim")], width))
        step = state.step + 1 if state.step is not None else len(turn.steps) if turn else 0
        set_title(self, "Image (F3)" + (f"  step {step}" if attention and overlay else ""), f"{picture.width}x{picture.height}")
        self.refresh()

    def _caption(self, raster: Raster, overlay: bool) -> str:
        peak = raster.peak()
        if peak is None:
            return "the square that the model sees"
        text = f"most at {peak[0] + 1},{peak[1] + 1} of {raster.side}x{raster.side}: {num(raster.highest)}"
        if overlay and self.bitmar.plain_colours:
            ramp = self.bitmar.glyphs.ramp
            text = f"{ramp[1]} little {ramp[-1]} much  " + text
        return text

    def count(self) -> int:
        """Rows of the picture and its caption."""
        return len(self._strips)

    def render_line(self, y: int) -> Strip:
        """A row."""
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    @property
    def text(self) -> str:
        """Rows as characters."""
        return "\n".join(strip.text.rstrip() for strip in self._strips)
