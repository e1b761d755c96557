"""`bitmar model`: the checkpoints on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitmar_cli import opening, options
from bitmar_cli.exits import ExitCode
from bitmar_cli.render import Screen, narrate, table, to_json
from bitmar_core.errors import ModelMissingError

app = typer.Typer(
    help="List, describe and check the models on this machine.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str | None, typer.Argument(metavar="[NAME|PATH]", help="A name from `bitmar model list`, or a folder. Without it: the shipped model.", show_default=False)
]


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the models on this machine."""
    entries = list(opening.models().list_models())
    if as_json:
        typer.echo(to_json([{"name": entry.name, "path": str(entry.path), "bytes": entry.bytes} for entry in entries]))
        return
    if not entries:
        raise ModelMissingError("no model is installed; reinstall BitMar, or name a folder with --model")
    screen = Screen(plain=True)
    for line in table([[entry.name, size(entry.bytes), str(entry.path)] for entry in entries], ["name", "size", "path"]):
        screen.line(line)


@app.command()
def info(name: Name = None, as_json: options.Json = False) -> None:
    """Describe a model: its parameters, the share that is ternary, sparsity, and its size on disk and in memory."""
    facts = opening.models().describe(opening.models().find_model(name))
    if as_json:
        typer.echo(to_json(_plain(facts)))
        return
    screen = Screen(plain=True)
    for label, value in _flat(facts):
        screen.line(f"{label}: {_shown(label, value)}")


@app.command()
def verify(name: Name = None) -> None:
    """Check every file of a model against its digest."""
    folder = opening.models().find_model(name)
    problems = opening.models().verify(folder)
    for problem in problems:
        narrate(f"bitmar: {problem}")
    if problems:
        raise typer.Exit(ExitCode.ERROR)
    Screen(plain=True).line(f"{folder} is sound")


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in facts.items():
        label = f"{prefix}{str(key).replace('_', ' ')}"
        rows += _flat(value, label + ", ") if isinstance(value, dict) else [(label, value)]
    return rows


def _shown(label: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,} ({size(value)})" if "bytes" in label and value >= 1000 else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.1%}" if any(word in label for word in ("share", "sparsity")) and 0 <= value <= 1 else f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
