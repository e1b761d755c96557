"""The chat: conversation, robots, memory strip; with room also the photo, the steps and a training run."""

from __future__ import annotations

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from bitmar_cli.tui import commands
from bitmar_cli.tui.screens.base import BitMarScreen, screen_bindings
from bitmar_cli.tui.widgets.conversation import Conversation
from bitmar_cli.tui.widgets.memory_strip import MemoryStrip
from bitmar_cli.tui.widgets.picture import Picture
from bitmar_cli.tui.widgets.robots import Robots
from bitmar_cli.tui.widgets.run_panes import RunStrip
from bitmar_cli.tui.widgets.task_input import TaskInput
from bitmar_cli.tui.widgets.timeline import Timeline
from bitmar_core.errors import BitMarError


class ChatScreen(BitMarScreen):
    """The first screen."""

    PLACE = "chat"
    BINDINGS = screen_bindings("chat")
    AUTO_FOCUS = "TaskInput"

    def body(self) -> ComposeResult:
        """Three columns, of which the narrower screens show two or one."""
        with Horizontal(id="body"):
            yield Conversation(id="chat")
            with Vertical(id="middle"):
                yield Picture(id="photo")
                yield Timeline(id="steps")
            with Vertical(id="side"):
                yield Picture(id="preview")
                yield Robots(id="robots")
                yield MemoryStrip(id="memory")
        yield RunStrip(id="strip")
        yield TaskInput(id="task")

    def show(self, changed: set[str]) -> None:
        """Panes follow the state."""
        super().show(changed)
        state = self.bitmar.state
        if "session" in changed:
            self.query_one(Conversation).redraw()
        elif "turns" in changed or "ended" in changed:
            self.query_one(Conversation).update_turns()
        if changed & {"why", "step"}:
            shown = state.turn()
            for index, turn in enumerate(state.turns):
                if turn is shown or turn.id in state.why:
                    self.query_one(Conversation).update_turns(index)
        if changed & {"answer", "session", "turn"}:
            self.query_one(Robots).redraw()
        if changed & {"answer", "memory", "session", "turn"}:
            self.query_one(MemoryStrip).redraw()
        if changed & {"answer", "ended", "session", "turn"} and self.query_one("#steps").region:
            self.query_one(Timeline).redraw()
        if changed & {"answer", "image", "session", "turn"}:
            for picture in self.query(Picture):
                if picture.region:
                    picture.redraw()
        if "run" in changed or "session" in changed:
            self.set_class(state.run is not None and state.run.status() == "running", "-run")
            if self.query_one(RunStrip).region:
                self.query_one(RunStrip).redraw()
        if "status" in changed:
            self.facts()
            self.query_one(Conversation).hint()

    def redraw_all(self) -> None:
        """Draw everything anew."""
        super().redraw_all()
        self.show({"run", "status"})

    def on_resize(self, event: events.Resize) -> None:
        """A small terminal gets the chat alone, and a line that says so."""
        if event.size.width < 60 or event.size.height < 16:
            self.bitmar.say("a small terminal: the chat alone; 80x24 shows all")

    def facts(self) -> None:
        """The line under the task."""
        state, field = self.bitmar.state, self.query_one(TaskInput)
        field.limit = state.ready.limit if state.ready else None
        place = f"site: {state.site[:24]}  " if state.site else ""
        hint = "" if state.image or self.size.width < 60 else "drop a photo's path here, or /image PATH   "
        field.show_facts(place or hint)

    # --- the task ---

    @on(TaskInput.Sent)
    def _sent(self, message: TaskInput.Sent) -> None:
        text = message.text
        try:
            if text.startswith("/"):
                action = commands.run(self.bitmar.controller, text)
                if action is not None:
                    self.bitmar.perform(action)
            else:
                self.bitmar.controller.ask(text)
        except BitMarError as error:
            self.bitmar.say(str(error), "bad")
            if not text.startswith("/"):
                self.query_one(TaskInput).put(text)
            return
        self.bitmar.changed({"turns", "answer", "status", "image"})

    @on(TaskInput.Dropped)
    def _dropped(self, message: TaskInput.Dropped) -> None:
        self.bitmar.controller.set_image(message.path)
        self.bitmar.changed({"image", "status"})

    # --- actions; their names stand in keys.py ---

    def action_stop(self) -> None:
        """Stop, or leave the input."""
        if self.bitmar.controller.stop():
            self.bitmar.changed({"turns", "answer", "status", "ended"})
        elif isinstance(self.focused, TaskInput):
            self.query_one(Conversation).focus()
        else:
            self.query_one(TaskInput).focus()

    def action_focus_chat(self) -> None:
        self.query_one(Conversation).focus()

    def action_focus_robots(self) -> None:
        self.query_one(Robots).focus()

    def action_focus_slots(self) -> None:
        self.query_one(MemoryStrip).focus()

    def action_focus_task(self) -> None:
        self.query_one(TaskInput).focus()

    def action_fold(self) -> None:
        """Fold or unfold the turn that is shown."""
        state = self.bitmar.state
        turn = state.turn()
        if turn is not None and not turn.note:
            turn.folded = not turn.folded
            self.query_one(Conversation).update_turns(state.turns.index(turn))

    def action_why(self) -> None:
        self.bitmar.attempt(self.bitmar.controller.why)

    def action_regenerate(self) -> None:
        self.bitmar.attempt(self.bitmar.controller.again)

    def action_resume_answer(self) -> None:
        self.bitmar.attempt(self.bitmar.controller.resume)

    def action_teach(self) -> None:
        self.bitmar.teach()

    def action_previous_turn(self) -> None:
        self._go(-1)

    def action_next_turn(self) -> None:
        self._go(1)

    def _go(self, by: int) -> None:
        state = self.bitmar.state
        tasks = [i for i, turn in enumerate(state.turns) if not turn.note]
        turn = state.turn()
        if turn is None or not tasks or state.turns.index(turn) not in tasks:
            return
        at = tasks.index(state.turns.index(turn)) + by
        if 0 <= at < len(tasks):
            state.chosen, state.step = (None if at == len(tasks) - 1 else tasks[at]), None
            self.bitmar.changed({"answer", "image", "memory", "ended"})
            self.query_one(Conversation).show_turn(tasks[at])
            self.bitmar.say(f"turn {at + 1} of {len(tasks)}: panes show this one")

    def action_step_back(self) -> None:
        self.bitmar.go_step(-1)

    def action_step_on(self) -> None:
        self.bitmar.go_step(1)

    def on_paste(self, event: events.Paste) -> None:
        """A paste outside the input goes into it."""
        self.query_one(TaskInput).focus()
