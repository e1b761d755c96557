"""BitMar: reads a task, a photo and a fleet, and says which robot to send. Public names are loaded when they are used."""

from __future__ import annotations

from typing import Any

_WHERE = {
    "BitMarConfig": "bitmar_core.config",
    "create_bitmar_model": "bitmar_core.model.bitmar",
    "load_model": "bitmar_core.inference.session",
    "Session": "bitmar_core.inference.session",
    "Fleet": "bitmar_core.robots",
    "load_fleet": "bitmar_core.robots",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bitmar_core' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
