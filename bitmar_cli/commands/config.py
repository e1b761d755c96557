"""`bitmar config`: configuration files, which say how a model is built and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitmar_cli.names import file_to_write
from bitmar_cli.render import Screen
from bitmar_cli.settings import as_yaml
from bitmar_core import paths
from bitmar_core.errors import UsageError

app = typer.Typer(
    help="Write, check and show configuration files.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Preset = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Start from the preset tiny, small or base.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value, as in training.epochs=2. May be given several times.")]


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A configuration file. Without it: the preset.", show_default=False)] = None,
    preset: Preset = None,
    set_: Set = None,
) -> None:
    """Show every value that is in force, as YAML with what each one means."""
    from bitmar_core import config

    if file is not None and preset is not None:
        raise UsageError("a FILE and --preset exclude each other; the file names its own preset")
    values = config.load_config(file) if file is not None else config.preset(preset or "base")
    typer.echo(as_yaml(config.apply_overrides(values, set_ or [])), nl=False)


@app.command()
def path() -> None:
    """Print where BitMar's files lie. BITMAR_HOME moves all but the shipped ones."""
    screen = Screen(plain=True)
    for name, place in (("home", paths.home()), ("memory", paths.default_memory()), ("log", paths.log_file()), ("shipped files", paths.assets())):
        screen.line(f"{name}: {place}")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("bitmar.yaml"),
    preset: Preset = None,
) -> None:
    """Write a new configuration file with every key explained."""
    from bitmar_core import config

    values = config.preset(preset or "base")
    target = file_to_write(file)
    paths.write_atomic(target, as_yaml(values).encode())
    Screen(plain=True).line(f"wrote {target}; check it after editing with: bitmar config validate {target}")


@app.command()
def validate(file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration file.")], set_: Set = None) -> None:
    """Check a configuration file."""
    from bitmar_core import config

    config.apply_overrides(config.load_config(file), set_ or [])
    Screen(plain=True).line(f"{file} is sound")
