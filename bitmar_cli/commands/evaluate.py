"""`bitmar evaluate`: how well a model chooses, measured on a file of tasks or on the shipped ones that training does not see."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bitmar_cli import opening, options
from bitmar_cli.names import file_to_read
from bitmar_cli.render import Screen, is_terminal, safe, to_json
from bitmar_core.errors import UsageError


class What(StrEnum):
    """What is measured."""

    robots = "robots"
    fleets = "fleets"
    vision = "vision"
    memory = "memory"


SCRATCH = "evaluate"
"""The memory that is opened to measure the memory. Nothing is written to it: each correction goes into a temporary folder."""


def evaluate(
    what: Annotated[
        What,
        typer.Argument(
            metavar="WHAT",
            help="`robots`: tasks for the default fleet. `fleets`: custom fleets. `vision`: what the photo adds. `memory`: what a correction changes.",
        ),
    ] = What.robots,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="JSON lines to measure on. Without it: the shipped tasks that training does not see (not for `vision`)."),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Also measure simpler ways of choosing (`robots` and `fleets`).")] = False,
    as_json: options.Json = False,
    plain: options.Plain = False,
    model: options.Model = None,
) -> None:
    """Measure how well a model chooses.

    \b
    Lines of FILE:
      robots  {"task", "site"?, "gold": [robots]}
      fleets  {"fleet_id", "fleet": [cards], "items": [{"task", "gold"}]}
      vision  {"task", "image", "gold"}; image paths are relative to the file
      memory  {"task", "taught", "why", "paraphrases": [texts], "neighbors": [{"task", "gold"}]}
    """
    if what is What.vision and data is None:
        raise UsageError("vision needs --data FILE: photos are not shipped with answers")
    if baselines and what in (What.vision, What.memory):
        raise UsageError(f"--baselines goes with robots and fleets, not with {what.value}; leave it out")
    file = None if data is None else file_to_read(data)
    # What a person taught must not colour the figures, so the memory is off or empty.
    session = opening.open_session(model=model, memory="read", store=SCRATCH) if what is What.memory else opening.open_session(model=model, memory="off")
    progress = Progress()
    try:
        figures = MEASURE[what](session, file, baselines, progress)
    finally:
        progress.close()
    result = {
        "evaluate": what.value,
        "data": "the shipped tasks that training does not see" if file is None else str(file),
        "model": session.model_name,
        **figures,
    }
    if as_json:
        typer.echo(to_json(rounded(result)))
    else:
        draw(Screen(plain=plain), what, result)


class Progress:
    """A line on stderr that is rewritten; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self.shown = is_terminal(sys.stderr)
        self.start = self.last = time.monotonic()
        self.drawn = False

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if self.shown and (now - self.last > 0.2 or done == total):
            self.last, self.drawn = now, True
            rate = done / max(1e-6, now - self.start)
            print(
                f"\r{done} of {total} measured, {rate:.1f}/s, {max(0.0, (total - done) / max(1e-6, rate)):.0f} s left   ", end="", file=sys.stderr, flush=True
            )

    def close(self) -> None:
        """Leave the line."""
        if self.drawn:
            print(file=sys.stderr)


# --- measuring ---


def _robots(session: Any, file: Path | None, baselines: bool, progress: Progress) -> dict[str, Any]:
    from bitmar_core.evaluation import baselines as simple
    from bitmar_core.evaluation import robots

    holdout = session.config.training.holdout if file is None or baselines else 0.0
    corpus = robots.shipped() if file is None or baselines else None
    tasks = robots.kept_back(corpus.tasks, holdout) if file is None and corpus is not None else robots.read(file, session.fleet)  # type: ignore[arg-type]
    result = robots.evaluate(session, tasks, progress)
    if corpus is not None and baselines:
        result["baselines"] = simple.figures(tasks, simple.training_tasks(corpus, holdout, without=[task.text for task in tasks]))
    return result


def _fleets(session: Any, file: Path | None, baselines: bool, progress: Progress) -> dict[str, Any]:
    from bitmar_core.evaluation import baselines as simple
    from bitmar_core.evaluation import fleets, robots

    tasks = robots.kept_back(robots.shipped().fleets, session.config.training.holdout) if file is None else fleets.read(file)
    result = fleets.evaluate(session, tasks, progress)
    if baselines:
        result["baselines"] = simple.fleet_figures(tasks)
    return result


def _vision(session: Any, file: Path | None, baselines: bool, progress: Progress) -> dict[str, Any]:
    from bitmar_core.evaluation import vision

    assert file is not None
    return vision.evaluate(session, vision.read(file, session.fleet.names), progress)


def _memory(session: Any, file: Path | None, baselines: bool, progress: Progress) -> dict[str, Any]:
    from bitmar_core import paths
    from bitmar_core.evaluation import memory

    names = session.fleet.names
    if file is not None:
        return memory.evaluate(session, memory.read(file, names), progress)
    unseen, seen = memory.from_families(paths.assets() / "data", names, session.config.training.holdout)
    return memory.evaluate(session, unseen, progress, fillers=seen)


MEASURE = {What.robots: _robots, What.fleets: _fleets, What.vision: _vision, What.memory: _memory}


# --- showing ---


@dataclass(frozen=True, kw_only=True)
class Block:
    """A table: the first column names the row."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def rounded(value: Any) -> Any:
    """Floats with six decimals, all the way down."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A number as a table shows it; a dash for what cannot be computed."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def between(interval: list[float]) -> str:
    """An interval in words."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def summary(what: What, result: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines that come first."""
    lines = [("data", result["data"]), ("model", result["model"])]
    if what is What.memory:
        return [*lines, ("corrections", shown(result["corrections"]))]
    lines.append(("tasks", shown(result["tasks"])))
    if what is What.vision:
        return lines
    lines += [("top-1", f"{result['top1']:.3f} ({between(result['interval'])})"), ("macro", shown(result["macro"]))]
    if what is What.fleets:
        lines.append(("chance", shown(result["chance"])))
    selective = result["selective"]
    lines += [
        ("ECE", shown(result["ece"])),
        ("Brier", shown(result["brier"])),
        (f"accuracy of the surest {100 * selective['share']:.0f} %", shown(selective["accuracy"])),
    ]
    if result["refused"]:
        lines.append(("refused, counted as wrong", shown(result["refused"])))
    return lines


def blocks(what: What, result: dict[str, Any]) -> list[Block]:
    """The tables that follow."""
    found = []
    if what is What.robots:
        rows = [[name, *(shown(f[key]) for key in ("precision", "recall", "f1", "tasks"))] for name, f in result["robots"].items()]
        found.append(Block(title="by robot", headings=["robot", "precision", "recall", "F1", "tasks"], rows=rows))
        table = result["confusion"]
        found.append(
            Block(
                title="confusion",
                headings=["right, and what was chosen", *table],
                rows=[[true, *(shown(n) for n in row.values())] for true, row in table.items()],
            )
        )
    if what is What.fleets:
        rows = [[name, shown(f["tasks"]), shown(f["top1"]), between(f["interval"])] for name, f in result["fleets"].items()]
        found.append(Block(title="by fleet", headings=["fleet", "tasks", "top-1", "interval"], rows=rows))
    if what is What.vision:
        labels = {"photo": "with its photo", "none": "without a photo", "shuffled": "with another's photo"}
        rows = [
            [label, shown(result[key]["macro"]), shown(result[key]["top1"]), between(result[key]["interval"]), shown(result[key]["refused"])]
            for key, label in labels.items()
        ]
        found.append(Block(title="by photo", headings=["asked", "macro", "top-1", "interval", "refused"], rows=rows))
    if what is What.memory:
        keys = ("taught", "paraphrases", "kept", "neighbors_right", "harmonic")
        labels = {"single": "one at a time", "together": f"{result['together']['at_once']} at once"}
        rows = [[label, *(shown(result[key][k]) for k in keys)] for key, label in labels.items()]
        found.append(Block(title="by memory", headings=["taught", "task", "rewordings", "neighbours kept", "neighbours right", "harmonic mean"], rows=rows))
    if "baselines" in result:
        rows = []
        for name, f in result["baselines"].items():
            rows.append([name, f["missing"], "-", "-"] if "missing" in f else [name, shown(f["top1"]), between(f["interval"]), shown(f["macro"])])
        found.append(Block(title="baselines", headings=["baseline", "top-1", "interval", "macro"], rows=rows))
    return found


def draw(screen: Screen, what: What, result: dict[str, Any]) -> None:
    """Tables on a terminal; else a line for each figure or row."""
    for name, value in summary(what, result):
        screen.line((f"{name}: ", "cyan"), value)
    if screen.plain:
        for block in blocks(what, result):
            for row in block.rows:
                screen.line(f"{block.title}, {row[0]}: " + ", ".join(f"{heading} {cell}" for heading, cell in zip(block.headings[1:], row[1:], strict=True)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=screen.stream, markup=False, highlight=False, emoji=False, no_color=not screen.colour)
    for block in blocks(what, result):
        table = Table(title=block.title, title_justify="left", box=box.SIMPLE_HEAD if screen.unicode else box.ASCII2)
        for number, heading in enumerate(block.headings):
            table.add_column(Text(safe(heading)), justify="right" if number else "left")
        for row in block.rows:
            table.add_row(*(Text(safe(cell)) for cell in row))
        console.print(table)
