"""From requests to a session and its memory, and back to replies. Runs in the worker; every refusal becomes one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bitmar_cli.render import one_line
from bitmar_cli.tui import protocol as p
from bitmar_core.errors import BitMarError, UsageError

if TYPE_CHECKING:
    from bitmar_cli.tui.worker import Cancelled

NEAREST = 3
SIDE = 112
"""Pixels of a photo's side, as panes show it: 56 rows of half blocks."""


class Server:
    """Answers one request at a time."""

    def __init__(self, send: Callable[[Any], None], cancelled: Cancelled) -> None:
        self.send = send
        self.cancelled = cancelled
        self.session: Any = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            p.Ask: self._ask, p.Look: self._look, p.Near: self._near, p.Without: self._without, p.Why: self._why, p.Teach: self._teach,
            p.Change: self._change, p.SetFleet: self._set_fleet,
        }  # fmt: skip

    def open(self, open_session: Callable[..., Any], opening: p.Opening) -> bool:
        """Load the model and say so; tells whether it could be done."""
        began = time.perf_counter()
        try:
            self.session = open_session(model=opening.model, fleet=opening.fleet, memory=opening.memory, store=opening.store)
        except Exception as error:  # whatever it is, the person at the screen must read it
            self._trouble(error, fatal=True)
            return False
        self._ready(time.perf_counter() - began)
        self._memory()
        return True

    def handle(self, request: Any) -> None:
        """Do one request."""
        try:
            self._handlers[type(request)](request)
        except Exception as error:
            self._trouble(error, id=getattr(request, "id", None), about=getattr(request, "path", None) or "")

    def _trouble(self, error: Exception, *, id: int | None = None, fatal: bool = False, about: str = "") -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        if isinstance(error, BitMarError):
            line = one_line(error)
        else:
            import sys
            import traceback

            traceback.print_exception(error, file=sys.stderr)
            line = one_line(f"unexpected {type(error).__name__}: {str(error)[:200]}; the traceback is in the log file that `bitmar doctor` names")
        self.send(p.Failed(line=line, id=id, fatal=fatal, about=about))

    def _ready(self, seconds: float = 0.0) -> None:
        session = self.session
        about = session.about() if hasattr(session, "about") else {}
        limits = session.config.inference
        self.send(p.Ready(
            model=session.model_name, fleet_name=session.fleet.name, fleet=tuple(session.fleet.names), memory=session.memory is not None,
            limit=int(getattr(limits, "max_task_chars", 20_000)), floor=float(limits.confidence_floor), temperature=about.get("temperature"),
            ece=about.get("ece"), seconds=seconds,
        ))  # fmt: skip

    # --- answers ---

    def _ask(self, request: p.Ask) -> None:
        cancel = self.cancelled.begin(request.id)
        q = request.question
        for event in self.session.ask(q.task, image=q.image, site=q.site, seed=request.seed, cancel=cancel):
            self.send(p.Said(id=request.id, event=event))

    def _answer(self, q: p.Question) -> dict[str, Any]:
        return self.session.answer(q.task, image=q.image, site=q.site, reasoning=False)

    def _look(self, request: p.Look) -> None:
        self.send(p.Looked(path=request.path, side=SIDE, **self.session.preview(request.path, SIDE)))

    def _why(self, request: p.Why) -> None:
        q = request.question
        present = self._answer(q)
        without: list[tuple[str, dict[str, Any]]] = []
        for slot in present["memory"]:
            without.append((f"slot {slot['slot']}", self.session.without_slot(q.task, slot["slot"], image=q.image, site=q.site)))
        if q.image is not None:
            without.append(("the photo", self._answer(p.Question(task=q.task, site=q.site))))
        if q.site is not None:
            without.append(("the site note", self._answer(p.Question(task=q.task, image=q.image))))
        self.send(p.Ablations(id=request.id, present=present, without=tuple(without)))

    # --- memory ---

    def _store(self) -> Any:
        if self.session.memory is None:
            raise UsageError("the memory is off; start without --memory off")
        self.session.memory.reload_if_changed()
        return self.session.memory

    def _memory(self) -> None:
        if self.session.memory is None:
            return
        store = self._store()
        episodes = store.episodes()
        fields = ("task", "site", "image", "robot", "because", "confidence", "source", "made", "used", "uses", "pinned")
        rows = tuple(p.SlotRow(slot=slot, **{name: getattr(story, name) for name in fields}) for slot, story in episodes)
        values = store.values[[slot for slot, _ in episodes]].astype("<f4").tobytes() if episodes else b""
        slot = store.next_slot()
        slot = -1 if slot is None else slot
        self.send(p.MemoryNow(
            slots=store.slots, width=store.width, rows=rows, values=values, scale=float(abs(store.values).max(initial=0.0)), undo=tuple(store.undoable()), folder=str(store.folder),
            next_slot=slot, replaces=slot >= 0 and bool(store.occupied[slot]),
        ))  # fmt: skip

    def _near(self, request: p.Near) -> None:
        q = request.question
        similar = self.session.similarities(q.task, image=q.image, site=q.site) if hasattr(self.session, "similarities") else {}
        self.send(p.Nearness(question=q, similarity={int(k): float(v) for k, v in similar.items()}))

    def _without(self, request: p.Without) -> None:
        store = self._store()
        story = store.episode(request.slot)
        if story is None:
            raise UsageError(f"slot {request.slot} is empty")
        q = request.question or p.Question(task=story.task, site=story.site)
        near = store.keys @ store.keys[request.slot]
        order = [int(i) for i in near.argsort()[::-1] if store.occupied[i] and i != request.slot][:NEAREST]
        self.send(p.Rerun(
            slot=request.slot, task=q.task, own=request.question is None, present=self._answer(q),
            masked=self.session.without_slot(q.task, request.slot, image=q.image, site=q.site), nearest=tuple((i, float(near[i])) for i in order),
        ))  # fmt: skip

    def _teach(self, request: p.Teach) -> None:
        q = request.question
        slot = self.session.teach(q.task, request.robot, because=request.because, image=q.image, site=q.site)
        name = self.session.fleet.names[self.session.fleet.find(request.robot)]
        self._memory()
        self.send(p.Note(text=f"remembered in slot {slot}: {name}; undo takes it back"))

    def _change(self, request: p.Change) -> None:
        store = self._store()
        match request.what:
            case "forget":
                story = store.forget(request.slot)
                note = p.Note(text=f"forgot slot {request.slot} ({story.robot}); undo brings it back")
            case "pin" | "unpin":
                story = store.pin(request.slot, request.what == "pin")
                note = p.Note(text=f"slot {request.slot} is {'pinned' if story.pinned else 'not pinned'}")
            case "undo":
                note = p.Note(text=f"taken back: {store.undo()}")
            case "export":
                from bitmar_cli.names import file_to_write

                if not len(store):
                    raise UsageError("the memory is empty; there is nothing to export")
                target = file_to_write(os.path.expanduser(request.path))
                store.export(target)
                note = p.Note(text=f"exported {len(store)} episodes to {target}")
            case "import":
                from bitmar_cli.names import file_to_read

                count = store.import_(file_to_read(os.path.expanduser(request.path)), getattr(self.session, "encode_episode", None))
                note = p.Note(text=f"imported {count} episodes; undo takes them back")
            case "diff":
                note = _difference(store, os.path.expanduser(request.path))
            case _:
                self._memory()
                return
        self._memory()
        self.send(note)

    def _set_fleet(self, request: p.SetFleet) -> None:
        from bitmar_core.robots import load_fleet

        self.session.set_fleet(load_fleet(None if request.path is None else os.path.expanduser(request.path)))
        self._ready()


def _difference(store: Any, path: str) -> p.Note:
    """What a file of `bitmar memory export` holds that this memory does not, and the other way round."""
    from bitmar_cli.names import file_to_read
    from bitmar_core.memory import generations

    theirs = {held.episode.place: held.episode for held in generations.read_import(file_to_read(path)).held.values()}
    ours = {story.place: story for _, story in store.episodes()}
    lines = [f"+ only in the file: {theirs[key].brief()}" for key in theirs if key not in ours]
    lines += [f"- only here: {ours[key].brief()}" for key in ours if key not in theirs]
    lines += [f"~ {ours[key].brief()}; in the file -> {theirs[key].robot}" for key in ours if key in theirs and ours[key].robot != theirs[key].robot]
    same = len(ours) + len(theirs) - len(lines)
    return p.Note(text=f"{len(lines)} differences from {path}" if lines else f"no differences from {path} ({same // 2} episodes)", lines=tuple(lines))
