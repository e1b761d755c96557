"""YAML from strangers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitmar_core.errors import FleetError, MissingError
from bitmar_core.safe_yaml import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml


def parse(text: str) -> object:
    return parse_yaml(text, name="f.yaml", error=FleetError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}), ("", None), ("5", 5), ("'no'", "no"),
        ("1e-4", 1e-4), ("-2E+3", -2000.0), ("1.5e3", 1500.0), ("1e-4x", "1e-4x"), ("e4", "e4"), ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ],
)  # fmt: skip
def test_plain_values(text: str, value: object):
    assert parse(text) == value and type(parse(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!python/object/apply:os.system ['true']", "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system is not accepted"),
        ("a: 1\nb: !mine 3", "line 2: the tag !mine"),
        ("a: !!binary aGk=", "the tag"), ("!!set {a, b}", "the tag"), ("a: !!str 3", "the tag"), ("!!omap [a: 1]", "the tag"),
        ("a: &x [1]\nb: *x", "line 2: aliases (*name) are not accepted"),
        ("<<: {a: 1}\nb: 2", "is not accepted"),
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' is given twice (first on line 1)"),
        ("x:\n  y: {a: 1, a: 2}", "key 'a' is given twice"),
        ("1: a\n1.0: b", "given twice"),
        ("? [a]\n: b", "a key must be a plain word"), ("? {a: 1}\n: b", "a key must be a plain word"),
        ("a:\n\tb: 1", "tab"), ("a: [1, 2", "f.yaml, line"), ("a: b: c", "f.yaml, line 1"), ("'abc", "f.yaml, line"), ("a: 1\n--- \nb: 2", "f.yaml"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"), ("[" * 100_000, "nested deeper"),
        ("a: " + "9" * 5000, "a value cannot be read"), ("a: 2020-13-45", "a value cannot be read"), ("a: \x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_refused_documents(text: str, words: str):
    with pytest.raises(FleetError) as caught:
        parse(text)
    message = str(caught.value)
    assert words in message and message.startswith("f.yaml") and "\n" not in message and len(message) < 400


def test_depth_that_is_still_accepted():
    text = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert str(parse(text)) == text
    assert len(parse("\n".join(f"k{i}: [[{i}]]" for i in range(50)))) == 50, "depth is not a count of nodes"


@given(st.text(alphabet="ab:- [],{}\n'\"#&*!|>%@`?\t0.e\\", max_size=40))
def test_anything_gives_a_value_or_one_line(text: str):
    try:
        parse(text)
    except FleetError as error:
        assert "\n" not in str(error) and str(error).startswith("f.yaml")


def test_files(tmp_path: Path):
    path = tmp_path / "a.yaml"
    with pytest.raises(MissingError, match="check the path"):
        read_yaml(path, error=FleetError)
    with pytest.raises(FleetError, match="not a regular file"):
        read_yaml(tmp_path, error=FleetError)
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(FleetError, match=r"not UTF-8 text \(byte 3\)"):
        read_yaml(path, error=FleetError)
    path.write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(FleetError, match="larger than 1 MB"):
        read_yaml(path, error=FleetError)
    path.write_text("a: Größe\n", encoding="utf-8")
    assert read_yaml(path, error=FleetError) == {"a": "Größe"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FleetError, match="not a regular file"):
        read_yaml(tmp_path / "pipe", error=FleetError)
