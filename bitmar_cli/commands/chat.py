"""`bitmar chat`: a talk in the terminal, or line by line from a pipe."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer

from bitmar_cli import opening, options, talk, tasks
from bitmar_cli.exits import ExitCode
from bitmar_cli.render import Screen, narrate
from bitmar_core.errors import UsageError


def chat(
    image: options.Image = None,
    fleet: options.FleetFile = None,
    site: options.Site = None,
    memory: options.Memory = options.MemoryMode.read,
    store: options.Store = None,
    seed: options.Seed = None,
    plain: options.Plain = False,
    model: options.Model = None,
    tui: Annotated[bool, typer.Option("--tui", help="Open the full-screen program, as `bitmar tui` does.")] = False,
) -> None:
    """Talk about tasks: ask, look into the reasons, correct and teach.

    Each line is a task; the photo and the place stay until you change them. A line that begins with / is a command; /help
    lists them. Ctrl-C stops an answer and keeps the talk; Ctrl-D leaves. From a pipe, each line of stdin is read in turn.
    """
    if tui:
        if plain:
            raise UsageError("--tui and --plain do not go together; choose one")
        from bitmar_cli.tui.launch import launch

        launch(model=model, fleet=fleet, memory=memory.value, store=store, image=image, site=site, seed=seed)
        return
    session = opening.open_session(model=model, fleet=fleet, memory=memory.value, store=store)
    conversation = talk.Talk(session, Screen(plain=plain), seed=seed)
    if image is not None:
        conversation.run("/image " + image)
    if site is not None:
        conversation.run("/site " + tasks.clean(site))
    if sys.stdin is not None and sys.stdin.isatty():
        _at_terminal(conversation)
        raise typer.Exit(ExitCode.DONE)
    raise typer.Exit(_from_pipe(conversation))


def _at_terminal(conversation: talk.Talk) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its history and editing keys
    screen = conversation.screen
    screen.line("Say what is to be done. /help lists the commands, Ctrl-D leaves.")
    pressed = False
    while not conversation.over:
        try:
            line = input("> ")
        except EOFError:
            screen.line()
            return
        except KeyboardInterrupt:
            if pressed:
                screen.line()
                return
            pressed = True
            screen.line()
            narrate("press Ctrl-C again to leave, or go on")
            continue
        pressed = False
        conversation.run(line)


def _from_pipe(conversation: talk.Talk) -> int:
    """Give each line its turn; the exit code is that of the last line that failed."""
    code: Any = ExitCode.DONE
    if sys.stdin is None:
        return code
    while not conversation.over and (data := sys.stdin.buffer.readline(tasks.MAX_STDIN)):
        line = data.decode("utf-8", "replace").rstrip("\r\n")
        if not line.strip():
            continue
        conversation.screen.line("> " + line)
        code = conversation.run(line) or code
    return code
