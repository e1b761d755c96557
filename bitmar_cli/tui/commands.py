"""Lines that begin with a slash. The same names as in `bitmar chat`, and those that only a screen has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from bitmar_cli import tasks
from bitmar_cli.render import fit
from bitmar_cli.talk import unquoted, whole_number
from bitmar_cli.tui.controller import Controller
from bitmar_core.errors import UsageError

Do = Callable[[Controller, str], str | None]
"""Does it; gives the name of an action of the application where that goes on with it."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command and its help."""

    arguments: str
    help: str
    do: Do


def run(controller: Controller, line: str) -> str | None:
    """Do one line.

    Raises:
        BitMarError: no such command, or it was refused.
    """
    name, _, rest = line[1:].strip().partition(" ")
    found = COMMANDS.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
        raise UsageError(f"no command /{fit(name, 30, pad=False)}; {hint} (a task that begins with / needs a space before it)")
    return found.do(controller, tasks.clean(rest))


def _image(c: Controller, rest: str) -> str | None:
    if not rest:
        return "set_image"
    c.set_image(None if rest == "off" else unquoted(rest))
    return None


def _site(c: Controller, rest: str) -> str | None:
    if not rest:
        return "set_site"
    c.set_site(None if rest == "off" else rest)
    return None


def _teach(c: Controller, rest: str) -> str | None:
    if not rest:
        return "teach"
    robot, because = rest, ""
    names = [name.casefold() for name in c.state.ready.fleet] if c.state.ready else []
    if rest.casefold() not in names and (match := re.search(r"\s+because\b[\s:,]*", rest, re.IGNORECASE)):
        robot, because = rest[: match.start()], rest[match.end() :].strip()
    c.teach(robot, because)
    return None


def _slot(what: str) -> Do:
    def do(c: Controller, rest: str) -> None:
        c.change(what, slot=whole_number(rest, what="the slot"))

    return do


def _fleet(c: Controller, rest: str) -> str | None:
    if not rest:
        return "set_fleet"
    c.set_fleet(None if rest == "default" else unquoted(rest))
    return None


def _save(c: Controller, rest: str) -> str | None:
    if not rest or rest.lower().endswith(".svg"):
        return f"export({rest!r})" if rest else "export"
    c.export(unquoted(rest))
    return None


def _call(method: str) -> Do:
    def do(c: Controller, rest: str) -> None:
        getattr(c, method)()

    return do


def _action(name: str) -> Do:
    return lambda c, rest: name


COMMANDS: dict[str, Command] = {
    "image": Command(arguments="[PATH | off]", help="the photo of the place", do=_image),
    "site": Command(arguments="[TEXT | off]", help="what is known of the place", do=_site),
    "teach": Command(arguments="ROBOT [because TEXT]", help="the last task is for this robot", do=_teach),
    "forget": Command(arguments="N", help="forget memory slot N", do=_slot("forget")),
    "pin": Command(arguments="N", help="keep slot N from being replaced", do=_slot("pin")),
    "unpin": Command(arguments="N", help="let it be replaced again", do=_slot("unpin")),
    "undo": Command(arguments="", help="take the last change of the memory back", do=lambda c, rest: c.change("undo")),
    "memory": Command(arguments="", help="open the memory inspector", do=_action("show_memory")),
    "why": Command(arguments="", help="the answer again without each thing it used", do=_call("why")),
    "again": Command(arguments="", help="ask the same again", do=_call("again")),
    "continue": Command(arguments="", help="go on with a stopped answer", do=_call("resume")),
    "fleet": Command(arguments="[FILE | default]", help="choose among other robots", do=_fleet),
    "seed": Command(arguments="[N | off]", help="sample the text with this seed", do=lambda c, rest: c.set_seed(rest)),
    "save": Command(arguments="FILE", help="export as .md, .json or .svg", do=_save),
    "new": Command(arguments="", help="begin a new session", do=_action("new_session")),
    "sessions": Command(arguments="", help="saved sessions", do=_action("show_sessions")),
    "run": Command(arguments="", help="watch a training run", do=_action("attach")),
    "help": Command(arguments="", help="keys and commands", do=_action("help")),
    "quit": Command(arguments="", help="leave", do=_action("quit")),
}


def complete(text: str) -> str | None:
    """`text` with the command or path at its end made longer, as far as that is certain; None where nothing fits."""
    if text.startswith("/") and " " not in text:
        names = [f"/{name}" for name in COMMANDS if f"/{name}".startswith(text.lower())]
        return _longer(text, [name + " " for name in names])
    match = re.search(r"(?:^/(?:image|fleet|save) |(?:^|\s)@)(\S*)$", text)
    if match is None:
        return None
    return _longer(text, [text[: match.start(1)] + path for path in _paths(match.group(1))])


def _longer(text: str, options: list[str]) -> str | None:
    import os.path

    best = os.path.commonprefix(options)
    return best if len(best) > len(text) else None


def _paths(begun: str) -> list[str]:
    import os

    folder, name = os.path.split(begun)
    found = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
                    found.append(os.path.join(folder, entry.name) + (os.sep if entry.is_dir() else ""))
    except OSError:
        return []
    return found
