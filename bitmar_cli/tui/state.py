"""All that the screens show, and how replies of the worker change it. Plain data: tests read it, screens draw it."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import Any

from bitmar_cli.tui import protocol as p
from bitmar_cli.tui.runs import Run
from bitmar_cli.tui.turns import Turn
from bitmar_core import events as ev


@dataclass
class State:
    """See the module's first lines. `status` is loading, ready, answering, stopping or down."""

    session: str = ""
    status: str = "loading"
    ready: p.Ready | None = None
    turns: list[Turn] = field(default_factory=list)
    chosen: int | None = None
    """Index of the turn that panes show; None is the last."""
    step: int | None = None
    """Reasoning step that panes show, 0-based; None is the decision."""
    image: str | None = None
    site: str | None = None
    seed: int | None = None
    pictures: dict[str, p.Looked] = field(default_factory=dict)
    memory: p.MemoryNow | None = None
    nearness: p.Nearness | None = None
    reruns: dict[int, p.Rerun] = field(default_factory=dict)
    """Of the slots, for the present task and memory."""
    why: dict[int, p.Ablations] = field(default_factory=dict)
    frozen: bool = False
    run: Run | None = None
    said: str = ""
    """The line at the foot."""
    level: str = ""
    """"", warn or bad"""
    asked: int | None = None
    """Id of the answer that the worker is at, also while it is being stopped."""
    began: float = 0.0
    next_id: int = 1

    # --- what is looked at ---

    def turn(self) -> Turn | None:
        """The turn that panes show: the chosen one, or the last that was a task."""
        if self.chosen is not None and self.chosen < len(self.turns):
            return self.turns[self.chosen]
        return self.last()

    def last(self) -> Turn | None:
        """The last turn that was a task."""
        return next((turn for turn in reversed(self.turns) if not turn.note), None)

    def live(self) -> Turn | None:
        """The turn that is being answered."""
        turn = self.last()
        return turn if turn is not None and turn.live else None

    def picture(self) -> p.Looked | None:
        """The photo of the turn that is shown, or the one for the next task."""
        turn = self.turn()
        path = turn.image if turn is not None and turn.image else self.image
        return self.pictures.get(path) if path else None

    def values(self, row: int) -> array[float]:
        """The stored numbers of a row of the memory."""
        numbers: array[float] = array("f")
        if self.memory is not None:
            size = self.memory.width * 4
            numbers.frombytes(self.memory.values[row * size : (row + 1) * size])
        return numbers

    def weights(self) -> dict[int, float]:
        """Share of the shown answer that each slot decided."""
        turn = self.turn()
        return {} if turn is None else {slot["slot"]: slot["weight"] for slot in turn.memory}

    def question(self) -> p.Question | None:
        """The task that panes are about."""
        turn = self.turn()
        return None if turn is None or turn.note or not turn.task else p.Question(task=turn.task, image=turn.image, site=turn.site)

    # --- changes ---

    def say(self, text: str, level: str = "") -> None:
        """Set the line at the foot."""
        self.said, self.level = text, level

    def begin(self, turn: Turn) -> None:
        """A task is sent."""
        if turn not in self.turns[-1:]:
            self.turns.append(turn)
        turn.request = self.next_id
        self.next_id += 1
        self.asked, self.began = turn.request, time.monotonic()
        if self.status in ("ready", "stopping"):
            self.status = "answering"
        self.chosen = self.step = None

    def new_turn(self, task: str, *, note: str = "") -> Turn:
        """A turn with the present photo, place and seed."""
        turn = Turn(id=self.next_id, task=task, image=self.image, site=self.site, seed=self.seed, note=note)
        self.next_id += 1
        return turn

    def stop(self) -> Turn | None:
        """The person stops the answer: it ends here, whatever the worker still says."""
        turn = self.live()
        if turn is None:
            return None
        turn.stop(time.monotonic() - self.began)
        self.status = "stopping"
        return turn

    def apply(self, reply: Any) -> set[str]:
        """Fold in a reply of the worker and tell what changed: status, turns, answer, ended, memory, nearness, image, why."""
        match reply:
            case p.Said():
                return self._event(reply)
            case p.Ready():
                self.ready = reply
                if self.status in ("loading", "down"):
                    self.status = "ready" if self.asked is None else "answering"
                    self.say(f"{reply.model} loaded in {reply.seconds:.1f} s" if reply.seconds else "")
                else:
                    self.say(f"fleet {reply.fleet_name}: {', '.join(reply.fleet)}")
                return {"status", "answer"}
            case p.MemoryNow():
                self.memory, self.nearness = reply, None
                self.reruns.clear()
                return {"memory"}
            case p.Nearness():
                if reply.question == self.question():
                    self.nearness = reply
                return {"memory"}
            case p.Rerun():
                self.reruns[reply.slot] = reply
                self.say(f"asked again without slot {reply.slot}")
                return {"memory", "status"}
            case p.Looked():
                self.pictures[reply.path] = reply
                self.say(f"photo {reply.path} {reply.width}x{reply.height} sha {reply.digest[:4]}")
                return {"image", "status"}
            case p.Ablations():
                self.why[reply.id] = reply
                self.say("every number under `why` is a rerun with that one thing left out")
                return {"why", "memory", "status"}
            case p.Note():
                self.say(reply.text)
                return {"status"}
            case p.Failed():
                return self._failed(reply)
            case p.Died():
                return self._died(reply)
        return set()

    def _event(self, reply: p.Said) -> set[str]:
        turn = self.live()
        done = isinstance(reply.event, ev.Done)
        if turn is None or turn.request != reply.id:
            if not isinstance(reply.event, ev.Done):
                return set()
            stopped = next((t for t in reversed(self.turns) if t.request == reply.id), None)
            if stopped is not None and stopped.answer is None:
                stopped.answer = {**reply.event.answer, "reasoning": dict(stopped.sections)}
            if reply.id == self.asked:
                self.asked, self.status = None, "ready"
            return {"status", "ended"}
        if self.status == "ready":
            self.status = "answering"
        turn.take(reply.event, time.monotonic() - self.began)
        if isinstance(reply.event, ev.MemoryRead | ev.Step | ev.Decision):
            return {"turns", "answer"}
        if done:
            self.status, self.asked = "ready", None
            return {"turns", "answer", "status", "ended"}
        return {"turns"}

    def _failed(self, reply: p.Failed) -> set[str]:
        self.say(reply.line, "bad")
        if reply.fatal:
            self.status = "down"
        if reply.id is not None and (reply.id == self.asked or reply.fatal):
            turn = self.live()
            if turn is not None:
                turn.fail(reply.line)
            self.asked, self.status = None, "ready"
            return {"turns", "status", "ended"}
        if reply.about and reply.about == self.image:
            self.image = None
            return {"image", "status"}
        return {"status"}

    def _died(self, reply: p.Died) -> set[str]:
        if self.status != "down":
            how = f"exit code {reply.code}" if reply.code is None or reply.code >= 0 else f"signal {-reply.code}"
            self.say(f"the model's process ended ({how}); see {reply.log}", "bad")
        self.asked = None
        turn = self.live()
        if turn is not None:
            turn.fail("the model's process ended in the middle; what was said is kept")
        self.status = "down"
        return {"turns", "status", "ended"}
