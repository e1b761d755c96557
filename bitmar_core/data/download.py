"""COCO 2017 brought to a folder: fetched, unpacked, completed, and nothing done twice.

It comes from the web as archives (official addresses, a mirror that serves the same files, or any server with the same layout), with
`limit` picture by picture; or from a folder or zip on disk; or through Kaggle's client. Files get their names only when they are whole,
so what is there is taken as it is, and a run that was stopped anywhere goes on with the same request.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bitmar_core.data import kaggle
from bitmar_core.data.archives import BrokenArchiveError, Member, members, open_archive, unpack
from bitmar_core.data.coco import TYPES, Entry, look, plain_file_name
from bitmar_core.data.coco_plan import (
    COCO_2017,
    PICTURE_BYTES,
    Archive,
    Planned,
    Release,
    Wish,
    by_archive,
    captions_file,
    check_room,
    chosen,
    entries_of,
    local,
    names_in,
    pictures_folder,
    plan,
    url_of,
)
from bitmar_core.data.fetch import Cancelled, Remote, Retries, disk_error
from bitmar_core.data.fetch_many import LeftOut, Meter, Progress, Retrying, fetch_many
from bitmar_core.errors import BitMarError, MissingError, TryAgainError


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A split as it lies there in the end."""

    split: str
    folder: Path
    pictures: int
    captions: int
    missing: int
    """Pictures that were wanted and did not come."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event."""

    reason: Literal["finished", "cancelled"]
    left_out: tuple[LeftOut, ...]
    seconds: float


Event = Planned | Progress | Retrying | LeftOut | Ready | Done


@dataclass(kw_only=True)
class _Run:
    """What the steps of a run share."""

    wish: Wish
    release: Release
    cancel: threading.Event
    retries: Retries | None
    left_out: list[LeftOut] = field(default_factory=list)
    unpacked: set[str] = field(default_factory=set)
    """Archives that this run has taken everything out of."""

    @property
    def archives(self) -> Path:
        return self.wish.out / "archives"


def download(wish: Wish, *, cancel: threading.Event | None = None, release: Release | None = None, retries: Retries | None = None) -> Iterator[Event]:
    """Bring what is wished for. Yields Planned, then how it goes, one Ready a split, and last Done.

    A picture that does not come, or comes damaged, is left out, named and counted. Run again, only what is missing is brought.

    Raises:
        TryAgainError: the network fails, or another run works on the same folder.
        MissingError: the source does not have the files.
        BitMarError: the disk is too small or full, or an archive is not COCO's.
    """
    from filelock import FileLock, Timeout

    started = time.monotonic()
    run = _Run(wish=wish, release=release or COCO_2017, cancel=cancel or threading.Event(), retries=retries)
    planned = plan(wish, run.release)
    yield planned
    check_room(planned.room, wish.out)
    try:
        wish.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(wish.out / ".bitmar-download.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise TryAgainError(f"another download works on {wish.out}; wait until it is done") from None
    except OSError as error:
        raise disk_error(wish.out, error) from error
    reason: Literal["finished", "cancelled"] = "finished"
    try:
        try:
            yield from _bring(run)
        except Cancelled:
            reason = "cancelled"
        if reason == "finished":
            for split in wish.splits:
                yield _ready(wish, split)
            if run.archives.is_dir() and not any(run.archives.iterdir()):
                run.archives.rmdir()
    finally:
        lock.release()
    yield Done(reason=reason, left_out=tuple(run.left_out), seconds=time.monotonic() - started)


def _bring(run: _Run) -> Iterator[Event]:
    wish = run.wish
    if wish.kaggle is not None:
        archive = kaggle.archive_path(wish.kaggle, run.archives)
        if any(not captions_file(wish.out, split).is_file() or _missing(wish, split) for split in wish.splits):
            yield from kaggle.download(wish.kaggle, run.archives, cancel=run.cancel)
            yield from _from_disk(run, archive)
            if not wish.keep_archives:
                archive.unlink(missing_ok=True)
    elif wish.folder is not None:
        yield from _from_disk(run, local(wish.folder))
    else:
        yield from _from_web(run)


def _missing(wish: Wish, split: str) -> list[Entry]:
    """Wanted pictures that are not there."""
    entries = chosen(entries_of(wish.out, split), wish.limit)
    there = names_in(pictures_folder(wish.out, split))
    return [entry for entry in entries if entry.file_name not in there]


def _from_web(run: _Run) -> Iterator[Event]:
    wish, release = run.wish, run.release
    first = [] if all(captions_file(wish.out, split).is_file() for split in wish.splits) else [release.captions]
    if wish.limit is None:  # nothing there yet: captions and pictures can come at the same time
        first += [release.pictures[split] for split in wish.splits if not names_in(pictures_folder(wish.out, split))]
    yield from _archives(run, first)
    missing = {split: _missing(wish, split) for split in wish.splits}
    again = []
    for split in wish.splits:
        archive, there = release.pictures[split], len(names_in(pictures_folder(wish.out, split)))
        if archive.file not in run.unpacked and by_archive(wish, archive, there, len(missing[split])):
            again.append(split)
    yield from _archives(run, [release.pictures[split] for split in again])
    single = []
    for split in wish.splits:
        for entry in _missing(wish, split) if split in again else missing[split]:
            path = pictures_folder(wish.out, split) / entry.file_name
            single.append(Remote(url=url_of(wish, release, f"{split}2017/{entry.file_name}"), path=path, check=_picture_problem))
    check_room(len(single) * PICTURE_BYTES, wish.out)
    for event in fetch_many(single, jobs=wish.jobs, cancel=run.cancel, retries=run.retries):
        if isinstance(event, LeftOut):
            run.left_out.append(event)
        yield event


def _picture_problem(path: Path) -> str | None:
    """There is no digest for a single picture: being a whole picture is what can be checked."""
    return look(path).problem or None


def _archives(run: _Run, archives: list[Archive]) -> Iterator[Event]:
    """Fetch archives at the same time, then unpack one after the other."""
    checked = run.wish.source is None  # a mirror has COCO's own files; a source may have been packed anew
    remotes = [
        Remote(
            url=url_of(run.wish, run.release, archive.url),
            path=run.archives / archive.file,
            size=archive.size if checked else None,
            sha256=archive.sha256 if checked else None,
            check=_archive_problem,
        )
        for archive in archives
        if not (run.archives / archive.file).is_file()
    ]
    yield from fetch_many(remotes, jobs=run.wish.jobs, cancel=run.cancel, retries=run.retries, all_needed=True)
    for archive in archives:
        path = run.archives / archive.file
        damaged = yield from _unpack(run, path, dict.fromkeys(run.wish.splits))
        run.unpacked.add(archive.file)
        if damaged:  # an archive with damaged members is not worth keeping: they come one by one
            path.unlink(missing_ok=True)
        elif not run.wish.keep_archives:
            path.unlink()


def _archive_problem(path: Path) -> str | None:
    """Whether what was fetched is a zip at all. One that would write outside its folder is removed and not asked for again."""
    try:
        open_archive(path).close()
    except BrokenArchiveError:
        return "no whole zip archive"
    except BitMarError:
        path.unlink(missing_ok=True)
        raise
    return None


def place(name: str, only: dict[str, set[str] | None]) -> str | None:
    """Where an archive's member goes: captions and pictures of the splits in `only`, whatever folders they lie in; None for the rest.

    Args:
        only: by split, the file names that are wanted; None for all.
    """
    found = re.search(r"(?:^|/)annotations/captions_(train|val)2017\.json$", name)
    if found and found[1] in only:
        return f"annotations/captions_{found[1]}2017.json"
    found = re.search(r"(?:^|/)(train|val)2017/([^/]+)$", name)
    if found and found[1] in only and plain_file_name(found[2]):
        wanted = only[found[1]]
        if wanted is None or found[2] in wanted:
            return f"{found[1]}2017/{found[2]}"
    return None


def _unpack(run: _Run, path: Path, only: dict[str, set[str] | None], *, blame: bool = False) -> Generator[Event, None, list[str]]:
    """Take what is wanted out of an archive; gives the names of damaged members. `blame`: nothing else can bring them, so they are left out."""
    out = run.wish.out
    with open_archive(path) as archive:
        found = members(archive, out, lambda name: place(name, only))
        new = [member for member in found if not _there(member)]
        check_room(sum(member.info.file_size for member in new), out)
        meter = Meter("unpack", files=len(found), total=sum(member.info.file_size for member in found))
        damaged: list[str] = []
        for member in found:
            result = unpack(archive, [member], cancel=run.cancel, written=meter.add)
            damaged += result.damaged
            meter.file()
            if meter.due():
                yield meter.progress()
        if found:
            yield meter.progress()
    for name in damaged if blame else []:
        left = LeftOut(name=name, reason=f"damaged in {path.name}")
        run.left_out.append(left)
        yield left
    return damaged


def _there(member: Member) -> bool:
    try:
        return member.path.stat().st_size == member.info.file_size
    except OSError:
        return False


# --- from a folder or a zip on disk ---


def _from_disk(run: _Run, source: Path) -> Iterator[Event]:
    """Captions first, then the pictures that they name; whatever form the source has them in."""
    wish = run.wish
    for split in wish.splits:
        target = captions_file(wish.out, split)
        if not target.is_file():
            yield from _from_places(run, source, [run.release.captions.file], {split: set()}, [target.name])
        if not target.is_file():
            raise MissingError(f"{source} has no whole {target.name}, neither unpacked nor in a zip; check --source")
    for split in wish.splits:
        missing = {entry.file_name for entry in _missing(wish, split)}
        if missing:
            yield from _from_places(run, source, [run.release.pictures[split].file], {split: missing}, sorted(missing))


def _from_places(run: _Run, source: Path, zips: list[str], only: dict[str, set[str] | None], names: list[str]) -> Iterator[Event]:
    """Copy `names` from the folders that may hold them, else unpack them."""
    (split,) = only
    if source.is_file():
        yield from _unpack(run, source, only, blame=True)
        return
    roots = [source, source / "coco2017", source / "coco"]
    if names == [captions_file(source, split).name]:
        folders, target = [root / "annotations" for root in roots] + [source], run.wish.out / "annotations"
    else:
        folders = [root / inner / f"{split}2017" for root in roots for inner in ("", "images")]
        target = pictures_folder(run.wish.out, split)
    for folder in folders:
        here = [name for name in names if (folder / name).is_file()]
        if here and folder.resolve() != target.resolve():
            yield from _copy(run, folder, target, here)
            return
    for inner in ("", "zips", "annotations", "archives"):
        for name in zips:
            if (source / inner / name).is_file():
                yield from _unpack(run, source / inner / name, only, blame=True)
                return


def _copy(run: _Run, folder: Path, target: Path, names: list[str]) -> Iterator[Event]:
    sizes = {name: (folder / name).stat().st_size for name in names}
    check_room(sum(sizes.values()), target)
    meter = Meter("copy", files=len(names), total=sum(sizes.values()))
    for name in names:
        if run.cancel.is_set():
            raise Cancelled
        problem = _picture_problem(folder / name) if name.lower().endswith(TYPES) else None
        if problem is not None:
            left = LeftOut(name=name, reason=f"{folder / name}: {problem}")
            run.left_out.append(left)
            yield left
        else:
            beside = target / f"{name}.part"
            try:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, beside)
                os.replace(beside, target / name)
            except OSError as error:
                raise disk_error(target / name, error) from error
        meter.add(sizes[name])
        meter.file()
        if meter.due():
            yield meter.progress()
    yield meter.progress()


# --- the end ---


def _ready(wish: Wish, split: str) -> Ready:
    entries = chosen(entries_of(wish.out, split), wish.limit)
    there = names_in(pictures_folder(wish.out, split))
    have = [entry for entry in entries if entry.file_name in there]
    return Ready(
        split=split,
        folder=pictures_folder(wish.out, split),
        pictures=len(have),
        captions=sum(len(entry.captions) for entry in have),
        missing=len(entries) - len(have),
    )
