"""The model's process: `python -m bitmar_cli.tui.worker package.module:function`. It ends when its stdin closes.

Requests come in on stdin and replies go out on stdout, as `protocol.py` frames them; whatever else is printed goes to stderr,
which is the log file. A thread reads requests, so that a `Cancel` takes effect while an answer is being written.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from bitmar_cli.tui import protocol

Open = Callable[..., Any]


def serve(receive: Callable[[], Any], send: Callable[[Any], None], open_session: Open) -> None:
    """Open a session and answer requests until `receive` gives None.

    Args:
        receive: blocks for the next message; the first is an `Opening`.
        send: takes a reply.
        open_session: called like `bitmar_cli.opening.open_session`.
    """
    from bitmar_cli.tui.serving import Server

    opening = receive()
    if opening is None:
        return
    jobs: queue.Queue[Any] = queue.Queue()
    cancelled = Cancelled()

    def sort() -> None:
        while (message := receive()) is not None:
            if isinstance(message, protocol.Cancel):
                cancelled.add(message.id)
            else:
                jobs.put(message)
        cancelled.close()
        jobs.put(None)

    threading.Thread(target=sort, daemon=True).start()
    server = Server(send, cancelled)
    if server.open(open_session, opening):
        while (job := jobs.get()) is not None:
            server.handle(job)


class Cancelled:
    """Which answers were stopped, also those whose turn has not come yet."""

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._now: tuple[int, threading.Event] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def add(self, id: int) -> None:
        """Stop the answer `id`."""
        with self._lock:
            self._ids.add(id)
            if self._now is not None and self._now[0] == id:
                self._now[1].set()

    def close(self) -> None:
        """Stop every answer: nobody listens any more."""
        with self._lock:
            self._closed = True
            if self._now is not None:
                self._now[1].set()

    def begin(self, id: int) -> threading.Event:
        """The event that is set when `id` is stopped."""
        event = threading.Event()
        with self._lock:
            self._now = (id, event)
            if id in self._ids or self._closed:
                event.set()
        return event


def open_real(*, model: str | None, fleet: str | None, memory: str, store: str | None) -> Any:
    """A session on the shipped or named model."""
    from pathlib import Path

    from bitmar_cli import opening

    return opening.open_session(model=model, fleet=None if fleet is None else Path(fleet), memory=memory, store=store)


def main() -> None:
    """Speak on the pipe that this process was started with."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            protocol.write(outgoing, message)

    with contextlib.suppress(BrokenPipeError):  # the interface is gone, and so is the reason to go on
        serve(lambda: protocol.read(incoming), send, getattr(importlib.import_module(module), name))
    os._exit(0)  # the reading thread may still wait on stdin


if __name__ == "__main__":
    main()
