"""The interface's end of the pipe to the model's process. Nothing here waits: threads read and write, `poll` takes what has come."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from bitmar_cli.tui import protocol
from bitmar_core import paths

REAL = "bitmar_cli.tui.worker:open_real"


class Engine:
    """A worker process. `start` again after it ended, or to be rid of one that hangs."""

    def __init__(self, opening: protocol.Opening, *, opener: str = REAL) -> None:
        self.opening = opening
        self.opener = opener
        self._process: subprocess.Popen[bytes] | None = None
        self._out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._in: deque[Any] = deque()
        self._run = 0

    def start(self) -> None:
        """Start a worker; one that runs is ended first."""
        self.stop()
        self._run += 1
        self._in.clear()
        self._out = queue.SimpleQueue()
        log = paths.log_file()
        with contextlib.suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
        try:
            errors: Any = open(log, "ab")  # noqa: SIM115 - handed to the process and closed below
        except OSError:
            errors = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bitmar_cli.tui.worker", self.opener], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=_environment(), start_new_session=True,
            )  # fmt: skip
        finally:
            if errors is not subprocess.DEVNULL:
                errors.close()
        for work in (self._read, self._write):
            threading.Thread(target=work, args=(self._process, self._out, self._run), daemon=True).start()
        self.send(self.opening)

    def send(self, message: Any) -> None:
        """Queue a message for the worker."""
        self._out.put(message)

    def poll(self, limit: int = 2000) -> list[Any]:
        """Replies that have come since the last call, oldest first."""
        found: list[Any] = []
        while self._in and len(found) < limit:
            found.append(self._in.popleft())
        return found

    @property
    def pid(self) -> int | None:
        """Process id of the worker, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def stop(self) -> None:
        """End the worker without waiting for it."""
        process, self._process = self._process, None
        self._out.put(None)
        if process is not None:
            self._run += 1  # what the old reader still says is no news
            with contextlib.suppress(OSError):
                process.kill()
            threading.Thread(target=process.wait, daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes], out: Any, run: int) -> None:
        assert process.stdout is not None
        try:
            while (message := protocol.read(process.stdout)) is not None:
                if run == self._run:
                    self._in.append(message)
        except Exception as error:  # a torn message is an ended worker
            if run == self._run:
                self._in.append(protocol.Note(text=f"the model's process sent something unreadable ({type(error).__name__})"))
        with contextlib.suppress(OSError):
            process.kill()
        code = process.wait()
        out.put(None)
        if run == self._run:
            self._in.append(protocol.Died(code=code, log=str(paths.log_file())))

    def _write(self, process: subprocess.Popen[bytes], out: Any, run: int) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (message := out.get()) is not None:
                protocol.write(process.stdin, message)
        with contextlib.suppress(OSError):
            process.stdin.close()


def _environment() -> dict[str, str]:
    """The worker finds the same packages as this process, also in a checkout that is not installed."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not known else f"{root}{os.pathsep}{known}"}
