"""COCO 2017: where it is served, what a person may wish of it, and what is still to be done for that.

DIR/annotations/captions_{train,val}2017.json
DIR/{train,val}2017/*.jpg
DIR/archives/                                  zips and parts of them, until they are unpacked
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bitmar_core.data import kaggle
from bitmar_core.data.coco import SPLITS, TYPES, Entry, read_captions
from bitmar_core.data.fetch import DiskError, check_url
from bitmar_core.errors import MissingError, UsageError

PICTURE_BYTES = 164_000
"""A COCO picture on average, for estimates."""

MARGIN = 100_000_000
"""Bytes of the disk that are left alone."""

FEW = 200
"""Up to so many missing pictures are fetched one by one rather than in an archive."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip of the release."""

    url: str
    """Relative to the base address."""
    size: int
    sha256: str
    unpacked: int
    """Bytes of what is taken out of it, about."""

    @property
    def file(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Release:
    """Where a release of COCO is served and what it consists of."""

    base: str
    captions: Archive
    pictures: dict[str, Archive]
    count: dict[str, int]
    """Pictures by split."""


COCO_2017 = Release(
    base="http://images.cocodataset.org",
    captions=Archive(
        url="annotations/annotations_trainval2017.zip",
        size=252_907_541,
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        unpacked=95_800_000,
    ),
    pictures={
        "train": Archive(
            url="zips/train2017.zip",
            size=19_336_861_798,
            sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            unpacked=19_330_000_000,
        ),
        "val": Archive(
            url="zips/val2017.zip",
            size=815_585_330,
            sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            unpacked=815_000_000,
        ),
    },
    count={"train": 118_287, "val": 5_000},
)
"""COCO publishes no digests; these are the ones that its users agree on. The address has no https of its own: the digests are what secures it."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be brought, and from where: at most one of mirror, source and kaggle."""

    out: Path
    splits: tuple[str, ...] = SPLITS
    mirror: str | None = None
    """Base address of a server with COCO's own files: they must have COCO's sizes and digests."""
    source: str | None = None
    """A folder, a zip file, or the base address of a server with the same layout; its files may be others."""
    kaggle: str | None = None
    """OWNER/NAME of a data set."""
    limit: int | None = None
    """Pictures of each split. A larger limit contains a smaller one."""
    jobs: int = 8
    keep_archives: bool = False

    def __post_init__(self) -> None:
        if not self.splits or set(self.splits) - set(SPLITS):
            raise UsageError(f"splits: expected some of {', '.join(SPLITS)}, got {', '.join(self.splits) or 'none'}")
        if sum(value is not None for value in (self.mirror, self.source, self.kaggle)) > 1:
            raise UsageError("a mirror, a source and a Kaggle data set exclude each other; give one of them")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit: expected at least 1, got {self.limit}")
        if not 1 <= self.jobs <= 64:
            raise UsageError(f"jobs: expected 1 to 64, got {self.jobs}")
        if self.mirror is not None:
            check_url(self.mirror)
        if self.kaggle is not None:
            kaggle.check_name(self.kaggle)

    @property
    def folder(self) -> Path | None:
        """The source, where it is a folder or a zip file."""
        if self.source is None or re.match(r"(?i)https?://", self.source):
            return None
        return Path(self.source)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What will be done, before anything is."""

    lines: tuple[str, ...]
    fetched: int
    """Bytes to fetch, about."""
    room: int
    """Bytes that the disk must have free, about."""
    free: int


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that `folder` lies on, or will lie on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(count: float) -> str:
    """Bytes as people read them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"


# --- what is there, what is wanted ---


def captions_file(out: Path, split: str) -> Path:
    """COCO's captions of a split."""
    return out / "annotations" / f"captions_{split}2017.json"


def pictures_folder(out: Path, split: str) -> Path:
    """The pictures of a split."""
    return out / f"{split}2017"


@lru_cache(maxsize=2)
def _entries(file: Path, size: int, changed_ns: int) -> tuple[Entry, ...]:
    return tuple(read_captions(file)[0])


def entries_of(out: Path, split: str) -> Sequence[Entry]:
    """The pictures that COCO's captions of a split name. The file of train takes seconds to read, so it is read once as long as it stays the same."""
    file = captions_file(out, split)
    try:
        status = file.stat()
    except OSError:
        return read_captions(file)[0]  # which says what is wrong
    return _entries(file, status.st_size, status.st_mtime_ns)


def chosen(entries: Sequence[Entry], limit: int | None) -> list[Entry]:
    """The pictures to bring: all, or the first `limit` in an order that looks random and is always the same."""
    if limit is None or limit >= len(entries):
        return list(entries)
    return sorted(entries, key=lambda entry: hashlib.sha256(entry.file_name.encode()).digest())[:limit]


def names_in(folder: Path) -> set[str]:
    """Names of the pictures in a folder; none where there is no folder."""
    try:
        with os.scandir(folder) as found:
            return {entry.name for entry in found if entry.name.lower().endswith(TYPES) and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


# --- planning ---


def plan(wish: Wish, release: Release | None = None) -> Planned:
    """What `download` would do. Writes nothing and asks no server.

    Raises:
        MissingError: the source folder or Kaggle's client is not there.
        UsageError: the folder to write to is a file.
    """
    release = release or COCO_2017
    if wish.out.exists() and not wish.out.is_dir():
        raise UsageError(f"{wish.out} is not a folder; give the path of a folder")
    lines: list[str] = []
    fetched = room = 0
    if wish.folder is not None:
        lines.append(f"read {local(wish.folder)}")
    elif wish.kaggle is not None:
        kaggle.client()
    elif wish.source is not None:
        check_url(wish.source)
    web = wish.folder is None and wish.kaggle is None
    known = {split: captions_file(wish.out, split).is_file() for split in wish.splits}
    if not all(known.values()):
        got, size = to_fetch(wish, release.captions) if web else (0, 0)
        fetched, room = fetched + got, room + size + release.captions.unpacked
        lines += [f"fetch {url_of(wish, release, release.captions.url)}, {size_text(got)}"] if web and got else []
        lines.append(f"unpack the captions to {wish.out / 'annotations'}")
    for split in wish.splits:
        folder, archive = pictures_folder(wish.out, split), release.pictures[split]
        there = names_in(folder)
        if known[split]:
            entries = chosen(entries_of(wish.out, split), wish.limit)
            missing, total = sum(entry.file_name not in there for entry in entries), len(entries)
        else:
            total = release.count[split] if wish.limit is None else min(wish.limit, release.count[split])
            missing = total if wish.limit is not None else max(0, total - len(there))
        if not missing:
            lines.append(f"{split}: {total} pictures are in {folder} already")
        elif web and by_archive(wish, archive, len(there), missing):
            got, size = to_fetch(wish, archive)
            fetched, room = fetched + got, room + size + archive.unpacked * missing // total
            lines += [f"fetch {url_of(wish, release, archive.url)}, {size_text(got)}"] if got else []
            lines.append(f"unpack {missing} pictures to {folder}")
        else:
            bytes_ = missing * PICTURE_BYTES
            fetched, room = fetched + (bytes_ if web else 0), room + bytes_
            how = f"fetch {missing} pictures from {url_of(wish, release, f'{split}2017')}/" if web else f"bring {missing} pictures"
            lines.append(f"{how} to {folder}, about {size_text(bytes_)}")
    if wish.kaggle is not None and room:
        lines.insert(0, f"fetch the data set {wish.kaggle} through Kaggle's client")
        if not kaggle.archive_path(wish.kaggle, wish.out / "archives").is_file():  # it comes as a whole, whatever is wanted of it
            fetched = release.captions.size + sum(archive.size for archive in release.pictures.values())
            room += fetched
    return Planned(lines=tuple(lines), fetched=fetched, room=room, free=free_bytes(wish.out))


def check_room(needed: int, folder: Path) -> None:
    """Raises BitMarError where the disk has not `needed` bytes and a margin free."""
    free = free_bytes(folder)
    if needed and needed + MARGIN > free:
        raise DiskError(
            f"{folder}: about {size_text(needed + MARGIN)} of free space are needed and {size_text(free)} are there; free space, use --limit or another folder"
        )


def local(path: Path) -> Path:
    if not path.exists():
        raise MissingError(f"there is no {path}; --source takes a folder, a zip file or an address that begins with http:// or https://")
    return path


def url_of(wish: Wish, release: Release, path: str) -> str:
    return f"{(wish.mirror or wish.source or release.base).rstrip('/')}/{urllib.parse.quote(path)}"


def by_archive(wish: Wish, archive: Archive, there: int, missing: int) -> bool:
    """Whether the `missing` pictures come in their archive: when it is on the disk already, or when they are more than a few."""
    if wish.limit is not None or not missing:
        return False
    return there == 0 or missing > FEW or (wish.out / "archives" / archive.file).is_file()


def to_fetch(wish: Wish, archive: Archive) -> tuple[int, int]:
    """(bytes still to fetch, bytes that the archive still takes up on the disk)."""
    path = wish.out / "archives" / archive.file
    if path.is_file():
        return 0, 0
    beside = path.with_name(path.name + ".part")
    left = max(0, archive.size - (beside.stat().st_size if beside.is_file() else 0))
    return left, left
