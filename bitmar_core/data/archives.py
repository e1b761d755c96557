"""A zip archive, unpacked so that nothing leaves its folder and no damaged member passes for a whole one."""

from __future__ import annotations

import os
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bitmar_core.data.fetch import Cancelled, disk_error
from bitmar_core.errors import BitMarError, MissingError

CHUNK = 1 << 20
MAX_MEMBERS = 1_000_000


class BrokenArchiveError(BitMarError):
    """Not a zip file, or only a piece of one."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive and where it goes."""

    info: zipfile.ZipInfo
    path: Path


@dataclass(kw_only=True)
class Unpacked:
    """What came of an archive."""

    files: int = 0
    already: int = 0
    """Files of those that were there before, with the CRC of their member."""
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Members whose content does not fit to their CRC, or cannot be unpacked; they were not written."""


def safe_name(name: str) -> str | None:
    """Why a member's name is refused: it could lead out of the folder, on this system or another; None where it is harmless."""
    if not name or "\x00" in name or any(ord(char) < 32 for char in name):
        return "an unprintable name"
    if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute or foreign path"
    if ".." in PurePosixPath(name).parts:
        return "a path out of the folder"
    return None


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip file with harmless members only.

    Raises:
        MissingError: no such file.
        BrokenArchiveError: no zip file, or only a piece of one.
        BitMarError: an encrypted one, or one with a member that could be written outside the folder; names it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise MissingError(f"no file {path}; check the path") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BrokenArchiveError(f"{path} is not a whole zip archive ({error}); remove it and run the same command again") from error
    try:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise BitMarError(f"{path} has {len(infos)} members, more than {MAX_MEMBERS}; it is not used")
        for info in infos:
            reason = safe_name(info.orig_filename) or safe_name(info.filename)
            if reason is None and stat.S_ISLNK(info.external_attr >> 16):
                reason = "a link"
            if reason is None and info.flag_bits & 0x1:
                reason = "an encrypted member"
            if reason is not None:
                raise BitMarError(f"{path} is not used: it holds {reason} ({info.orig_filename[:100]!r}); get the archive from another source")
    except BaseException:
        archive.close()
        raise
    return archive


def members(archive: zipfile.ZipFile, folder: Path, place: Callable[[str], str | None]) -> list[Member]:
    """The members that `place` gives a path in `folder`, each path once.

    Args:
        place: from a member's name to a relative path, None for what is not wanted.
    """
    root = folder.resolve()
    parents: dict[Path, Path] = {}
    found: dict[Path, Member] = {}
    for info in archive.infolist():
        target = None if info.is_dir() else place(info.filename)
        if target is None:
            continue
        path = root / target
        if path.parent not in parents:
            parents[path.parent] = path.parent.resolve()  # a link that lies in the folder already must not lead out of it
        path = parents[path.parent] / path.name
        if not path.is_relative_to(root):
            raise BitMarError(f"{archive.filename}: {info.filename[:100]!r} would be written outside {folder}; it is not used")
        found.setdefault(path, Member(info=info, path=path))
    return list(found.values())


def unpack(
    archive: zipfile.ZipFile,
    wanted: Iterable[Member],
    *,
    cancel: threading.Event,
    written: Callable[[int], None] = lambda count: None,
) -> Unpacked:
    """Write members to their paths; a file that is there with the right size and CRC is left alone.

    Args:
        cancel: stops between two members.
        written: told of the bytes of each member as it is done.

    Raises:
        Cancelled: the flag was set; what is written is whole.
        BitMarError: the disk cannot take a file.
    """
    result = Unpacked()
    for member in wanted:
        if cancel.is_set():
            raise Cancelled
        info, path = member.info, member.path
        if _same(path, info):
            result.already += 1
        elif not _write(archive, info, path):
            result.damaged.append(info.filename)
            continue
        result.files += 1
        result.bytes += info.file_size
        written(info.file_size)
    return result


def _same(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file holds what the member's size and CRC say."""
    try:
        if path.stat().st_size != info.file_size:
            return False
        crc = 0
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                crc = zlib.crc32(data, crc)
    except OSError:  # not there, or not to be read: it is written anew, and that tells what is wrong
        return False
    return crc == info.CRC


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bool:
    """Write one member under a passing name first; False where its content is damaged. zipfile checks the CRC at the end of the member."""
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            whole = _copy(archive, info, file)
        if whole:
            os.replace(beside, path)
        else:
            beside.unlink()
    except OSError as error:
        raise disk_error(path, error) from error
    return whole


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> bool:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return False
    try:
        source = archive.open(info)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        return False
    left = info.file_size
    with source:
        while True:
            try:
                data = source.read(CHUNK)
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError):
                return False
            if not data:
                return left == 0
            left -= len(data)
            file.write(data)
