"""Small pictures made of characters: bars, ramps, sparklines, plots; and text broken into lines. Pure functions of their arguments.

A line is a list of spans, (text, style), the style a name of `widgets/lines.py` or a Rich style.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitmar_cli.render import cells, fit, safe

Span = tuple[str, Any]
Line = list[Span]


class Glyphs:
    """The characters that pictures are made of. `ascii` for terminals that have nothing else."""

    def __init__(self, *, ascii: bool = False) -> None:
        self.ascii = ascii
        self.ramp = " .:*#" if ascii else " ░▒▓█"
        self.eighths = "" if ascii else " ▏▎▍▌▋▊▉█"
        self.full = "#" if ascii else "█"
        self.spark = " .-=#" if ascii else "▁▂▃▄▅▆▇█"
        self.fold, self.unfold = (">", "v") if ascii else ("▸", "▾")
        self.arrow = "->" if ascii else "→"
        self.cursor = "_" if ascii else "▌"
        self.dot = "-" if ascii else "·"
        self.bullet = "*" if ascii else "●"
        self.rule = "-" if ascii else "─"
        self.ellipsis = "..." if ascii else "…"

    def bar(self, share: float, width: int) -> str:
        """`share` of `width` columns."""
        share = min(max(share, 0.0), 1.0)
        if self.ascii:
            return (self.full * round(share * width)).ljust(width)
        full, rest = divmod(round(share * width * 8), 8)
        return (self.full * full + (self.eighths[rest] if rest else "")).ljust(width)

    def level(self, share: float) -> str:
        """One character of the ramp."""
        return self.ramp[min(len(self.ramp) - 1, max(0, round(share * (len(self.ramp) - 1))))]

    def heat(self, values: Sequence[float], scale: float, width: int) -> str:
        """Sizes of numbers, the largest of each `len(values) / width` in a cell, against `scale`."""
        if not values or scale <= 0:
            return " " * width
        group = -(-len(values) // width)
        return "".join(self.level(max(abs(v) for v in values[at : at + group]) / scale) for at in range(0, len(values), group)).ljust(width)

    def sparkline(self, values: Sequence[float], width: int) -> str:
        """The last `width` values, from lowest to highest."""
        if not values:
            return ""
        values = values[-width:]
        low, high = min(values), max(values)
        top = len(self.spark) - 1
        return "".join(self.spark[round((v - low) / (high - low) * top) if high > low else 0] for v in values)

    def plot(self, points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
        """A curve of (x, y) on `width` x `height` characters, two by four dots each (in ASCII, one)."""
        if not points or width < 1 or height < 1:
            return [" " * max(0, width)] * max(0, height)
        across, down = (1, 1) if self.ascii else (2, 4)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
        dots: set[tuple[int, int]] = set()
        before: tuple[int, int] | None = None
        for x, y in _thinned(points, width * across * 2):
            column = round((x - low_x) / (high_x - low_x) * (width * across - 1)) if high_x > low_x else 0
            row = round((high_y - y) / (high_y - low_y) * (height * down - 1)) if high_y > low_y else height * down // 2
            if before is not None:
                steps = max(abs(column - before[0]), abs(row - before[1]))
                for at in range(1, steps):
                    dots.add((before[0] + (column - before[0]) * at // steps, before[1] + (row - before[1]) * at // steps))
            dots.add((column, row))
            before = (column, row)
        if self.ascii:
            return ["".join("*" if (x, y) in dots else " " for x in range(width)) for y in range(height)]
        bits = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
        grid = [[0] * width for _ in range(height)]
        for x, y in dots:
            grid[y // 4][x // 2] |= bits[y % 4][x % 2]
        return ["".join(chr(0x2800 + code) if code else " " for code in row) for row in grid]


def _thinned(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    return points if len(points) <= most else [points[i * (len(points) - 1) // (most - 1)] for i in range(most)]


def num(value: float, *, sign: bool = False) -> str:
    """A number from -1 to 1 in four characters or fewer: .83, 1.0, -.04; with `sign`, +.12."""
    text = f"{abs(value):.2f}"
    text = "1.0" if text == "1.00" else text.removeprefix("0")
    return ("-" if value < 0 and text != ".00" else "+" if sign else "") + text


def duration(seconds: float) -> str:
    """5 h 12 m, 3 min, 1.8 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} m"


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where there are any. The text is made safe; its line feeds are kept."""
    width = max(1, width)
    lines: list[str] = []
    for row in safe(text, newlines=True).expandtabs(4).split("\n"):
        plain = row.isascii()
        while (len(row) if plain else cells(row)) > width:
            cut = width if plain else _fitting(row, width)
            space = row.rfind(" ", 0, cut + 1)
            if space > 0:
                lines.append(row[:space])
                row = row[space + 1 :]
            else:
                lines.append(row[:cut])
                row = row[cut:]
        lines.append(row)
    return lines


def _fitting(row: str, width: int) -> int:
    """How many characters of `row` take up at most `width` columns, and at least one."""
    used = 0
    for at, char in enumerate(row):
        used += cells(char)
        if used > width:
            return max(1, at)
    return len(row)


def squeeze(text: object, width: int) -> str:
    """One line of at most `width` columns, cut with an ellipsis."""
    return fit(text, width, pad=False) if width > 0 else ""


def length(line: Line) -> int:
    """Columns of a line."""
    return sum(cells(text) for text, _ in line)


def pad(line: Line, width: int) -> Line:
    """`line` with spaces to `width` columns."""
    return [*line, (" " * max(0, width - length(line)), "")]


def spread(left: Line, right: Line, width: int) -> Line:
    """Two halves at the two ends of a line; the right one goes where there is no room."""
    space = width - length(left) - length(right)
    return [*left, (" " * space, ""), *right] if space >= 1 else left
