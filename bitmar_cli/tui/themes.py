"""Colours. `bitmar-safe` keeps to blue and orange, which every kind of colour sight tells apart; `ansi` uses the terminal's own 16."""

from __future__ import annotations

import codecs
import os
import sys

from textual.theme import Theme

THEMES = (
    Theme(
        name="bitmar-dark", primary="#5aa9e6", secondary="#9d8df1", warning="#f2b134", error="#ef6461", success="#58c27d", accent="#7fc8f8",
        foreground="#dfe3e8", background="#12161c", surface="#12161c", panel="#1b212a", variables={"bitmar-dim": "#8b96a5"}, dark=True,
    ),
    Theme(
        name="bitmar-light", primary="#1f5fa8", secondary="#6a4bbf", warning="#9a5b00", error="#b3261e", success="#1c7c3f", accent="#0f6ea8",
        foreground="#1b1f24", background="#fbfbf8", surface="#fbfbf8", panel="#eceee8", variables={"bitmar-dim": "#5c6570"}, dark=False,
    ),
    Theme(
        name="bitmar-safe", primary="#56b4e9", secondary="#0072b2", warning="#e69f00", error="#d55e00", success="#56b4e9", accent="#f0e442",
        foreground="#e8e8e8", background="#101418", surface="#101418", panel="#1a2026", variables={"bitmar-dim": "#9aa3ad"}, dark=True,
    ),
)  # fmt: skip
DEFAULT = "bitmar-dark"
NAMES = (*(theme.name for theme in THEMES), "ansi-dark")


def no_colour() -> bool:
    """Whether NO_COLOR is set to anything."""
    return bool(os.environ.get("NO_COLOR"))


def few_colours() -> bool:
    """Whether the terminal says that it has 16 colours or fewer."""
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return False
    term = os.environ.get("TERM", "")
    return not any(word in term for word in ("256", "direct", "kitty", "ghostty", "alacritty", "wezterm"))


def ascii_only() -> bool:
    """Whether the terminal cannot show block characters: BITMAR_ASCII is set, or the output's encoding is not UTF."""
    if os.environ.get("BITMAR_ASCII"):
        return True
    try:
        return not codecs.lookup(getattr(sys.__stdout__, "encoding", None) or "ascii").name.startswith("utf")
    except LookupError:
        return True
