"""Task text from arguments, stdin and files: any bytes become text that the engine can take, or one clear line."""

from __future__ import annotations

import re
import sys

from bitmar_cli.render import has_words, is_terminal, narrate
from bitmar_core.errors import UsageError

MAX_STDIN = 40_000_000
"""Bytes. The engine has its own, lower limit; this one keeps an endless stdin from filling the memory."""


def clean(text: str) -> str:
    """Without what no text can hold: lone surrogates become U+FFFD, NUL becomes a space."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text).replace("\0", " ").strip()


def checked(text: str, *, mend: str = "say in a sentence what is to be done") -> str:
    """The cleaned task.

    Raises:
        UsageError: nothing in it can be seen.
    """
    task = clean(text)
    if not has_words(task):
        raise UsageError(f"the task is empty; {mend}")
    return task


def from_stdin() -> str:
    """All of stdin as text; invalid UTF-8 is replaced.

    Raises:
        UsageError: too long.
    """
    if sys.stdin is None:
        return ""
    if is_terminal(sys.stdin):
        narrate("type the task; Ctrl-D ends it")
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise UsageError(f"the task on stdin is longer than {MAX_STDIN // 1_000_000} MB; shorten it")
    return data.decode("utf-8-sig", "replace")


def read(argument: str | None) -> str:
    """The task of a command: its argument, or stdin where that is `-` or where there is none and stdin is a pipe.

    Raises:
        UsageError: empty or too long.
    """
    if argument is None:
        if sys.stdin is None or is_terminal(sys.stdin):
            raise UsageError('no task is given; write it in quotes, as in: bitmar ask "Inspect the bridge"')
        argument = "-"
    return checked(from_stdin() if argument == "-" else argument)
