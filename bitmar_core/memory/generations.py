"""Where a memory lies on disk: one folder a generation, the newest sound one counts, the one before is the last good copy.

    memory.lock                  held while writing, never while reading
    generation-00000007/         the last good copy: memory.safetensors, memory.json
    generation-00000008/         the memory
    .writing/                    a generation in the making; left over only where a writer was killed
    damaged-00000006/            set aside by `restore`; nothing reads it

A generation is written beside and renamed as a whole folder, so the pair is always consistent, and a reader needs no lock
and changes no byte. Renaming a folder is atomic on every file system that BitMar runs on. Numbers are never used twice.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bitmar_core.errors import BitMarError, MemoryStoreError, MissingError, TryAgainError
from bitmar_core.memory.format import TENSORS, Damaged, Snapshot, decode, decode_export, encode, pack, unpack

TENSOR_FILE, STORY_FILE, LOCK_FILE, WRITING = "memory.safetensors", "memory.json", "memory.lock", ".writing"
KEPT = 2
MAX_BYTES = 2**36
_NAME = re.compile(r"(generation|damaged)-(\d{8,15})")


def reason(error: OSError) -> str:
    """What the system says, in words."""
    return error.strerror or type(error).__name__


def read_bytes(path: Path) -> bytes:
    """The bytes of an ordinary file; a pipe, which could wait for ever, and a file beyond all sense are refused.

    Raises:
        Damaged: not an ordinary file of sensible size.
        OSError: not there, or not readable.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise Damaged("it is not an ordinary file")
    if info.st_size > MAX_BYTES:
        raise Damaged(f"it is {info.st_size} bytes long")
    return path.read_bytes()


def generation(folder: Path, number: int) -> Path:
    """The folder of one generation."""
    return folder / f"generation-{number:08d}"


def _numbers(folder: Path, kind: str) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MemoryStoreError(f"cannot read the memory folder {folder}: {reason(error)}; choose another with BITMAR_HOME") from error
    return sorted(int(match[2]) for match in map(_NAME.fullmatch, names) if match and match[1] == kind)


def numbers(folder: Path) -> list[int]:
    """Numbers of the generations in `folder`, oldest first; [] where there is no folder.

    Raises:
        MemoryStoreError: the folder cannot be read.
    """
    return _numbers(folder, "generation")


def stamp(folder: Path, number: int) -> tuple[int, ...]:
    """What shows without reading it that a generation is another one: its number, and inode, time and length of its files."""
    marks = [number]
    for name in (TENSOR_FILE, STORY_FILE):
        with suppress(OSError):
            info = (generation(folder, number) / name).stat()
            marks += [info.st_ino, info.st_mtime_ns, info.st_size]
    return tuple(marks)


def read(folder: Path, number: int, known: Snapshot | None = None) -> Snapshot:
    """Read and check one generation. `known` as in `format.decode`.

    Raises:
        Damaged: the message is the cause alone.
        MemoryStoreError: the format is newer, or the files cannot be read.
    """
    name = TENSOR_FILE
    try:
        tensors = unpack(read_bytes(generation(folder, number) / name), TENSORS)
        name = STORY_FILE
        document = read_bytes(generation(folder, number) / name)
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{name}: it is not there") from None
    except OSError as error:
        raise MemoryStoreError(f"cannot read {generation(folder, number) / name}: {reason(error)}; check its permissions") from error
    except Damaged as error:
        raise Damaged(f"{name}: {error}") from None
    try:
        return decode(tensors, document, known=known)
    except Damaged:
        raise
    except MemoryStoreError as error:
        raise MemoryStoreError(f"the memory in {folder} is newer: {error}") from None


def read_newest(folder: Path, known: Snapshot | None = None) -> tuple[Snapshot | None, tuple[int, ...]]:
    """The newest generation and its stamp; (None, ()) where nothing was written yet.

    Raises:
        MemoryStoreError: damaged; the message gives cause and mend. Also where the format is newer or cannot be read.
    """
    # A writer may clear a generation away between the listing and the reading: then it is no longer the newest, so look again.
    for _ in range(1000):
        found = numbers(folder)
        if not found:
            return None, ()
        mark = stamp(folder, found[-1])
        try:
            return read(folder, found[-1], known), mark
        except Damaged as error:
            if numbers(folder)[-1:] == found[-1:]:
                raise Damaged(f"the memory in {folder} is damaged ({error}); {mend(folder, found[:-1])}") from None
    raise TryAgainError(f"the memory in {folder} changes too fast to be read; try again")


def mend(folder: Path, older: list[int]) -> str:
    """What to do about a damaged newest generation, where `older` ones are there."""
    for number in reversed(older):
        with suppress(MemoryStoreError):
            read(folder, number)
            return "the last good copy is sound: `bitmar memory verify` offers to put it back"
    return "no sound copy is left: move the folder away to start with an empty memory"


def save(folder: Path, snapshot: Snapshot) -> tuple[Snapshot, tuple[int, ...]]:
    """Write `snapshot` as the next generation. Hold the lock. Gives it back with the digests it has on disk, and its stamp.

    Raises:
        MemoryStoreError: the disk is full or the folder cannot be written; what was saved before stays as it was.
    """
    tensors, document, snapshot = encode(snapshot)
    number = max([0, *numbers(folder), *_numbers(folder, "damaged")]) + 1
    making = folder / WRITING
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        for name, data in ((TENSOR_FILE, pack(tensors, TENSORS)), (STORY_FILE, document)):
            with open(making / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(making)
        os.rename(making, generation(folder, number))
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise _cannot_write(folder, error) from error
    # From here on the write has happened: tidying up may fail without taking it back.
    _sync(folder)
    for old in numbers(folder)[:-KEPT]:
        shutil.rmtree(generation(folder, old), ignore_errors=True)
    return snapshot, stamp(folder, number)


def set_aside(folder: Path, number: int) -> None:
    """Take a damaged generation out of the row without deleting it. Hold the lock.

    Raises:
        MemoryStoreError: the folder cannot be written.
    """
    try:
        os.rename(generation(folder, number), folder / f"damaged-{number:08d}")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    _sync(folder)


def verify(folder: Path) -> list[str]:
    """What is wrong with the memory and its last good copy, one line each; [] where all is sound or nothing is there."""
    problems = []
    try:
        read_newest(folder)
    except BitMarError as error:
        problems.append(str(error))
    number = -1
    try:
        for number in numbers(folder)[-KEPT:-1]:
            read(folder, number)
    except Damaged as error:
        if number not in numbers(folder)[-KEPT:]:  # a writer has meanwhile made a new pair and cleared this one away
            return problems
        advice = "no sound copy is left" if problems else "the memory itself is sound and its next change makes a new copy"
        problems.append(f"the last good copy in {folder} is damaged ({error}); {advice}")
    except MemoryStoreError as error:
        if not problems:
            problems.append(str(error))
    return problems


def restore(folder: Path, seconds: float) -> None:
    """Set damaged generations aside until the newest one is sound.

    Raises:
        MemoryStoreError: no sound one is left, one of a newer format is met, or the folder cannot be written; nothing was changed.
        TryAgainError: the lock is held for more than `seconds`.
    """
    if not numbers(folder):
        return
    with lock(folder, seconds):
        bad = []
        for number in reversed(numbers(folder)):
            try:
                read(folder, number)
                break
            except Damaged:
                bad.append(number)
        else:
            raise MemoryStoreError(f"no sound copy of the memory is left in {folder}; move the folder away to start with an empty memory")
        for number in bad:
            set_aside(folder, number)


def read_import(path: Path) -> Snapshot:
    """Read an export, or the memory in a folder.

    Raises:
        MissingError: nothing there.
        MemoryStoreError: damaged, newer, or not readable.
    """
    try:
        if not path.is_dir():
            return decode_export(read_bytes(path))
    except FileNotFoundError:
        raise MissingError(f"no file {path} to import; check the path") from None
    except OSError as error:
        raise MemoryStoreError(f"cannot read {path}: {reason(error)}; check its permissions") from error
    except Damaged as error:
        raise MemoryStoreError(f"{path} was not imported: {error}; make a fresh one with `bitmar memory export`") from None
    except MemoryStoreError as error:
        raise MemoryStoreError(f"{path} was not imported: {error}") from None
    found, _ = read_newest(path)
    if found is None:
        raise MissingError(f"no memory in the folder {path} to import; check the path")
    return found


@contextmanager
def lock(folder: Path, seconds: float) -> Iterator[None]:
    """Hold the memory's lock, which the system frees when its holder dies. Makes the folder where there is none.

    Raises:
        TryAgainError: another process holds it for more than `seconds`.
        MemoryStoreError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(str(folder / LOCK_FILE))
        held.acquire(timeout=seconds, poll_interval=0.005)
    except Timeout:
        raise TryAgainError(f"another BitMar has been writing to the memory in {folder} for {seconds:g} s; try again") from None
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    finally:
        held.release()


def _cannot_write(folder: Path, error: OSError) -> MemoryStoreError:
    return MemoryStoreError(
        f"cannot write the memory in {folder}: {reason(error)}; nothing was changed: free space, make it writable, or choose another folder with BITMAR_HOME"
    )


def _sync(folder: Path) -> None:
    # Makes the names durable against a power cut. Windows cannot open folders, and some file systems refuse.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
