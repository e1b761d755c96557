"""Pairs of a picture and its captions, from COCO's own files or from JSON lines, parted so that no picture is in two splits.

COCO as `bitmar download-coco` leaves it:

    DIR/annotations/captions_{train,val}2017.json    {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "caption"}]}
    DIR/{train,val}2017/*.jpg

Your own pairs: a .jsonl file with `{"image": "photos/1.png", "caption": "..."}` a line, or `"captions": [...]`; image paths are relative
to the file. Pictures are JPEG, PNG or WebP. What cannot be used is skipped, counted and named.

A picture is what its bytes are: splits follow the sha256 of the file, so a copy under another name stays on the same side. Imports no
torch: pixels become tensors elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bitmar_core import paths
from bitmar_core.data.robot_tasks import held_out
from bitmar_core.errors import BitMarError, MissingError

SPLITS = ("train", "val")
TYPES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 60_000_000
MAX_BYTES = 256 * 1024 * 1024
MAX_CAPTION = 4000
"""Characters; a longer caption is no caption."""

Progress = Callable[[int, int], None]
"""Told (done, total) while pictures are looked at."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture and what people said of it."""

    image: Path
    captions: tuple[str, ...]
    digest: str
    """sha256 of the picture's file, in hex."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that could not be used, and why."""

    name: str
    reason: str


@dataclass(kw_only=True)
class Pairs:
    """Training and validation pairs, and what was left out of them."""

    train: list[Pair]
    val: list[Pair]
    skipped: list[Skipped] = field(default_factory=list)
    """Bad pictures, lines and entries."""
    absent: int = 0
    """Pictures that COCO's file names and that are not on disk, as after `download-coco --limit`."""
    shared: int = 0
    """Training pairs that were left out because the same picture is in the validation split."""

    def summary(self, names: int = 3) -> str:
        """Counts as one line; the first `names` of what was skipped are named."""
        parts = [f"{len(self.train)} pictures to train on, {len(self.val)} to validate on"]
        if self.absent:
            parts.append(f"{self.absent} not downloaded")
        if self.shared:
            parts.append(f"{self.shared} left out of training because validation has the same picture")
        if self.skipped:
            named = "; ".join(f"{one.name}: {one.reason}" for one in self.skipped[:names])
            more = f"; and {len(self.skipped) - names} more" if len(self.skipped) > names else ""
            parts.append(f"{len(self.skipped)} skipped ({named}{more})")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture as COCO's captions file knows it."""

    file_name: str
    width: int
    height: int
    captions: tuple[str, ...]


# --- reading the files that name pictures ---


def clean_caption(text: object) -> str | None:
    """A caption on one line, without spaces at its ends; None for what is none."""
    if not isinstance(text, str) or len(text) > MAX_CAPTION:
        return None
    return " ".join(text.split()) or None


def plain_file_name(name: object) -> bool:
    """Whether `name` is a picture's name without any folder, the same on every system."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
        and name[0] != "."
        and name.lower().endswith(TYPES)
    )


def read_captions(path: Path) -> tuple[list[Entry], list[Skipped]]:
    """The pictures of COCO's captions JSON in its own order, and the entries that make no sense. Pictures without a caption count as such.

    Raises:
        MissingError: no such file.
        BitMarError: it is not COCO's captions format.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"no file {path}; `bitmar download-coco` brings it") from None
    except OSError as error:
        raise BitMarError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise BitMarError(f"{path} is not JSON ({error}); remove it and download it again") from error
    images, notes = (content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(notes, list):
        raise BitMarError(f'{path} is not a captions file of COCO: lists "images" and "annotations" are needed')
    skipped: list[Skipped] = []
    captions: dict[object, list[str]] = {}
    for number, note in enumerate(notes, 1):
        text = clean_caption(note.get("caption")) if isinstance(note, dict) else None
        if text is None or not isinstance(note.get("image_id"), (int, str)):
            skipped.append(Skipped(name=f"{path.name}, annotation {number}", reason="no caption or no image_id"))
        else:
            captions.setdefault(note["image_id"], []).append(text)
    entries: list[Entry] = []
    seen: set[str] = set()
    for number, image in enumerate(images, 1):
        name = image.get("file_name") if isinstance(image, dict) else None
        reason = None
        if not plain_file_name(name):
            reason = "no plain file name of a JPEG, PNG or WebP picture"
        elif name in seen:
            reason = f"{name} for the second time"
        elif not isinstance(image.get("id"), (int, str)) or image["id"] not in captions:
            reason = f"{name} has no caption"
        if reason is not None:
            skipped.append(Skipped(name=f"{path.name}, image {number}", reason=reason))
            continue
        assert isinstance(name, str)
        seen.add(name)
        width, height = (value if isinstance(value, int) and value > 0 else 0 for value in (image.get("width"), image.get("height")))
        entries.append(Entry(file_name=name, width=width, height=height, captions=tuple(dict.fromkeys(captions[image["id"]]))))
    return entries, skipped


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, object) of each line that is not empty; None for a line that is not JSON."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (ValueError, RecursionError):
                        yield number, None
    except FileNotFoundError:
        raise MissingError(f"no file {path}; check the path") from None
    except OSError as error:
        raise BitMarError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from error


def _line(row: Any, root: Path) -> tuple[Path, tuple[str, ...]] | str:
    """Picture and captions of one JSON line, or why it is of no use."""
    if not isinstance(row, dict):
        return "not a JSON object"
    name, texts = row.get("image"), row.get("captions", [row.get("caption")])
    if not isinstance(name, str) or not name or "\x00" in name:
        return 'no "image"'
    captions = tuple(text for text in map(clean_caption, texts if isinstance(texts, list) else []) if text)
    if not captions:
        return 'no "caption"'
    try:
        image = (root / name).resolve()
        if not image.is_relative_to(root):
            return f"{name} lies outside {root}; name the folder of the pictures"
        if not image.is_file():
            return f"there is no picture {name}"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return image, captions


# --- looking at pictures ---


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture's file holds. `problem` is empty where the picture is whole."""

    digest: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def look(path: Path) -> Look:
    """Read and decode a picture once: its digest and its size, or what is wrong with it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Look(problem=f"cannot be read ({error.strerror or error})")
    if not data:
        return Look(problem="the file is empty")
    if len(data) > MAX_BYTES:
        return Look(problem="the file is larger than 256 MB")
    found = Look(digest=hashlib.sha256(data).hexdigest())
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                return replace(found, problem=f"{width} x {height} pixels are too many")
            picture.draft("RGB", (width // 8, height // 8))  # a JPEG is read to its end, at an eighth of the size
            picture.load()
    except UnidentifiedImageError:
        return replace(found, problem="not a JPEG, PNG or WebP picture")
    except Exception as error:  # a damaged file makes Pillow raise anything from OSError to IndexError
        return replace(found, problem="cut short" if "truncated" in str(error) else "damaged")
    return replace(found, width=width, height=height)


class Looks:
    """What is known of pictures, kept in a file so that a large folder is read through once. A changed file (size or time) is looked at anew."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._known: dict[str, list[Any]] = {}
        if file is not None and file.is_file():
            try:
                known = json.loads(file.read_bytes())
            except (OSError, ValueError):  # a cache that cannot be read is made again
                known = {}
            self._known = known if isinstance(known, dict) else {}

    def of(self, images: Sequence[Path], *, workers: int = 0, progress: Progress | None = None) -> dict[Path, Look]:
        """Looks at `images`, by `workers` processes where more than 0."""
        found: dict[Path, Look] = {}
        marks: dict[Path, tuple[int, int]] = {}
        todo = []
        for image in dict.fromkeys(images):
            try:
                status = image.stat()
            except OSError as error:
                found[image] = Look(problem=f"cannot be read ({error.strerror or error})")
                continue
            marks[image] = (status.st_size, status.st_mtime_ns)
            known = self._known.get(str(image))
            if isinstance(known, list) and len(known) == 6 and tuple(known[:2]) == marks[image]:
                found[image] = Look(digest=known[2], width=known[3], height=known[4], problem=known[5])
            else:
                todo.append(image)
        total = len(found) + len(todo)
        for image, seen in zip(todo, _look_at(todo, workers), strict=True):
            found[image] = seen
            if seen.digest:  # a file that could not be read may be readable the next time
                self._known[str(image)] = [*marks[image], seen.digest, seen.width, seen.height, seen.problem]
            if progress is not None:
                progress(len(found), total)
        if todo and self.file is not None:
            paths.write_atomic(self.file, json.dumps(self._known).encode())
        return found


def _look_at(images: list[Path], workers: int) -> Iterator[Look]:
    """`look` of each, in order."""
    if workers < 1 or len(images) < 2 * workers:
        yield from map(look, images)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Spawned, not forked: a forked child inherits threads and locks of a program that trains.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(look, images, chunksize=max(1, min(64, len(images) // (4 * workers))))


# --- pairs ---


def default_cache(source: Path) -> Path:
    """Where the looks at a source's pictures are kept, in BitMar's home."""
    return paths.home() / "cache" / f"pictures-{hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]}.json"


def part(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(training, validation): each picture goes by its digest alone, so that it stays on its side when pictures are added."""
    train: list[Pair] = []
    val: list[Pair] = []
    for pair in pairs:
        (val if held_out(pair.digest, share, salt="bitmar-captions") else train).append(pair)
    return train, val


def _merged(named: Sequence[tuple[str, Path, tuple[str, ...]]], looks: dict[Path, Look], skipped: list[Skipped]) -> list[Pair]:
    """One pair for each picture, copies joined; bad pictures go to `skipped`."""
    found: dict[str, Pair] = {}
    bad: set[Path] = set()
    for name, image, captions in named:
        seen = looks[image]
        if seen.problem:
            if image not in bad:
                skipped.append(Skipped(name=name, reason=seen.problem))
            bad.add(image)
            continue
        before = found.get(seen.digest)
        if before is None:
            found[seen.digest] = Pair(image=image, captions=tuple(dict.fromkeys(captions)), digest=seen.digest)
        else:
            found[seen.digest] = replace(before, captions=tuple(dict.fromkeys(before.captions + captions)))
    return list(found.values())


def read_pairs(
    source: Path,
    *,
    images: Path | None = None,
    val_share: float = 0.05,
    limit: int | None = None,
    cache: Path | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Pairs:
    """Pairs of a COCO folder, or of a .jsonl file.

    COCO's own splits are kept where both are there. One split alone, and JSON lines, are parted by `val_share` of the digests.

    Args:
        images: folder that the image paths of a .jsonl file start from. Default: the folder of the file.
        limit: use at most so many pictures of each of COCO's splits, or of the file.
        cache: file that remembers what was seen of the pictures; see `default_cache`.
        workers: processes that look at pictures; 0 looks in this one.

    Raises:
        MissingError: no such file or folder, or not a single usable pair in it.
        BitMarError: a captions file is not COCO's format.
    """
    if not 0.0 <= val_share < 1.0:
        raise ValueError(f"val_share: expected 0 to less than 1, got {val_share}")
    looks = Looks(cache)
    if source.suffix.lower() == ".jsonl":
        pairs = _from_lines(source, (images or source.parent).resolve(), val_share, limit, looks, workers, progress)
    else:
        pairs = _from_coco(source, val_share, limit, looks, workers, progress)
    if not pairs.train and not pairs.val:
        raise MissingError(f"{source} has no usable pair of picture and caption: {pairs.summary()}; `bitmar download-coco --out {source}` brings COCO's")
    return pairs


def _from_lines(source: Path, root: Path, val_share: float, limit: int | None, looks: Looks, workers: int, progress: Progress | None) -> Pairs:
    skipped: list[Skipped] = []
    named: list[tuple[str, Path, tuple[str, ...]]] = []
    for number, row in _json_lines(source):
        read = _line(row, root)
        if isinstance(read, str):
            skipped.append(Skipped(name=f"{source.name}, line {number}", reason=read))
        else:
            named.append((f"{source.name}, line {number}, {read[0].name}", *read))
    if limit is not None:
        kept = set(list(dict.fromkeys(image for _, image, _ in named))[:limit])
        named = [one for one in named if one[1] in kept]
    pairs = _merged(named, looks.of([image for _, image, _ in named], workers=workers, progress=progress), skipped)
    train, val = part(pairs, val_share)
    return Pairs(train=train, val=val, skipped=skipped)


def _from_coco(folder: Path, val_share: float, limit: int | None, looks: Looks, workers: int, progress: Progress | None) -> Pairs:
    if not folder.is_dir():
        raise MissingError(f"no folder {folder}; `bitmar download-coco --out {folder}` makes it")
    skipped: list[Skipped] = []
    named: dict[str, list[tuple[str, Path, tuple[str, ...]]]] = {}
    absent = 0
    for split in SPLITS:
        file = folder / "annotations" / f"captions_{split}2017.json"
        if not file.is_file():
            continue
        entries, odd = read_captions(file)
        skipped += odd
        here = [(f"{split}2017/{e.file_name}", folder / f"{split}2017" / e.file_name, e.captions) for e in entries]
        there = [one for one in here if one[1].is_file()]
        absent += len(here) - len(there)
        named[split] = there[:limit]
    if not named:
        raise MissingError(f"{folder} has no annotations/captions_train2017.json or captions_val2017.json; `bitmar download-coco --out {folder}` brings them")
    seen = looks.of([image for rows in named.values() for _, image, _ in rows], workers=workers, progress=progress)
    merged = {split: _merged(rows, seen, skipped) for split, rows in named.items()}
    if not merged.get("train") or not merged.get("val"):
        train, val = part(merged.get("train") or merged.get("val") or [], val_share)
        return Pairs(train=train, val=val, skipped=skipped, absent=absent)
    kept_back = {pair.digest for pair in merged["val"]}
    train = [pair for pair in merged["train"] if pair.digest not in kept_back]
    return Pairs(train=train, val=merged["val"], skipped=skipped, absent=absent, shared=len(merged["train"]) - len(train))
