"""`bitmar tui`: the full-screen program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitmar_cli import options


def tui(
    image: options.Image = None,
    fleet: options.FleetFile = None,
    site: options.Site = None,
    memory: options.Memory = options.MemoryMode.read,
    store: options.Store = None,
    seed: options.Seed = None,
    model: options.Model = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="NAME", help="Go on with this saved session; `last` is the latest.")] = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Watch the training run in this folder. Without it: the latest under runs/.")] = None,
    theme: Annotated[
        str | None, typer.Option("--theme", metavar="NAME", help="bitmar-dark, bitmar-light, bitmar-safe (any colour sight) or ansi-dark (16 colours).")
    ] = None,
) -> None:
    """Open the full-screen program: chat, reasoning steps, photo, memory inspector, training monitor.

    F1 lists the keys, Ctrl+P every command. NO_COLOR and BITMAR_ASCII are heeded.
    """
    from bitmar_cli.tui.launch import launch

    launch(
        model=model, fleet=fleet, memory=memory.value, store=store, image=image, site=site, seed=seed, run=run, resume=resume, theme=theme,
    )  # fmt: skip
