"""Nothing that is shown can steer the terminal, and nothing that people write is damaged."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest

from bitmar_cli.render import SafeStream, Screen, cells, fit, has_words, safe, table, to_json

CLIMBER = "\U0001f9d7\u200d\u2640\ufe0f"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb", "a\\x0db"),
        ("a\x07\x08\x7f", "a\\x07\\x08\\x7f"),
        ("c1 \x9b31m", "c1 \\x9b31m"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("lone \ud83d", "lone \\ud83d"),
        ("line\u2028end", "line\\u2028end"),
        ("two\nlines\there", "two lines here"),
        ("Latin\u200djoiner", "Latin\\u200djoiner"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        (f"{CLIMBER} {WALES} 👨\u200d👩\u200d👧 👍🏽 🙂\u200d↔️", f"{CLIMBER} {WALES} 👨\u200d👩\u200d👧 👍🏽 🙂\u200d↔️"),
        ("a\U000e0041\U000e0042", "a\\U000e0041\\U000e0042"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
        ("Müller 日本語 é e\u0301", "Müller 日本語 é e\u0301"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_safe_leaves_no_control_character_at_all() -> None:
    shown = safe("".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xD800, 0xE000))))
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp")]


@pytest.mark.parametrize("text", [f"go {CLIMBER} {WALES} now", "می\u200cخواهم", "end\u200d", "\x1b[31m two\nlines"])
def test_a_stream_in_pieces_is_shown_as_the_whole(text: str) -> None:
    for size in (1, 2, 3, 100):
        stream = SafeStream()
        shown = "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.rest()
        assert shown == safe(text, newlines=True)


def test_json_is_ascii_without_controls() -> None:
    line = to_json({"a": "\x1b\x7f\x9b\u202e\ud800é"})
    assert line.isascii() and line.isprintable() and json.loads(line) == {"a": "\x1b\x7f\x9b\u202e\ud800é"}


def test_widths() -> None:
    assert cells("日本") == 4 and cells("e\u0301") == 1
    assert fit("日本語です", 5) == "日本… " or cells(fit("日本語です", 5)) == 5
    assert fit("abc", 5) == "abc  " and fit("abcdef", 4, pad=False) == "abc…"
    assert table([["1", "日本", "x"], ["22", "ab", "y"]], ["n", "name", "task"]) == ["n   name  task", "1   日本  x", "22  ab    y"]


def test_empty_looking_text_has_no_words() -> None:
    assert not any(map(has_words, ["", " \n", "\u200b\u200d\ufeff", "\u3164", "\x1b\x07", "\ufe0f"]))
    assert all(map(has_words, ["a", "?!", "🚑", "日"]))


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(stream: io.StringIO, **options: bool) -> str:
        Screen(stream, **options).line(("[red]bold\x1b[0m", "bold red"))
        return stream.getvalue()

    assert "\x1b[1;31m[red]bold\\x1b[0m\x1b[0m" in shown(Terminal())
    assert shown(Terminal(), plain=True) == "[red]bold\\x1b[0m\n"
    assert shown(io.StringIO()) == "[red]bold\\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(Terminal()) == "[red]bold\\x1b[0m\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(Terminal()) == "[red]bold\\x1b[0m\n"
