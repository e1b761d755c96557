"""`bitmar doctor`: what this installation is made of, and whether it works. Every line is computed here and now."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from bitmar_cli import opening
from bitmar_cli.commands.model import size
from bitmar_cli.exits import ExitCode
from bitmar_cli.render import Screen, one_line
from bitmar_core import paths
from bitmar_core.errors import BitMarError

Finding = tuple[bool, str, str]
"""Whether it is as it should be, what was looked at, and what was found."""


def doctor() -> None:
    """Check the installation: versions, processor, model, memory, files."""
    screen = Screen()
    broken = 0
    for check in CHECKS:
        try:
            findings = list(check())
        except Exception as error:  # a check that fails is a finding, whatever it was
            findings = [(False, check.__name__.strip("_"), f"{type(error).__name__}: {error}" if not isinstance(error, BitMarError) else str(error))]
        for sound, what, found in findings:
            broken += not sound
            screen.line(("ok      " if sound else "BROKEN  ", "green" if sound else "bold red"), f"{what}: {one_line(found)}")
    if broken:
        screen.line(f"{broken} {'thing is' if broken == 1 else 'things are'} broken")
        raise typer.Exit(ExitCode.ERROR)


def _python() -> Iterator[Finding]:
    from bitmar_cli.main import version

    yield True, "bitmar", version()
    yield sys.version_info >= (3, 11), "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield False, "torch", f"cannot be imported ({type(error).__name__}: {error}); install it with: pip install torch"
        return
    yield True, "torch", torch.__version__
    yield True, "threads", f"{torch.get_num_threads()} used by torch, {os.cpu_count()} processors"
    try:
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        yield True, "bfloat16", "supported by the processor" if fast else "not supported by the processor; float32 is used"
    except (AttributeError, RuntimeError):
        yield True, "bfloat16", "this torch cannot tell"
    yield True, "accelerator", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; the processor is used"


def _model() -> Iterator[Finding]:
    models = opening.models()
    entries = list(models.list_models())
    if not entries:
        yield False, "model", "none is installed; reinstall BitMar, or name a folder with --model"
    for entry in entries:
        yield True, "model", f"{entry.name}, {size(entry.bytes)}, {entry.path}"
        problems = models.verify(Path(entry.path))
        yield not problems, "model files", "; ".join(problems) or "every digest matches"


def _memory() -> Iterator[Finding]:
    from bitmar_core.memory.store import MemoryStore

    folder = opening.memory_folder(None)
    problems = MemoryStore.verify(folder)
    if problems:
        yield False, "memory", "; ".join(problems)
        return
    store = opening.open_store()
    yield True, "memory", f"empty ({folder})" if store is None else f"sound, {len(store)} of {store.slots} slots in use ({folder})"


def _files() -> Iterator[Finding]:
    home = paths.home()
    place = home
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".bitmar-doctor-"):
            pass
        writable = True
    except OSError as error:
        yield False, "home", f"{home} cannot be written ({error.strerror or error}); set BITMAR_HOME to a folder that can"
        writable = False
    if writable:
        yield True, "home", f"{home} is writable" if place == home else f"{home} is created at the first write"
    log = paths.log_file()
    yield True, "log", f"{log} ({size(log.stat().st_size)})" if log.is_file() else f"{log} (nothing logged yet)"


CHECKS: list[Callable[[], Iterator[Finding]]] = [_python, _torch, _model, _memory, _files]
