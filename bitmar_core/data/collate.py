"""Rows of ids into padded tensors. Letters: B batch, T tokens, R robots, L card tokens, U decoder tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from bitmar_core.data.chains import Chain
from bitmar_core.robots import Fleet
from bitmar_core.tokenizer import ReaderTokenizer


def pad(rows: list[list[int]], value: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids -> ids (B, T) and mask (B, T) of 1 for real tokens."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def card_tensors(fleet: Fleet, tokenizer: ReaderTokenizer) -> tuple[Tensor, Tensor]:
    """A fleet's cards -> ids (R, L) and mask (R, L)."""
    return pad(tokenizer.encode([robot.text() for robot in fleet.robots])[0])


def chain_tensors(chains: list[Chain], padding: int, limit: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chains -> inputs (B, U), section steps (B, U), targets (B, U) with -100 where none, mask (B, U); cut at `limit`."""
    inputs, mask = pad([c.ids[:-1][:limit] for c in chains], padding)
    sections, _ = pad([c.sections[1:][:limit] for c in chains])
    targets, _ = pad([[i if t else -100 for i, t in zip(c.ids[1:], c.targets[1:], strict=True)][:limit] for c in chains], -100)
    return inputs, sections, targets, mask
