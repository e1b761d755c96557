"""Options that several commands share, defined once: same name, same meaning, same help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class MemoryMode(StrEnum):
    """What a command may do with the memory."""

    off = "off"
    read = "read"
    write = "write"


Image = Annotated[str | None, typer.Option("--image", metavar="PATH", help="A photo of the place (JPEG, PNG, WebP and others).")]
FleetFile = Annotated[Path | None, typer.Option("--fleet", metavar="FILE", help="A YAML file that lists your robots. Without it: the six default ones.")]
Site = Annotated[str | None, typer.Option("--site", metavar="TEXT", help='What is known of the place, in a sentence: "flooded cellar, narrow stairs".')]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines without colours or bars, as in a pipe. Good for screen readers.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME|PATH", help="The model to use. Without it: the shipped one.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**31 - 1, help="Sample the reasoning text with this seed. Without it the likeliest text is written."),
]
Memory = Annotated[MemoryMode, typer.Option("--memory", help="`read` uses what was taught; `write` also stores each answer; `off` does neither.")]
Store = Annotated[
    str | None, typer.Option("--store", metavar="NAME", help="Use the memory of this name, apart from the default one. A plain name, not a path.")
]
