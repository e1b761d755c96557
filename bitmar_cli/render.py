"""From text of any origin to a stream that shows it: nothing typed by a person or written by a model can steer the terminal.

`safe` makes what is invisible or dangerous visible. `Screen` passes all it prints through `safe`, and emits escape codes
only to a terminal that wants them.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from typing import Any, TextIO

ZWNJ, ZWJ, VS16 = "\u200c", "\u200d", "\ufe0f"
BLACK_FLAG = "\U0001f3f4"
FILLERS = "\u034f\u115f\u1160\u3164\uffa0"
"""Letters and marks that show nothing."""

Part = str | tuple[str, str]
"""A piece of a line: text, or text and its Rich style."""


def _pictorial(char: str) -> bool:
    """Part of an emoji: a symbol, a skin tone or a variation selector."""
    return unicodedata.category(char) in ("So", "Sm", "Sk") or char == VS16


def _is_tag(char: str) -> bool:
    """The invisible letters that follow a black flag to make it a region's flag."""
    return "\U000e0020" <= char <= "\U000e007f"


def _joins(before: str, joiner: str, after: str) -> bool:
    """Whether a zero-width joiner belongs where it stands."""
    if not before or not after:
        return False
    if joiner == ZWJ and _pictorial(before) and _pictorial(after):
        return True
    # Persian, Urdu and the scripts of India spell words with zero-width joiners.
    return all("\u0600" <= char < "\u1000" and unicodedata.category(char)[0] in "LM" for char in (before, after))


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: object, *, newlines: bool = False, before: str = "") -> str:
    """Printable text: control characters, escapes, direction overrides, zero-width characters and lone surrogates become \\xNN or \\uNNNN.

    Args:
        text: anything; it is turned into a string.
        newlines: keep line feeds and tabs. Without it they become spaces, so that the result is one line.
        before: the character that stands before `text`, where a stream is shown in pieces.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    out = []
    in_flag = False
    for at, char in enumerate(text):
        if char in "\n\t":
            out.append(char if newlines else " ")
            continue
        hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in FILLERS
        if char in (ZWJ, ZWNJ):
            hidden = not _joins(text[at - 1] if at else before, char, text[at + 1 : at + 2])
        elif _is_tag(char):
            hidden = not in_flag
        in_flag = char == BLACK_FLAG or (in_flag and _is_tag(char))
        out.append(_escape(char) if hidden else char)
    return "".join(out)


class SafeStream:
    """`safe` for text that arrives in pieces: an emoji that is cut between two pieces still comes out whole."""

    def __init__(self) -> None:
        self._held = ""
        self._before = ""

    def feed(self, piece: str) -> str:
        """The part of the text so far that can be shown now."""
        text = self._held + piece
        keep = len(text)
        while keep and (text[keep - 1] in (ZWJ, ZWNJ, BLACK_FLAG) or _is_tag(text[keep - 1])):
            keep -= 1
        shown, self._held = text[:keep], text[keep:]
        out = safe(shown, newlines=True, before=self._before)
        self._before = shown[-1] if shown else self._before
        return out

    def rest(self) -> str:
        """What was held back; call it at the end."""
        text, self._held = self._held, ""
        return safe(text, newlines=True, before=self._before)


def has_words(text: str) -> bool:
    """Whether anything in `text` can be seen."""
    return any(unicodedata.category(char)[0] not in "ZC" and char not in FILLERS + "\ufe0e\ufe0f" for char in text)


def cells(text: str) -> int:
    """Columns that `text` takes up on a terminal."""
    width = 0
    for char in text:
        if unicodedata.category(char) not in ("Mn", "Me", "Cf"):
            width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return width


def fit(text: object, width: int, *, pad: bool = True) -> str:
    """One safe line of exactly `width` columns (at most `width` without `pad`), cut with an ellipsis."""
    text = safe(text)
    if cells(text) > width:
        kept, used = [], 0
        for char in text:
            step = cells(char)
            if used + step > width - 1:
                break
            kept.append(char)
            used += step
        text = "".join(kept).rstrip(ZWJ) + "…"
    return text + " " * (width - cells(text)) if pad else text


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in ASCII: whatever the strings hold, no control character reaches a terminal."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def is_terminal(stream: Any) -> bool:
    """Whether `stream` is a terminal that can do more than print lines."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


class Screen:
    """Where an answer is shown.

    `plain` is the form for pipes and screen readers: whole lines, no bars, no redrawing. `colour` needs a terminal, no NO_COLOR and no `plain`.
    """

    def __init__(self, stream: TextIO | None = None, *, plain: bool = False) -> None:
        self.stream: TextIO = sys.stdout if stream is None else stream
        self.plain = plain or not is_terminal(self.stream)
        self.colour = not self.plain and not os.environ.get("NO_COLOR")
        self.unicode = (getattr(self.stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")
        self._console: Any = None
        if self.colour:
            from rich.console import Console

            self._console = Console(file=self.stream, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def line(self, *parts: Part) -> None:
        """Print one line. Line feeds inside the parts become spaces."""
        self._write([(safe(part), "") if isinstance(part, str) else (safe(part[0]), part[1]) for part in parts], end="\n")

    def block(self, text: str, *, indent: str = "  ", style: str = "") -> None:
        """Print text of several lines, each indented."""
        for row in str(text).strip("\n").split("\n"):
            self._write([(indent + safe(row), style)], end="\n")

    def piece(self, shown: str, *, style: str = "") -> None:
        """Print a piece of a stream. `shown` comes from `SafeStream`."""
        self._write([(shown, style)], end="")

    def _write(self, parts: list[tuple[str, str]], *, end: str) -> None:
        if self._console is not None:
            from rich.text import Text

            self._console.print(Text.assemble(*parts), end=end)
        else:
            self.stream.write("".join(text for text, _ in parts) + end)
        self.stream.flush()


def one_line(message: object) -> str:
    """A message as one safe line."""
    return " ".join(safe(message).split())


def narrate(message: object) -> None:
    """One line on stderr, which carries everything that is not a result."""
    if sys.stderr is not None:
        print(one_line(message), file=sys.stderr, flush=True)


def table(rows: list[list[Any]], headings: list[str], *, width: int | None = None) -> list[str]:
    """Aligned lines, the headings first. The last column is cut so that a line has at most `width` columns."""
    shown = [headings, *[[safe(value) for value in row] for row in rows]]
    widths = [max(cells(row[column]) for row in shown) for column in range(len(headings) - 1)]
    left = None if width is None else max(20, width - sum(widths) - 2 * len(widths))
    lines = []
    for row in shown:
        last = row[-1] if left is None else fit(row[-1], left, pad=False)
        lines.append("  ".join([*(fit(value, size) for value, size in zip(row, widths, strict=False)), last]).rstrip())
    return lines
