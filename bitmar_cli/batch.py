"""Many tasks from a file of JSON lines to a file of answers, in order and in constant memory."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bitmar_cli import tasks
from bitmar_cli.answers import shorten
from bitmar_cli.exits import ExitCode
from bitmar_cli.names import file_to_read
from bitmar_cli.render import is_terminal, narrate, one_line, to_json
from bitmar_core.errors import BitMarError, UsageError

MAX_LINE = 4_000_000
"""Longest line, in bytes. What is longer is refused without being held in memory."""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A line that cannot be asked."""

    id: Any
    error: str


@dataclass
class Source:
    """The file of requests."""

    path: Path | None
    """None is stdin."""
    folder: Path
    file: IO[bytes]
    size: int
    read: int = 0

    @classmethod
    def open(cls, name: str) -> Source:
        """Open FILE, or stdin for `-`.

        Raises:
            MissingError: no such file.
            UsageError: not a regular file.
        """
        if name == "-":
            return cls(path=None, folder=Path(), file=sys.stdin.buffer, size=0)
        path = file_to_read(name)
        try:
            return cls(path=path, folder=path.parent, file=path.open("rb"), size=path.stat().st_size)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Line numbers and lines; None stands for one that is too long. Blank lines are left out."""
        number = 0
        while data := self.file.readline(MAX_LINE + 1):
            number += 1
            self.read += len(data)
            if len(data) > MAX_LINE:
                while data and not data.endswith(b"\n"):
                    data = self.file.readline(MAX_LINE + 1)
                    self.read += len(data)
                yield number, None
                continue
            if number == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if data.strip():
                yield number, data


def parse(data: bytes | None, folder: Path, *, site: str | None = None) -> dict[str, Any] | Bad:
    """One line as a request whose image path is resolved, or why it is none."""
    if data is None:
        return Bad(id=None, error=f"longer than {MAX_LINE // 1_000_000} MB; shorten it")
    try:
        item = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Bad(id=None, error="not UTF-8 text; save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return Bad(id=None, error=f"not valid JSON ({getattr(error, 'msg', None) or 'a value cannot be read'}); write one object a line")
    if not isinstance(item, dict):
        return Bad(id=None, error='not an object; write {"task": "..."}')
    key = item.get("id")
    if not (key is None or isinstance(key, (str, int, float, bool))) or key != key or key in (float("inf"), float("-inf")):
        return Bad(id=None, error='"id" must be text or a number')
    for field in ("task", "image", "site"):
        if item.get(field) is not None and not isinstance(item[field], str):
            return Bad(id=key, error=f'"{field}" must be text')
    if item.get("task") is None:
        return Bad(id=key, error='there is no "task"; write {"task": "..."}')
    try:
        request: dict[str, Any] = {"task": tasks.checked(item["task"])}
    except BitMarError as error:
        return Bad(id=key, error=str(error))
    if "id" in item:
        request = {"id": key, **request}
    if item.get("image") is not None:
        if not item["image"].strip():
            return Bad(id=key, error='"image" is empty; give a path or leave it out')
        request["image"] = str(folder / item["image"])
    place = item.get("site") if item.get("site") is not None else site
    if place is not None:
        request["site"] = tasks.clean(place)
    return request


@dataclass
class Target:
    """Where answers go: stdout, or a file that appears whole at the end."""

    path: Path | None
    """None is stdout."""

    @classmethod
    def plan(cls, name: str | None, source: Source) -> Target:
        """Check the output's name before any work is done.

        Raises:
            UsageError: a folder, a folder that is not there, or the input itself.
        """
        if name is None or name == "-":
            return cls(None)
        path = Path(name)
        try:
            if not name or path.is_dir():
                raise UsageError(f"--output {name!r} is not a file; give the path of a file")
            path = path.resolve()
            if not path.parent.is_dir():
                raise UsageError(f"there is no folder {path.parent}; create it first")
            if source.path is not None and path.exists() and path.samefile(source.path):
                raise UsageError("--output is the --input file; choose another name")
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot write {name!r}: {getattr(error, 'strerror', None) or error}; choose another name") from error
        return cls(path)

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[str]]:
        """A stream to write to. A regular file is written beside its place and renamed once all went well."""
        if self.path is None:
            yield sys.stdout
            sys.stdout.flush()
            return
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe or a device, such as /dev/null
                with self.path.open("w", encoding="utf-8") as file:
                    yield file
                return
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(name, 0o666 & ~mask)
                os.replace(name, self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise BitMarError(f"cannot write {self.path}: {error.strerror or error}; free space or choose another folder") from error


class Progress:
    """A line on stderr that is rewritten; nothing where stderr is no terminal."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shown = is_terminal(sys.stderr)
        self.start = self.last = time.monotonic()
        self.done = 0

    def step(self) -> None:
        """Count one answer."""
        self.done += 1
        now = time.monotonic()
        if self.shown and now - self.last > 0.2:
            self.last = now
            share = f", {100 * self.source.read // self.source.size} % of the file read" if self.source.size else ""
            print(f"\r{self.done} answered{share}, {self.done / (now - self.start):.1f}/s   ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the line."""
        if self.shown and self.done:
            print(file=sys.stderr)


def run(session: Any, source: Source, target: Target, *, site: str | None, reasoning: bool, top: int | None, strict: bool) -> ExitCode:
    """Answer every line. A bad one gives `{"id", "error"}` in its place."""
    waiting: deque[tuple[int, Bad | None]] = deque()
    """What was read and is not yet written: line numbers, and the bad ones themselves."""
    bad = unsure = 0
    progress = Progress(source)

    with contextlib.closing(progress), target.opened() as out, contextlib.closing(source.file) if source.path else contextlib.nullcontext():

        def write(number: int, item: Bad | dict[str, Any]) -> None:
            nonlocal bad, unsure
            if isinstance(item, Bad):
                bad += 1
                item = {"id": item.id, "error": f"line {number}: {one_line(item.error)}"}
            elif item.get("abstained"):
                unsure += 1
            out.write(to_json(shorten(item, top)) + "\n")
            progress.step()

        def write_bad_ones() -> None:
            while waiting and (item := waiting[0][1]) is not None:
                number, _ = waiting.popleft()
                write(number, item)

        def requests() -> Iterator[dict[str, Any]]:
            for number, data in source.lines():
                item = parse(data, source.folder, site=site)
                waiting.append((number, item if isinstance(item, Bad) else None))
                if isinstance(item, Bad):
                    write_bad_ones()
                else:
                    yield item

        for answer in session.answer_many(requests(), reasoning=reasoning):
            write_bad_ones()
            number, _ = waiting.popleft()
            write(number, Bad(id=answer.get("id"), error=answer["error"]) if "error" in answer else answer)
            write_bad_ones()
            if target.path is None:
                out.flush()
        write_bad_ones()
    if bad:
        narrate(f'bitmar: {bad} of {progress.done} lines could not be answered; each holds an "error" in the output')
        return ExitCode.ERROR
    return ExitCode.NOT_SURE if strict and unsure else ExitCode.DONE
