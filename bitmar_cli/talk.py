"""A talk: the state of `bitmar chat`, and the registry of its commands, which also feeds /help."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_cli import answers, memories, tasks
from bitmar_cli.names import file_to_write
from bitmar_cli.render import Screen, fit, narrate, one_line, to_json
from bitmar_cli.stopping import stop_on_interrupt
from bitmar_core import paths
from bitmar_core.errors import BitMarError, MissingError, UsageError
from bitmar_core.robots import load_fleet


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One task and its answer."""

    task: str
    image: str | None
    site: str | None
    answer: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A line that begins with a slash."""

    name: str
    arguments: str
    help: str
    run: Callable[[Talk, str], None]


COMMANDS: dict[str, Command] = {}


def command(name: str, arguments: str, help: str) -> Callable[[Callable[[Talk, str], None]], Callable[[Talk, str], None]]:
    """Register a command under /`name`."""

    def register(function: Callable[[Talk, str], None]) -> Callable[[Talk, str], None]:
        COMMANDS[name] = Command(name=name, arguments=arguments, help=help, run=function)
        return function

    return register


class Talk:
    """A running conversation. A follow-up is a new task with the same photo and place."""

    def __init__(self, session: Any, screen: Screen, *, seed: int | None = None) -> None:
        self.session = session
        self.screen = screen
        self.image: str | None = None
        self.site: str | None = None
        self.seed = seed
        self.turns: list[Turn] = []
        self.saved: set[Path] = set()
        self.over = False

    def run(self, line: str) -> int:
        """Take one line. An error is one line on stderr, and the talk goes on; gives its exit code, or 0."""
        try:
            if line.startswith("/"):
                self._command(line)
            elif line.strip():
                self._ask(tasks.checked(line))
        except BitMarError as error:
            narrate(f"bitmar: {one_line(error)}")
            return error.exit_code
        except KeyboardInterrupt:
            narrate("bitmar: interrupted; the talk goes on")
            return 130
        return 0

    def last(self) -> Turn:
        """The last turn.

        Raises:
            UsageError: nothing was asked yet.
        """
        if not self.turns:
            raise UsageError("nothing was asked yet; type a task first")
        return self.turns[-1]

    def memory(self) -> Any:
        """The memory store, as it is now on disk.

        Raises:
            UsageError: the talk runs without memory.
        """
        if self.session.memory is None:
            raise UsageError("the memory is off; start the chat without --memory off")
        self.session.memory.reload_if_changed()
        return self.session.memory

    def _command(self, line: str) -> None:
        name, _, rest = line[1:].strip().partition(" ")
        found = COMMANDS.get(name.lower())
        if found is None:
            near = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
            raise UsageError(f"no command /{fit(name, 30, pad=False)}; {hint} (a task that begins with / needs a space before it)")
        found.run(self, tasks.clean(rest))

    def _ask(self, task: str) -> None:
        with stop_on_interrupt() as cancel:
            stream = self.session.ask(task, image=self.image, site=self.site, seed=self.seed, cancel=cancel)
            done = answers.last(answers.Drawer(self.screen).drawing(stream))
        if done.answer.get("robot") is not None:
            self.turns.append(Turn(task=task, image=self.image, site=self.site, answer=done.answer))
        self.screen.line()


def unquoted(text: str) -> str:
    """A path without the quotes that a terminal puts around a dropped file."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def whole_number(text: str, *, what: str) -> int:
    """A number of at least 0.

    Raises:
        UsageError: it is not one.
    """
    text = text.strip().removeprefix("#")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError(f"{what} must be a number, not {fit(text, 30, pad=False)!r}" if text else f"{what} is missing; give a number")
    return int(text)


@command("image", "[PATH | off]", "Look at this photo from now on; off puts it away. Without an argument: say which one is in use.")
def _image(talk: Talk, rest: str) -> None:
    if rest == "off":
        talk.image = None
    elif rest:
        path = unquoted(rest)
        try:
            there = os.path.isfile(os.path.expanduser(path))
        except ValueError:
            there = False
        if not there:
            raise MissingError(f"there is no photo {path}; check the path")
        talk.image = path
    talk.screen.line(f"image: {talk.image or 'none'}")


@command("site", "[TEXT | off]", "Say what is known of the place; off forgets it. Without an argument: say what is in use.")
def _site(talk: Talk, rest: str) -> None:
    if rest:
        talk.site = None if rest == "off" else rest
    talk.screen.line(f"site: {talk.site or 'none'}")


@command("teach", "ROBOT [because TEXT]", "The last task is for this robot: remember it, and why.")
def _teach(talk: Talk, rest: str) -> None:
    turn = talk.last()
    if not rest:
        raise UsageError(f"say which robot: /teach ROBOT [because TEXT] (there are: {', '.join(talk.session.fleet.names)})")
    robot, because = rest, ""
    if (match := re.search(r"\s+because\b[\s:,]*", rest, re.IGNORECASE)) and rest.casefold() not in (name.casefold() for name in talk.session.fleet.names):
        robot, because = rest[: match.start()], rest[match.end() :].strip()
    name = talk.session.fleet.names[talk.session.fleet.find(robot)]
    slot = talk.session.teach(turn.task, name, because=because, image=turn.image, site=turn.site)
    talk.screen.line(f"remembered in slot {slot}: {name} for {answers.quoted(turn.task)}; /forget {slot} takes it back")


@command("forget", "N", "Forget memory slot N.")
def _forget(talk: Talk, rest: str) -> None:
    number = whole_number(rest, what="the slot")
    store = talk.memory()
    memories.episode_at(store, number)
    story = store.forget(number)
    talk.screen.line(f"forgot slot {number}: {story.robot} for {answers.quoted(story.task)}; `bitmar memory undo` brings it back")


@command("memory", "", "List what is remembered.")
def _memory(talk: Talk, rest: str) -> None:
    for row in memories.listing(talk.memory(), screen=talk.screen):
        talk.screen.line(row)


@command("why", "", "Show the steps behind the last answer, its quality, and what it would be without each memory it used.")
def _why(talk: Talk, rest: str) -> None:
    turn, screen = talk.last(), talk.screen
    answer = turn.answer
    for number, step in enumerate(answer["steps"], 1):
        screen.line(
            (f"step {number}: ", "cyan"), f"{step['name']}: {answers.probabilities_line(step['probabilities'])}", (f" (value {step['value']:.2f})", "dim")
        )
    screen.line("together: " + answers.probabilities_line(answer["probabilities"], chosen=answer["robot"]))
    screen.line("quality: " + (answers.quality_line(answer["quality"]) or "not scored, as there is no reasoning text"))
    if not answer["memory"]:
        screen.line("memory: none used")
        return
    # Memory and fleet may have changed since: both sides of the comparison are asked now.
    present = talk.session.answer(turn.task, image=turn.image, site=turn.site, reasoning=False)
    used = {slot["slot"] for slot in present["memory"]}
    for slot in answer["memory"]:
        screen.line("memory: " + answers.slot_line(slot))
        if slot["slot"] in used:
            again = talk.session.without_slot(turn.task, slot["slot"], image=turn.image, site=turn.site)
            screen.line("  " + memories.without_line(slot["slot"], present, again))
        else:
            screen.line(f"  slot {slot['slot']} has changed since; this task would not use it now")


@command("fleet", "[FILE | default]", "Choose among the robots of this file; default returns to the six. Without an argument: list them.")
def _fleet(talk: Talk, rest: str) -> None:
    if rest:
        talk.session.set_fleet(load_fleet(None if rest == "default" else os.path.expanduser(unquoted(rest))))
    talk.screen.line(f"fleet {talk.session.fleet.name}: {', '.join(talk.session.fleet.names)}")


@command("seed", "[N | off]", "Sample the reasoning text with this seed; off writes the likeliest text again.")
def _seed(talk: Talk, rest: str) -> None:
    if rest:
        talk.seed = None if rest == "off" else whole_number(rest, what="the seed")
    talk.screen.line(f"seed: {'off' if talk.seed is None else talk.seed}")


@command("save", "FILE", "Save the talk as Markdown (.md) or JSON (.json).")
def _save(talk: Talk, rest: str) -> None:
    name = os.path.expanduser(unquoted(rest))
    if not name.lower().endswith((".md", ".json")):
        raise UsageError("name a file that ends in .md or .json, as in: /save talk.md")
    talk.last()
    file = file_to_write(name, force=Path(name).absolute() in talk.saved)
    if name.lower().endswith(".json"):
        turns = [turn.answer if turn.site is None else {**turn.answer, "site": turn.site} for turn in talk.turns]
        text = to_json({"v": 1, "model": talk.session.model_name, "fleet": list(talk.session.fleet.names), "turns": turns}, indent=2) + "\n"
    else:
        text = "# A talk with BitMar\n\n" + "\n".join(answers.as_markdown({**turn.answer, "site": turn.site}) for turn in talk.turns)
    paths.write_atomic(file, text.encode("utf-8", "backslashreplace"))
    talk.saved.add(Path(name).absolute())
    talk.screen.line(f"saved {len(talk.turns)} {'turn' if len(talk.turns) == 1 else 'turns'} to {file}")


@command("help", "", "List these commands.")
def _help(talk: Talk, rest: str) -> None:
    forms = {name: f"/{name} {entry.arguments}".strip() for name, entry in COMMANDS.items()}
    width = max(len(form) for form in forms.values())
    for name, entry in COMMANDS.items():
        talk.screen.line((forms[name].ljust(width), "bold"), "  " + entry.help)
    talk.screen.line("Ctrl-C stops an answer and keeps the talk; Ctrl-D leaves.")


@command("quit", "", "Leave. So does Ctrl-D.")
def _quit(talk: Talk, rest: str) -> None:
    talk.over = True
