"""What a person can ask for, done to the state and sent to the worker. Knows nothing of screens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitmar_cli import answers, tasks
from bitmar_cli.render import to_json
from bitmar_cli.tui import protocol as p
from bitmar_cli.tui.state import State
from bitmar_cli.tui.turns import Turn
from bitmar_core import paths
from bitmar_core.errors import BitMarError, UsageError

_AT_PATH = re.compile(r"(?:^|\s)@(\"[^\"]+\"|\S+)")


class Controller:
    """Acts on a state. `engine` takes messages; `keep` writes a turn into the session's file."""

    def __init__(self, state: State, engine: Any, keep: Callable[[Turn], None]) -> None:
        self.state = state
        self.engine = engine
        self.keep = keep

    # --- asking ---

    def ask(self, text: str) -> None:
        """Send a task. A word `@path` that names a file sets the photo.

        Raises:
            UsageError: empty, too long, or another answer is being written.
        """
        state = self.state
        if state.live() is not None:
            raise UsageError("an answer is being written; Esc stops it")
        if state.status == "down":
            raise UsageError("the model is not running; the palette (Ctrl+P) has: Restart the model")
        for match in _AT_PATH.finditer(text):
            path = os.path.expanduser(match.group(1).strip('"'))
            if os.path.isfile(path):
                text = text.replace(match.group(0), " ", 1)
                self.set_image(path)
        task = tasks.checked(text)
        limit = state.ready.limit if state.ready else None
        if limit is not None and len(task) + len(state.site or "") > limit:
            raise UsageError(f"the task has {len(task):,} characters; {limit:,} is the limit: shorten it")
        self._send(state.new_turn(task))

    def _send(self, turn: Turn) -> None:
        self.state.begin(turn)
        self.keep(turn)
        self.engine.send(p.Ask(id=turn.request, question=p.Question(task=turn.task, image=turn.image, site=turn.site), seed=turn.seed))

    def stop(self) -> bool:
        """Stop the answer; what was said stays. Tells whether there was one."""
        turn = self.state.stop()
        if turn is None:
            return False
        self.engine.send(p.Cancel(id=turn.request))
        self.keep(turn)
        self.state.say("stopped; what was said is kept, /continue goes on")
        return True

    def again(self) -> None:
        """Ask the task of the shown turn again, with the memory as it is now and its text written with another seed. Raises UsageError."""
        turn = self._turn()
        if self.state.live() is not None:
            raise UsageError("an answer is being written; Esc stops it")
        new = self.state.new_turn(turn.task)
        new.image, new.site, new.seed = turn.image, turn.site, 1 if turn.seed is None else turn.seed + 1
        self._send(new)
        self.state.say(f"again, its text written with seed {new.seed}")

    def resume(self) -> None:
        """Go on with the last answer, which was stopped. Raises UsageError."""
        turn = self.state.last()
        if turn is None or turn.status not in ("stopped", "failed") or turn is not self.state.turns[-1]:
            raise UsageError("the last answer is whole; there is nothing to go on with")
        if self.state.status == "down":
            raise UsageError("the model is not running; the palette (Ctrl+P) has: Restart the model")
        turn.status, turn.error, turn.answer = "waiting", "", None
        self._send(turn)

    def why(self) -> None:
        """Ask again without each thing that the shown answer used. Raises UsageError."""
        turn = self._turn()
        if turn.decision is None:
            raise UsageError("this task has no answer yet")
        self.engine.send(p.Why(id=turn.id, question=p.Question(task=turn.task, image=turn.image, site=turn.site)))
        self.state.say("asking again without each thing that was used ...")

    def _turn(self) -> Turn:
        turn = self.state.turn()
        if turn is None or turn.note:
            raise UsageError("nothing was asked yet; type a task first")
        return turn

    # --- surroundings ---

    def set_image(self, path: str | None) -> None:
        """The photo for the next tasks; the worker says what is wrong with it."""
        self.state.image = None if path is None else os.path.expanduser(path)
        if self.state.image is not None:
            self.engine.send(p.Look(path=self.state.image))
            self.state.say("loading the photo ...")
        else:
            self.state.say("no photo")

    def set_site(self, text: str | None) -> None:
        """What is known of the place."""
        self.state.site = text or None
        self.state.say(f"site: {self.state.site or 'none'}")

    def set_seed(self, text: str) -> None:
        """Sample with it; empty or "off" writes the likeliest text. Raises UsageError."""
        from bitmar_cli.talk import whole_number

        self.state.seed = None if text.strip() in ("", "off") else whole_number(text, what="the seed")
        self.state.say(f"seed: {'off' if self.state.seed is None else self.state.seed}")

    def set_fleet(self, path: str | None) -> None:
        """Choose among other robots."""
        self.engine.send(p.SetFleet(path=path))

    # --- memory ---

    def teach(self, robot: str, because: str = "", task: str | None = None) -> None:
        """The shown task, or `task`, is for this robot. Raises UsageError."""
        self.thawed()
        question = self.state.question() if task is None else p.Question(task=tasks.checked(task))
        if question is None:
            raise UsageError("nothing was asked yet; type a task first")
        fleet = self.state.ready.fleet if self.state.ready else ()
        names = [name for name in fleet if name.casefold() == robot.strip().casefold()]
        if fleet and not names:
            raise UsageError(f"there is no robot {robot.strip()[:40]!r}; there are: {', '.join(fleet)}")
        self.engine.send(p.Teach(question=question, robot=names[0] if names else robot, because=tasks.clean(because)))

    def change(self, what: str, *, slot: int = -1, path: str = "") -> None:
        """Change or share the memory. Raises UsageError."""
        if what not in ("export", "diff"):
            self.thawed()
        if self.state.ready is not None and not self.state.ready.memory:
            raise UsageError("the memory is off; start without --memory off")
        self.engine.send(p.Change(what=what, slot=slot, path=path))

    def thawed(self) -> None:
        """Refuse where the memory is frozen. Raises UsageError."""
        if self.state.frozen:
            raise UsageError("the memory is frozen; the palette (Ctrl+P) has: Freeze memory, which thaws it too")

    def near(self) -> None:
        """Ask how near the slots are to the shown task."""
        question = self.state.question()
        memory = self.state.memory
        if question is not None and memory is not None and memory.rows and (self.state.nearness is None or self.state.nearness.question != question):
            self.engine.send(p.Near(question=question))

    def without(self, slot: int) -> None:
        """Ask again with a slot masked."""
        self.engine.send(p.Without(slot=slot, question=self.state.question()))
        self.state.say(f"asking again without slot {slot} ...")

    # --- taking away ---

    def answer_text(self) -> str:
        """The shown answer as text to copy. Raises UsageError."""
        result = self._turn().result()
        if result is None:
            raise UsageError("this task has no answer yet")
        return answers.as_markdown(result)

    def export(self, name: str) -> Path:
        """Write the session as .md or .json; gives the file.

        Raises:
            BitMarError: another ending, nothing to write, a file that is there, or it cannot be written.
        """
        from bitmar_cli.names import file_to_write

        if not name.lower().endswith((".md", ".json")):
            raise UsageError("name a file that ends in .md, .json or .svg, as in: /save talk.md")
        found = [(turn, turn.result()) for turn in self.state.turns if not turn.note]
        rows: list[dict[str, Any]] = [{**result, "site": turn.site} if turn.site else result for turn, result in found if result is not None]
        if not rows:
            raise UsageError("nothing was asked yet; type a task first")
        file = file_to_write(os.path.expanduser(name))
        if name.lower().endswith(".json"):
            ready = self.state.ready
            text = to_json({"v": 1, "model": ready.model if ready else "", "fleet": list(ready.fleet) if ready else [], "turns": rows}, indent=2) + "\n"
        else:
            text = "# A talk with BitMar\n\n" + "\n".join(answers.as_markdown(row) for row in rows)
        paths.write_atomic(file, text.encode("utf-8", "backslashreplace"))
        self.state.say(f"saved {len(rows)} {'turn' if len(rows) == 1 else 'turns'} to {file}")
        return file


__all__ = ["BitMarError", "Controller"]
