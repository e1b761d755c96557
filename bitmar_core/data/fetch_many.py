"""Several files at once, by a few threads, told as events: how far, how fast, how long still, and what went wrong."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bitmar_core.data.fetch import Cancelled, DiskError, Pace, Remote, Retries, fetch
from bitmar_core.errors import BitMarError, TryAgainError

EVERY = 0.2
"""Seconds between two progress events."""

WINDOW = 15.0
"""Seconds that a rate is measured over."""

GIVE_UP = 20
"""Pictures in a row that fail before the run ends: then it is the server, not the picture."""

Stage = Literal["fetch", "unpack", "copy"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is."""

    stage: Stage
    bytes_done: int
    bytes_total: int | None
    """None where it is not known."""
    files_done: int
    files_total: int
    rate: float
    """Bytes a second over the last moments."""
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class Retrying:
    """A file did not come; it is asked for again after `seconds`."""

    name: str
    reason: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A picture that did not come, or came damaged. The rest goes on."""

    name: str
    reason: str


class Meter:
    """Counts bytes and files of one stage from any thread."""

    def __init__(self, stage: Stage, *, files: int, total: int | None) -> None:
        self.stage, self.files_total, self.bytes_total = stage, files, total
        self._lock = threading.Lock()
        self.bytes_done = self.files_done = 0
        self._marks: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])
        self._shown = 0.0

    def add(self, count: int) -> None:
        """`count` more bytes; fewer where it is negative."""
        with self._lock:
            self.bytes_done += count

    def start_from(self, count: int) -> None:
        """Bytes that were there before: they count as done, not as speed."""
        with self._lock:
            self.bytes_done += count
            self._marks = deque((when, done + count, files) for when, done, files in self._marks)

    def file(self) -> None:
        """One more file is finished."""
        with self._lock:
            self.files_done += 1

    def progress(self) -> Progress:
        """How far it is now."""
        with self._lock:
            now = time.monotonic()
            while len(self._marks) > 1 and now - self._marks[0][0] > WINDOW:
                self._marks.popleft()
            then, bytes_then, files_then = self._marks[0]
            seconds = max(1e-3, now - then)
            rate = max(0.0, (self.bytes_done - bytes_then) / seconds)
            pace = (self.files_done - files_then) / seconds
            self._marks.append((now, self.bytes_done, self.files_done))
            left: float | None = None
            if self.bytes_total is not None and rate > 0:
                left = max(0, self.bytes_total - self.bytes_done) / rate
            elif self.bytes_total is None and pace > 0:
                left = (self.files_total - self.files_done) / pace
            return Progress(
                stage=self.stage, bytes_done=self.bytes_done, bytes_total=self.bytes_total, files_done=self.files_done, files_total=self.files_total,
                rate=rate, seconds_left=left,
            )  # fmt: skip

    def due(self) -> bool:
        """Whether it is time for the next progress event."""
        now = time.monotonic()
        if now - self._shown < EVERY:
            return False
        self._shown = now
        return True


def fetch_many(
    remotes: Sequence[Remote],
    *,
    jobs: int,
    cancel: threading.Event,
    retries: Retries | None = None,
    all_needed: bool = False,
) -> Iterator[Progress | Retrying | LeftOut]:
    """Fetch files by up to `jobs` threads.

    Args:
        all_needed: one file that does not come ends the run (archives); else it is left out (pictures).

    Raises:
        Cancelled: the flag was set.
        TryAgainError: the server or the network does not answer.
        BitMarError: a file that is needed did not come, the disk is full, or no picture comes at all.
    """
    if not remotes:
        return
    sizes = [remote.size for remote in remotes]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    meter = Meter("fetch", files=len(remotes), total=total)
    todo: queue.SimpleQueue[Remote] = queue.SimpleQueue()
    for remote in remotes:
        todo.put(remote)
    said: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
    stop, pace = threading.Event(), Pace()
    # Daemons: a thread that waits for a silent server must not keep a stopped program alive.
    threads = [
        threading.Thread(target=_work, args=(todo, said, stop, pace, retries, meter, all_needed), daemon=True) for _ in range(min(max(1, jobs), len(remotes)))
    ]
    for thread in threads:
        thread.start()
    failures = Failures(all_needed)
    try:
        while meter.files_done + failures.count < len(remotes):
            if cancel.is_set():
                raise Cancelled
            try:
                kind, name, what = said.get(timeout=EVERY)
            except queue.Empty:
                kind = ""
            if kind == "retrying":
                yield Retrying(name=name, reason=what[0], seconds=what[1])
            elif kind == "failed":
                yield failures.take(name, what)
            elif kind == "done":
                meter.file()
                failures.in_a_row = 0
            if meter.due():
                yield meter.progress()
        yield meter.progress()
    finally:
        stop.set()
        deadline = time.monotonic() + 2.0
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class Failures:
    """Decides which failure ends the run."""

    def __init__(self, all_needed: bool) -> None:
        self.all_needed, self.count, self.in_a_row = all_needed, 0, 0

    def take(self, name: str, error: BaseException) -> LeftOut:
        """Count a failure, or raise it."""
        if self.all_needed or not isinstance(error, BitMarError) or isinstance(error, DiskError):
            raise error
        self.count += 1
        self.in_a_row += 1
        if self.in_a_row >= GIVE_UP:
            kind = TryAgainError if isinstance(error, TryAgainError) else BitMarError
            raise kind(f"{self.in_a_row} pictures in a row did not come; the last: {error}") from error
        return LeftOut(name=name, reason=str(error))


def _work(
    todo: queue.SimpleQueue[Remote],
    said: queue.SimpleQueue[tuple[str, str, Any]],
    stop: threading.Event,
    pace: Pace,
    retries: Retries | None,
    meter: Meter,
    sync: bool,
) -> None:
    """One thread: files until there are none."""
    while not stop.is_set():
        try:
            remote = todo.get_nowait()
        except queue.Empty:
            return
        name = remote.path.name
        try:
            fetch(
                remote,
                cancel=stop,
                retries=retries,
                pace=pace,
                there=meter.start_from,
                received=meter.add,
                retrying=lambda reason, seconds, name=name: said.put(("retrying", name, (reason, seconds))),  # type: ignore[misc]
                sync=sync,
            )
            said.put(("done", name, None))
        except Cancelled:
            return
        except Exception as error:  # whatever it is, the thread that waits must hear of it
            said.put(("failed", name, error))
