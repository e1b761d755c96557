"""Ternary weights in a fifth of a byte each: five trits a byte in base 3 (3^5 = 243 <= 256), 1.6 bits a weight."""

from __future__ import annotations

import numpy as np

TRITS = 5
_POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
_TABLE = (np.arange(243)[:, None] // _POWERS[None].astype(np.int64) % 3 - 1).astype(np.int8)


def pack(ternary: np.ndarray) -> np.ndarray:
    """Pack weights of {-1, 0, 1}, any shape, row-major -> uint8 (ceil(n / 5),). The last byte is filled with zeros.

    Raises:
        ValueError: another value occurs.
    """
    flat = np.ascontiguousarray(ternary).reshape(-1)
    if flat.size and (flat.min() < -1 or flat.max() > 1 or not np.array_equal(flat, np.round(flat))):
        raise ValueError("only -1, 0 and 1 can be packed")
    padded = np.zeros(-(-flat.size // TRITS) * TRITS, dtype=np.uint8)
    padded[: flat.size] = flat.astype(np.int8) + 1
    padded[flat.size :] = 1
    return (padded.reshape(-1, TRITS) * _POWERS).sum(1, dtype=np.uint8)


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The exact inverse of `pack`: int8 weights of `shape`.

    Raises:
        ValueError: too few or too many bytes for the shape, or a byte that no packing gives.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if packed.size != -(-count // TRITS):
        raise ValueError(f"{packed.size} bytes cannot hold {count} weights; {-(-count // TRITS)} are needed")
    if packed.size and packed.max() > 242:
        raise ValueError(f"byte {int(packed.max())} is not five ternary digits")
    return _TABLE[packed].reshape(-1)[:count].reshape(shape)


def quantise_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int8 rows with a float16 scale each: (n, d) -> int8 (n, d), float16 (n,). For embeddings."""
    scale = np.maximum(np.abs(table).max(axis=1), 1e-5).astype(np.float32) / 127.0
    scale = scale.astype(np.float16).astype(np.float32)
    scale = np.maximum(scale, np.float32(6e-8))
    return np.clip(np.round(table / scale[:, None]), -127, 127).astype(np.int8), scale.astype(np.float16)


def restore_rows(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The inverse of `quantise_rows` up to rounding: float32 (n, d)."""
    return rows.astype(np.float32) * scale.astype(np.float32)[:, None]
