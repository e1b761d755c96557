"""Names and files that a person types: a name can never lead out of its folder, and a file is never replaced by surprise."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from bitmar_core.errors import MissingError, UsageError

MAX_NAME = 64
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")


def plain_name(name: str, *, what: str) -> str:
    """`name`, if it is the same harmless folder name on every system.

    Raises:
        UsageError: it is empty, too long, or holds anything but letters, digits, dots, hyphens and underscores.
    """
    if not name or len(name) > MAX_NAME:
        raise UsageError(f"{what} must have 1 to {MAX_NAME} characters, not {len(name)}")
    for char in name:
        if not (char in "._-" or unicodedata.category(char)[0] in "LN"):
            raise UsageError(f"{what} {name!r} holds {char!r}: use letters, digits, dots, hyphens and underscores; paths, ~ and variables are not read here")
    if name[0] in ".-" or name[-1] == "." or _RESERVED.fullmatch(name):
        raise UsageError(f"{what} {name!r} is not safe on every system: begin with a letter or digit and avoid names such as CON")
    return unicodedata.normalize("NFC", name)


def _typed_file(path: str | Path) -> Path:
    text = str(path)
    if not text or text == ".":
        raise UsageError("the file name is empty; give the path of a file")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise UsageError(f"the file name {text!r} holds control characters; use printable ones")
    if os.name != "nt" and "\\" in text:
        raise UsageError(f"the file name {text!r} holds a backslash; write folders with /")
    if text.startswith("~"):
        raise UsageError(f"the file name {text!r} begins with ~, which is not expanded here; write the folder out")
    return Path(text)


def file_to_write(path: str | Path, *, force: bool = False) -> Path:
    """`path`, if writing it creates a new file in a folder that is there (or `force` allows replacing a file).

    Raises:
        UsageError: an unsafe name, a folder, or a file that would be lost.
        MissingError: its folder is not there.
    """
    file = _typed_file(path)
    try:
        if file.is_dir():
            raise UsageError(f"{file} is a folder; give the path of a file")
        if file.exists() and not force:
            raise UsageError(f"{file} is already there; choose another name or remove it first")
        if not file.parent.is_dir():
            raise MissingError(f"there is no folder {file.parent}; create it first")
    except OSError as error:
        raise UsageError(f"cannot use {file}: {error.strerror or error}; choose another name") from error
    return file


def file_to_read(path: str | Path) -> Path:
    """`path`, if it is a regular file.

    Raises:
        UsageError: an unsafe name, or not a regular file.
        MissingError: no such file.
    """
    file = _typed_file(path)
    try:
        if not file.is_file():
            if file.exists():
                raise UsageError(f"{file} is not a regular file; give the path of a file")
            raise MissingError(f"there is no file {file}; check the path")
    except OSError as error:
        raise UsageError(f"cannot use {file}: {error.strerror or error}; choose another name") from error
    return file
