"""The application: starts the worker, takes what it says twenty times a second, and tells the visible screen what changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.binding import BindingType

from bitmar_cli.tui import help, keys, protocol, sessions, themes
from bitmar_cli.tui.controller import Controller
from bitmar_cli.tui.drawing import Glyphs
from bitmar_cli.tui.palette import Actions
from bitmar_cli.tui.runs import PART, Run, latest_run
from bitmar_cli.tui.screens.base import BitMarScreen
from bitmar_cli.tui.screens.chat import ChatScreen
from bitmar_cli.tui.screens.dialogs import AskText, Choose, Confirm, ShowText
from bitmar_cli.tui.screens.image import ImageScreen, StepsScreen
from bitmar_cli.tui.screens.memory import MemoryScreen
from bitmar_cli.tui.screens.sessions import SessionsScreen
from bitmar_cli.tui.screens.training import TrainingScreen
from bitmar_cli.tui.state import State
from bitmar_core.errors import BitMarError, UsageError

TICK = 0.05
"""Seconds between two looks at what the worker said."""
KEEP_EVERY = 2.0
"""Seconds between two saved states of an answer that is being written."""
RESTARTS = 3
"""Times that a worker is started again before a person must say so."""
SCREENS: dict[str, type[BitMarScreen]] = {
    "image": ImageScreen, "steps": StepsScreen, "memory": MemoryScreen, "training": TrainingScreen, "sessions": SessionsScreen,
}  # fmt: skip


class BitMarApp(App[None]):
    """See the module's first line."""

    TITLE = "BitMar"
    CSS_PATH = "bitmar.tcss"
    COMMANDS = {Actions}
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("app")]
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self, engine: Any, *, image: str | None = None, site: str | None = None, seed: int | None = None, run: Path | None = None,
        resume: str | None = None, theme: str | None = None,
    ) -> None:  # fmt: skip
        self.plain_colours = themes.no_colour() or themes.few_colours() or theme == "ansi-dark"
        """Shades stand for colours."""
        super().__init__(ansi_color=self.plain_colours)
        self.glyphs = Glyphs(ascii=themes.ascii_only())
        for known in themes.THEMES:
            self.register_theme(known)
        self.theme = "ansi-dark" if self.plain_colours else theme or themes.DEFAULT
        self.engine = engine
        self.state = State(session=resume or sessions.new_name(), site=site, seed=seed)
        self.saver = sessions.Saver()
        self.controller = Controller(self.state, engine, lambda turn: self.saver.keep(self.state.session, turn))
        self._first_image, self._first_run, self._resume = image, run, resume
        self._kept = 0.0
        self._restarts = 0
        self._quit_asked = 0.0
        self._read_again = 0.0

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What themes that are not ours lack."""
        return {"bitmar-dim": "ansi_default"}

    # --- life ---

    def on_mount(self) -> None:
        """First paint, then everything else."""
        self.push_screen(ChatScreen())
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.engine.start()
        if self._resume is not None:
            self.resume_session(self._resume)
        if self._first_image is not None:
            self.controller.set_image(self._first_image)
        folder = self._first_run or latest_run(Path.cwd())
        if folder is not None:
            self.state.run = Run(folder)
        self.set_interval(TICK, self.pump)
        self.changed({"status", "session"})

    def pump(self) -> None:
        """Take what came since the last time."""
        state = self.state
        changed: set[str] = set()
        for reply in self.engine.poll():
            changed |= state.apply(reply)
            if isinstance(reply, protocol.Note) and reply.lines:
                self.push_screen(ShowText(reply.text, ["  " + line for line in reply.lines]))
            if isinstance(reply, protocol.Died):
                self._died()
            if isinstance(reply, protocol.Ready) and state.memory is None and state.ready is not None and state.ready.memory:
                changed.add("memory")
        now = time.monotonic()
        live = state.live()
        if "ended" in changed:
            last = state.last()
            if last is not None:
                self.controller.keep(last)
        elif live is not None and live.steps and now - self._kept > KEEP_EVERY:
            self._kept = now
            self.controller.keep(live)
        if self.saver.trouble and state.said != self.saver.trouble:
            state.say(self.saver.trouble, "bad")
            changed.add("status")
        if state.run is not None and now >= self._read_again:
            changed |= self._read_run(now)
        if changed:
            self.changed(changed)

    def _died(self) -> None:
        if self.state.ready is not None and self._restarts < RESTARTS:
            self._restarts += 1
            self.state.say(f"{self.state.said}; started again ({self._restarts} of {RESTARTS})", "bad")
            self.state.status = "loading"
            self.engine.start()
            self._look_again()

    def _look_again(self) -> None:
        if self.state.image is not None and self.state.image not in self.state.pictures:
            self.engine.send(protocol.Look(path=self.state.image))

    def _read_run(self, now: float) -> set[str]:
        run = self.state.run
        assert run is not None
        before = run.offset
        try:
            grew = run.read()
        except OSError as error:
            self.state.run = None
            self.state.say(f"cannot read {run.log}: {error.strerror or error}", "warn")
            return {"run", "status"}
        self._read_again = now if grew and run.offset - before >= PART else now + 1.0
        return {"run"} if grew or before == 0 or int(now) % 10 == 0 else set()

    def changed(self, what: set[str]) -> None:
        """Tell the screen in front; the others draw themselves when they come back."""
        for screen in (self.screen, self._front()):
            if isinstance(screen, BitMarScreen) and screen.is_mounted:
                screen.show(what)
                return

    def _front(self) -> BitMarScreen | None:
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, BitMarScreen)), None)

    @property
    def place(self) -> str:
        """Which screen is in front, under any window."""
        front = self._front()
        return front.PLACE if front is not None else "chat"

    def say(self, text: str, level: str = "") -> None:
        """A line at the foot."""
        self.state.say(text, level)
        self.changed({"status"})

    def attempt(self, do: Callable[[], Any]) -> None:
        """Do it; a refusal is a line at the foot."""
        try:
            do()
        except BitMarError as error:
            self.state.say(str(error), "bad")
        self.changed({"turns", "answer", "status", "image"})

    def shown_run(self) -> Run | None:
        """The run as the monitor shows it."""
        held = getattr(self._front(), "held", None)
        return held if held is not None else self.state.run

    # --- screens ---

    def show_chat(self) -> None:
        """Down to the chat."""
        while len(self.screen_stack) > 1 and not isinstance(self.screen, ChatScreen):
            self.pop_screen()

    def show_place(self, place: str) -> None:
        """Open a screen; pressed again, back to the chat."""
        if self.place == place and isinstance(self.screen, BitMarScreen):
            self.show_chat()
            return
        self.show_chat()
        if place in SCREENS:
            self.push_screen(SCREENS[place]())

    def perform(self, name: str, place: str | None = None) -> None:
        """Do an action of the registry by name; one of another screen opens that first."""
        self.run_worker(self._perform(name, place), exclusive=False)

    async def _perform(self, name: str, place: str | None) -> None:
        target: Any = self
        if place not in (None, "app", "input") and place != self.place:
            self.show_chat()
            if place in SCREENS:
                await self.push_screen(SCREENS[place]())
        if place == "input":
            from bitmar_cli.tui.widgets.task_input import TaskInput

            self.show_chat()
            target = self.screen.query_one(TaskInput)
        elif place not in (None, "app") or not hasattr(self, f"action_{name.partition('(')[0]}"):
            target = self._front()
        if target is not None:
            await self.run_action(name, target)

    def go_step(self, by: int) -> None:
        """Another reasoning step; after the last comes the decision."""
        turn = self.state.turn()
        if turn is None or not turn.steps:
            self.say("no steps yet: ask something", "warn")
            return
        count = len(turn.steps)
        at = (count if self.state.step is None else self.state.step) + by
        at = max(0, min(at, count))
        self.state.step = None if at == count else at
        self.state.say("panes show the decision" if at == count else f"panes show step {at + 1}: {turn.steps[at]['name']}")
        self.changed({"answer", "step", "image", "status"})

    # --- windows ---

    def ask_text(self, title: str, value: str, then: Callable[[str], Any]) -> None:
        """Ask for a line and go on with it."""
        self.push_screen(AskText(title, value), lambda text: None if text is None else self.attempt(lambda: then(text)))

    def confirm(self, question: str, then: Callable[[], Any]) -> None:
        """Ask before doing it."""
        self.push_screen(Confirm(question), lambda yes: then() if yes else None)

    def teach(self) -> None:
        """Ask which robot is right and why."""
        state = self.state
        if state.ready is None:
            self.say("the model is not loaded yet", "warn")
            return
        names = list(state.ready.fleet)

        def because(index: int | None, task: str | None) -> None:
            if index is not None:
                self.ask_text(f"Why {names[index]}? (may stay empty)", "", lambda text: self.controller.teach(names[index], text, task))

        def robot(task: str | None) -> None:
            self.push_screen(Choose("Which robot is right?", names), lambda index: because(index, task))

        if state.question() is None:
            self.ask_text("Which task?", "", lambda task: robot(task) if task.strip() else None)
        else:
            robot(None)

    # --- actions; their names stand in keys.py ---

    def action_show_memory(self) -> None:
        self.show_place("memory")

    def action_show_image(self) -> None:
        self.show_place("image")

    def action_show_steps(self) -> None:
        self.show_place("steps")

    def action_show_training(self) -> None:
        self.show_place("training")

    def action_show_sessions(self) -> None:
        self.show_place("sessions")

    def action_palette(self) -> None:
        self.action_command_palette()

    def action_help(self) -> None:
        if isinstance(self.screen, BitMarScreen):
            self.push_screen(ShowText(f"Keys: {keys.PLACES[self.place]}", help.rows(self.place)))

    def action_interrupt(self) -> None:
        """Stop the answer; copy what is marked; asked twice when idle, leave."""
        if self.controller.stop():
            self.changed({"turns", "answer", "status", "ended"})
        elif (marked := self.screen.get_selected_text()) is not None and marked.strip():
            self.copy_to_clipboard(marked)
            self.say("copied what is marked")
        elif time.monotonic() - self._quit_asked < 2.0:
            self.exit()
        else:
            self._quit_asked = time.monotonic()
            self.say("press Ctrl+C again to leave; everything is saved")

    def action_jump(self) -> None:
        """Choose a pane by its letter."""
        places = [("c", "Chat", "Conversation"), ("t", "Task", "TaskInput"), ("r", "Robots", "Robots"), ("m", "Memory strip", "MemoryStrip")]
        more = [
            ("M", "Memory inspector", "memory"),
            ("I", "Image", "image"),
            ("S", "Steps", "steps"),
            ("T", "Training", "training"),
            ("L", "Sessions", "sessions"),
        ]
        options = [f"{letter}  {label}" for letter, label, _ in (*places, *more)]

        def go(index: int | None) -> None:
            if index is None:
                return
            if index < len(places):
                self.show_chat()
                self.screen.query_one(places[index][2]).focus()
            else:
                self.show_place(more[index - len(places)][2])

        self.push_screen(Choose("Jump to", options, letters="".join(letter for letter, _, _ in (*places, *more))), go)

    def action_copy_answer(self) -> None:
        def copy() -> None:
            self.copy_to_clipboard(self.controller.answer_text())
            self.state.say("copied the answer")

        self.attempt(copy)

    def action_export(self, name: str = "") -> None:
        """Ask for a file; its ending says what it becomes."""

        def write(path: str) -> None:
            if not path.lower().endswith(".svg"):
                self.controller.export(path)
                return
            from bitmar_cli.names import file_to_write
            from bitmar_core.paths import write_atomic

            write_atomic(file_to_write(path), self.export_screenshot(title="BitMar").encode())
            self.state.say(f"saved this screen to {path}")

        if name:
            self.attempt(lambda: write(name))
        else:
            self.ask_text("Export to a file (.md, .json, .svg)", f"{self.state.session}.md", write)

    def action_redraw(self) -> None:
        front = self._front()
        if front is not None:
            front.redraw_all()
        self.refresh(layout=True)

    def action_set_image(self) -> None:
        self.ask_text(
            "Photo of the place (a path; off puts it away)",
            self.state.image or "",
            lambda path: self.controller.set_image(None if path in ("", "off") else path),
        )

    def action_set_site(self) -> None:
        self.ask_text("What is known of the place?", self.state.site or "", self.controller.set_site)

    def action_set_fleet(self) -> None:
        self.ask_text("Fleet file (default: the six)", "default", lambda path: self.controller.set_fleet(None if path in ("", "default") else path))

    def action_set_seed(self) -> None:
        self.ask_text("Seed (off: the likeliest text)", "" if self.state.seed is None else str(self.state.seed), self.controller.set_seed)

    def action_attach(self) -> None:
        """Watch the run in a folder."""

        def attach(path: str) -> None:
            folder = Path(path).expanduser()
            folder = folder.parent if folder.name == "events.jsonl" else folder
            if not (folder / "events.jsonl").is_file():
                raise UsageError(f"there is no events.jsonl in {folder}; give the folder of a run")
            self.state.run, self._read_again = Run(folder), 0.0
            if self.place != "training":
                self.show_place("training")

        self.ask_text("Folder of a training run", str(self.state.run.folder) if self.state.run else "runs/", attach)

    def action_next_theme(self) -> None:
        """The next in the list; with few colours there is one."""
        if self.plain_colours:
            self.say("this terminal has few colours or NO_COLOR is set: there is one theme")
            return
        names = [theme.name for theme in themes.THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.say(f"theme {self.theme}")
        self.action_redraw()

    def action_restart(self) -> None:
        """End the worker and start another one."""
        turn = self.state.live()
        if turn is not None:
            turn.fail("the model was started again; what was said is kept")
            self.controller.keep(turn)
        self.state.asked, self.state.status, self._restarts = None, "loading", 0
        self.engine.start()
        self._look_again()
        self.say("starting the model again ...")
        self.changed({"turns", "status"})

    def action_freeze(self) -> None:
        self.state.frozen = not self.state.frozen
        self.state.say("the memory is frozen: nothing changes it from here" if self.state.frozen else "the memory can change again")
        self.changed({"memory", "status"})

    def action_new_session(self) -> None:
        """The old one stays saved."""
        self.controller.stop()
        state = self.state
        state.session, state.turns, state.chosen, state.step, state.next_id = sessions.new_name(), [], None, None, state.next_id
        state.why.clear()
        state.say(f"new session {state.session}")
        self.changed({"session", "turns", "answer", "image", "memory", "status"})

    def resume_session(self, name: str) -> bool:
        """Go on with a saved session; tells whether it could be read."""
        try:
            turns = sessions.load(name)
        except OSError as error:
            self.say(f"cannot read session {name}: {error.strerror or error}", "bad")
            return False
        self.controller.stop()
        state = self.state
        state.session, state.turns, state.chosen, state.step = name, turns, None, None
        state.next_id = max([state.next_id, *(max(turn.id, turn.request) + 1 for turn in turns)])
        state.why.clear()
        last = state.last()
        if last is not None:
            state.site = state.site or last.site
            if last.image is not None and state.image is None:
                self.controller.set_image(last.image)
        state.say(f"resumed session {name}: {len(turns)} {'turn' if len(turns) == 1 else 'turns'}")
        self.changed({"session", "turns", "answer", "image", "memory", "status"})
        return True

    async def action_quit(self) -> None:
        """Everything is saved already."""
        self.controller.stop()
        self.exit()

    def on_unmount(self) -> None:
        """The worker ends; what is still to be written is written."""
        self.engine.stop()
        self.saver.close()
