"""`bitmar memory`: look into what was taught, add to it and take from it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bitmar_cli import answers, memories, opening, options, tasks
from bitmar_cli.exits import ExitCode
from bitmar_cli.names import file_to_read, file_to_write
from bitmar_cli.render import Screen, is_terminal, narrate, one_line, table, to_json
from bitmar_core.errors import BitMarError, UsageError

app = typer.Typer(
    help="Look into the episodic memory, teach it, and take things back.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Slot = Annotated[int, typer.Argument(metavar="N", min=0, help="The slot's number, as `bitmar memory list` shows it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


@app.command("list")
def list_(as_json: options.Json = False, store: options.Store = None, plain: options.Plain = False) -> None:
    """List the slots in use."""
    memory = opening.open_store(store)
    if as_json:
        typer.echo(to_json([memories.as_object(slot, story) for slot, story in memories.filled(memory)]))
        return
    screen = Screen(plain=plain)
    for line in memories.listing(memory, screen=screen):
        screen.line(line)


@app.command()
def show(
    slot: Slot,
    no_rerun: Annotated[bool, typer.Option("--no-rerun", help="Do not load the model to show what the answer would be without this slot.")] = False,
    fleet: options.FleetFile = None,
    as_json: options.Json = False,
    store: options.Store = None,
    model: options.Model = None,
    plain: options.Plain = False,
) -> None:
    """Show one slot, and what the model would answer without it."""
    story = memories.episode_at(opening.open_store(store), slot)
    rerun, trouble = None, ""
    if not no_rerun:
        try:
            rerun = memories.rerun(opening.open_session(model=model, fleet=fleet, store=store), slot, story)
        except BitMarError as error:
            trouble = one_line(error)
    if as_json:
        typer.echo(to_json({**memories.as_object(slot, story), "rerun": rerun}))
    else:
        screen = Screen(plain=plain)
        for line in memories.story_lines(slot, story):
            screen.line(line)
        if rerun is not None:
            screen.line("with it: " + answers.probabilities_line(rerun["with"]["probabilities"], chosen=rerun["with"]["robot"]))
            screen.line("without it: " + answers.probabilities_line(rerun["without"]["probabilities"], chosen=rerun["without"]["robot"]))
            if story.image:
                screen.line("(both asked without the photo, of which only the digest is kept)")
    if trouble:
        narrate(f"bitmar: the answer without this slot could not be computed: {trouble}")


@app.command()
def teach(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task, in quotes. - reads it from stdin.")],
    robot: Annotated[str, typer.Option("--robot", metavar="NAME", help="The robot to send, by its name in the fleet.")],
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="Why, in a sentence.")] = "",
    image: options.Image = None,
    site: options.Site = None,
    fleet: options.FleetFile = None,
    store: options.Store = None,
    model: options.Model = None,
) -> None:
    """Teach which robot a task is for. Like tasks are answered alike from now on."""
    from bitmar_core.robots import load_fleet

    text = tasks.read(task)
    cards = load_fleet(fleet)
    name = cards.names[cards.find(tasks.clean(robot))]
    session = opening.open_session(model=model, fleet=fleet, store=store)
    slot = session.teach(text, name, because=tasks.clean(because), image=image, site=site and tasks.clean(site))
    Screen(plain=True).line(f"remembered in slot {slot}: {name} for {answers.quoted(text)}; `bitmar memory undo` takes it back")


@app.command()
def forget(slot: Slot, store: options.Store = None) -> None:
    """Forget one slot."""
    memory = opening.open_store(store)
    memories.episode_at(memory, slot)
    story = memory.forget(slot)  # type: ignore[union-attr]  # episode_at refuses None
    Screen(plain=True).line(f"forgot slot {slot}: {story.robot} for {answers.quoted(story.task)}; `bitmar memory undo` brings it back")


@app.command()
def pin(slot: Slot, off: Annotated[bool, typer.Option("--off", help="Let the slot be replaced again.")] = False, store: options.Store = None) -> None:
    """Keep one slot from being replaced."""
    memory = opening.open_store(store)
    memories.episode_at(memory, slot)
    story = memory.pin(slot, not off)  # type: ignore[union-attr]  # episode_at refuses None
    Screen(plain=True).line(f"slot {slot} is {'pinned' if story.pinned else 'not pinned'}: {story.robot} for {answers.quoted(story.task)}")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    store: options.Store = None,
) -> None:
    """Write the whole memory to a file, to keep or to share."""
    target = file_to_write(file, force=force)
    memory = opening.open_store(store)
    if memory is None or not len(memory):
        raise UsageError("the memory is empty; there is nothing to export")
    memory.export(target)
    Screen(plain=True).line(f"exported {_episodes(len(memory))} to {target}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `bitmar memory export` wrote.")],
    store: options.Store = None,
    model: options.Model = None,
) -> None:
    """Add the episodes of an exported memory. Those of another model are encoded anew."""
    source = file_to_read(file)
    session = opening.open_session(model=model, memory="write", store=store)
    count = session.memory.import_(source, opening.episode_encoder(session))  # type: ignore[union-attr]  # there in write mode
    Screen(plain=True).line(f"imported {_episodes(count)}; `bitmar memory undo` takes {'it' if count == 1 else 'them'} back")


@app.command()
def verify(
    restore: Annotated[bool, typer.Option("--restore", help="Put the last good copy back where the memory is damaged.")] = False,
    as_json: options.Json = False,
    store: options.Store = None,
) -> None:
    """Check every byte of the memory, and offer to put the last good copy back."""
    from bitmar_core.memory.store import MemoryStore

    folder = opening.memory_folder(store)
    problems = MemoryStore.verify(folder)
    restored = False
    if problems and not restore and not as_json and is_terminal(sys.stdin) and is_terminal(sys.stderr):
        for problem in problems:
            narrate(problem)
        restore = typer.confirm("Put the last good copy back?", err=True)
    if problems and restore:
        MemoryStore.restore(folder)
        restored = True
    left = MemoryStore.verify(folder) if restored else problems
    if as_json:
        typer.echo(to_json({"folder": str(folder), "sound": not left, "problems": problems, "restored": restored}))
    elif not left:
        memory = opening.open_store(store)
        used = "empty" if memory is None else f"{len(memory)} of {memory.slots} slots in use"
        Screen(plain=True).line(f"{'restored: ' if restored else ''}the memory in {folder} is sound ({used})")
    if left:
        for problem in left:
            narrate(f"bitmar: {problem}")
        if not restored and not as_json:
            narrate("bitmar: `bitmar memory verify --restore` puts the last good copy back, where there is one")
        raise typer.Exit(ExitCode.ERROR)


@app.command()
def clear(
    yes: Yes = False,
    pinned: Annotated[bool, typer.Option("--pinned", help="Forget the pinned slots too.")] = False,
    store: options.Store = None,
) -> None:
    """Forget everything but the pinned slots."""
    memory = opening.open_store(store)
    if memory is None or not len(memory):
        Screen(plain=True).line("the memory is empty already")
        return
    if not yes:
        if not is_terminal(sys.stdin):
            raise UsageError("clear forgets everything that is not pinned; add --yes to do it without being asked")
        if not typer.confirm(f"Forget {'all' if pinned else 'all unpinned'} of {_episodes(len(memory))}?", err=True):
            narrate("nothing was changed")
            return
    count = memory.clear(pinned=pinned)
    Screen(plain=True).line(f"forgot {_episodes(count)}; `bitmar memory undo` brings {'it' if count == 1 else 'them'} back")


@app.command()
def undo(store: options.Store = None) -> None:
    """Take the last change back."""
    memory = opening.open_store(store)
    if memory is None:
        raise UsageError("nothing to undo: the memory was never written")
    Screen(plain=True).line(f"taken back: {memory.undo()}")


@app.command()
def inspect(
    task: Annotated[str | None, typer.Option("--task", metavar="TEXT", help="Show which slots an answer to this task uses, and how much.")] = None,
    image: options.Image = None,
    site: options.Site = None,
    fleet: options.FleetFile = None,
    store: options.Store = None,
    model: options.Model = None,
    plain: options.Plain = False,
) -> None:
    """Show the slots in use as a table; with --task, how near each is to that task."""
    screen = Screen(plain=plain)
    found = memories.filled(opening.open_store(store))
    if not found:
        screen.line("the memory is empty; `bitmar memory teach` fills it")
        return
    similar: dict[int, float] = {}
    read: dict[int, Any] = {}
    if task is not None:
        session = opening.open_session(model=model, fleet=fleet, store=store)
        text, place = tasks.read(task), site and tasks.clean(site)
        similar, read = memories.nearness(session, text, image=image, site=place)
        found = memories.filled(session.memory)
    rows = []
    for slot, story in sorted(found, key=lambda pair: (-similar.get(pair[0], -2.0), pair[0])):
        near = [f"{similar[slot]:+.2f}" if slot in similar else "-", f"{read[slot]:.2f}" if slot in read else "-"] if task is not None else []
        rows.append([slot, *near, story.robot, story.source, story.uses, "P" if story.pinned else "", story.made[:10], story.task])
    headings = ["slot", *(["similarity", "weight"] if task is not None else []), "robot", "source", "uses", "pin", "made", "task"]
    for line in table(rows, headings, width=None if screen.plain else shutil.get_terminal_size().columns):
        screen.line(line)
    if task is not None and len(similar) < len(found):
        screen.line("(- where the answer did not use the slot)")


def _episodes(count: int) -> str:
    return f"{count} episode" if count == 1 else f"{count} episodes"
