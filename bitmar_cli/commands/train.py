"""`bitmar train robots`: the recipe of the shipped checkpoint, as one command that resumes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bitmar_cli.render import is_terminal, narrate

app = typer.Typer(no_args_is_help=True, help="Train a checkpoint. Every stage saves its state; the same command goes on from it.")


@app.callback()
def train() -> None:
    """Train a checkpoint. Every stage saves its state; the same command goes on from it."""


@app.command()
def robots(
    out: Annotated[Path, typer.Option(help="Run folder: states, event log and, at the end, the checkpoint.")],
    config: Annotated[Path | None, typer.Option(help="YAML configuration. Default: the small preset.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key, as in training.epochs=2. May be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with tasks, families, fleets. Default: the shipped ones.")] = None,
    reader: Annotated[Path | None, typer.Option(help="tokenizer.json of the text encoder. Default: the shipped model's.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="encoder.safetensors of bitmar_core.training.distill_text. Default: start from nothing.")] = None,
    vision: Annotated[Path | None, typer.Option(help="Folder of bitmar_core.training.distill_vision.")] = None,
    photo_features: Annotated[Path | None, typer.Option(help="Features of photos of places; without them the model does not learn to look.")] = None,
    photo_index: Annotated[Path | None, typer.Option(help="Names of those photos, folder/file, a line each.")] = None,
    skip_photos: Annotated[Path | None, typer.Option(help="File whose lines hold names of photos that are not trained on.")] = None,
    save_every_n_steps: Annotated[int, typer.Option(min=1, help="Steps between two saved states.")] = 200,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: PyTorch's choice.")] = None,
) -> None:
    """Learn to choose, to write and to judge from robot tasks; ends with a packed checkpoint."""
    import re

    from bitmar_core import paths
    from bitmar_core.config import apply_overrides, load_config, small

    settings = apply_overrides(small() if config is None else load_config(config), set_ or [])
    names = frozenset(re.findall(r"[\w.-]+\.(?:jpg|jpeg|png|webp)", skip_photos.read_text(encoding="utf-8"))) if skip_photos else frozenset()
    narrate("loading ...")
    import torch

    from bitmar_core.checkpoint.folder import find_model
    from bitmar_core.training import recipe

    if threads:
        torch.set_num_threads(threads)
    sources = recipe.Sources(
        data=data or paths.assets() / "data", reader=reader or find_model() / settings.text.tokenizer, text_encoder=text_encoder, vision=vision,
        photo_features=photo_features, photo_index=photo_index, skip_photos=names,
    )  # fmt: skip
    every = 10 if is_terminal(sys.stderr) else 50
    for event in recipe.run(settings, sources, out, save_every=save_every_n_steps):
        if isinstance(event, recipe.Stage):
            narrate(f"{event.name}: {event.figures}")
        elif event.step % every == 0 or event.step == event.total:
            left = (event.total - event.step) * event.seconds / 60
            narrate(f"{event.kind} {event.step}/{event.total} loss {event.loss:.3f} rate {event.learning_rate:.1e} about {left:.0f} min left")
