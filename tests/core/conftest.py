"""A tiny checkpoint, made once, and tiny models with seeded weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from fakes import build_checkpoint, tiny_model, with_gates

from bitmar_core.inference.session import Session
from bitmar_core.model.bitmar import BitMar


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny checkpoint. Tests must not change it."""
    return build_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model() -> BitMar:
    """Four patches a photo, fusion gates moved off zero, in evaluation mode."""
    return with_gates(tiny_model()).eval()


@pytest.fixture
def session(checkpoint: Path, tmp_path: Path) -> Callable[..., Session]:
    """Opens the tiny checkpoint with a memory of its own."""

    def open_session(**options) -> Session:
        folder = options.pop("model", checkpoint)
        return Session.open(folder, memory_path=options.pop("memory_path", tmp_path / "memory"), **options)

    return open_session
