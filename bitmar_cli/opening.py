"""The one place where commands get a session or a memory store. Tests put their own in by replacing these functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitmar_cli.names import plain_name
from bitmar_cli.render import is_terminal, narrate
from bitmar_core import paths

if TYPE_CHECKING:
    from bitmar_core.inference.session import Session
    from bitmar_core.memory.store import MemoryStore


def memory_folder(store: str | None) -> Path:
    """The folder of the memory called `store`, or of the default one.

    Raises:
        UsageError: not a plain name.
    """
    if store is None:
        return paths.default_memory()
    return paths.home() / "memories" / plain_name(store, what="the memory's name")


def open_session(*, model: str | None = None, fleet: Path | None = None, memory: str = "read", store: str | None = None) -> Session:
    """Load the model. What can be refused without it is refused first.

    Raises:
        BitMarError: a refused fleet, name, model or memory.
    """
    from bitmar_core.robots import load_fleet

    folder = None if store is None else memory_folder(store)
    cards = None if fleet is None else load_fleet(fleet)
    if is_terminal(sys.stderr):
        narrate("loading the model ...")
    from bitmar_core.inference.session import Session

    return Session.open(model=model, fleet=cards, memory=memory, memory_path=folder)  # type: ignore[arg-type]


def open_store(store: str | None = None) -> MemoryStore | None:
    """The memory as it lies on disk, read without a model; None where nothing was ever written.

    Raises:
        BitMarError: a refused name, or a damaged memory.
    """
    from bitmar_core.memory import generations
    from bitmar_core.memory.store import MemoryStore

    folder = memory_folder(store)
    snapshot, _ = generations.read_newest(folder)
    if snapshot is None:
        return None
    return MemoryStore.open(folder, slots=snapshot.slots, width=snapshot.width, model=snapshot.model)


def episode_encoder(session: Any) -> Any:
    """What gives key and value of an episode that another model wrote."""
    return getattr(session, "encode_episode", None)


def models() -> Any:
    """The functions that list, describe and check checkpoints."""
    from bitmar_core.checkpoint import folder

    return folder
