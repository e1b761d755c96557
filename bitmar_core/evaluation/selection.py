"""How well a model chooses: figures from rows of (gold, probabilities). Pure functions over plain lists."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence


def top1(gold: Sequence[Sequence[str]], chosen: Sequence[str | None]) -> float:
    """Share of choices that are acceptable."""
    return sum(c in g for g, c in zip(gold, chosen, strict=True)) / max(1, len(chosen))


def expected_calibration_error(confidence: Sequence[float], hit: Sequence[bool], bins: int = 10) -> float:
    """ECE with equal-width bins (arXiv 1706.04599, eq. 3)."""
    total = len(confidence)
    error = 0.0
    for index in range(bins):
        inside = [(c, h) for c, h in zip(confidence, hit, strict=True) if index / bins < c <= (index + 1) / bins or (index == 0 and c == 0)]
        if inside:
            error += len(inside) / total * abs(sum(c for c, _ in inside) / len(inside) - sum(h for _, h in inside) / len(inside))
    return error


def selective_accuracy(confidence: Sequence[float], hit: Sequence[bool], share: float = 0.7) -> float:
    """Accuracy on the most confident `share`."""
    ranked = [h for _, h in sorted(zip(confidence, hit, strict=True), key=lambda pair: -pair[0])]
    kept = ranked[: int(share * len(ranked))]
    return sum(kept) / max(1, len(kept))


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share."""
    if total == 0:
        return 0.0, 0.0
    p = hits / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return middle - half, middle + half


def macro(gold: Sequence[Sequence[str]], chosen: Sequence[str | None]) -> float:
    """Mean over the first acceptable answers of the share of hits among their tasks: each robot counts alike, however rare it is."""
    by_robot: dict[str, list[bool]] = {}
    for g, c in zip(gold, chosen, strict=True):
        by_robot.setdefault(g[0], []).append(c in g)
    return sum(sum(hits) / len(hits) for hits in by_robot.values()) / max(1, len(by_robot))


def targets(gold: Sequence[Sequence[str]], chosen: Sequence[str | None]) -> list[str]:
    """One true label a task: the choice itself where it is acceptable, else the first acceptable answer."""
    return [c if c is not None and c in g else g[0] for g, c in zip(gold, chosen, strict=True)]


def confusion(target: Sequence[str], chosen: Sequence[str | None], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """`table[true][chosen]` counts. Tasks without an answer are in no cell."""
    table = {true: dict.fromkeys(names, 0) for true in names}
    for t, c in zip(target, chosen, strict=True):
        if c is not None:
            table[t][c] += 1
    return table


def precision_recall(target: Sequence[str], chosen: Sequence[str | None], names: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Precision, recall, F1 and number of tasks of each robot. None where there is nothing to divide by: never chosen, or never true."""
    pairs = list(zip(target, chosen, strict=True))
    figures: dict[str, dict[str, float | int | None]] = {}
    for name in names:
        hits = sum(t == c == name for t, c in pairs)
        said, true = sum(c == name for _, c in pairs), sum(t == name for t, _ in pairs)
        figures[name] = {
            "precision": hits / said if said else None,
            "recall": hits / true if true else None,
            "f1": 2 * hits / (said + true) if said + true else None,
            "tasks": true,
        }
    return figures


def brier(gold: Sequence[Sequence[str]], probabilities: Sequence[Mapping[str, float]]) -> float:
    """Mean squared distance between probabilities and truth, 0 to 2 (Brier 1950, eq. 2).

    Where k robots are acceptable the truth is 1/k for each of them.
    """
    total = 0.0
    for g, p in zip(gold, probabilities, strict=True):
        share = 1 / len(set(g))
        total += sum((p[name] - (share if name in g else 0.0)) ** 2 for name in p) + sum(share**2 for name in set(g) if name not in p)
    return total / max(1, len(probabilities))


def harmonic(shares: Sequence[float]) -> float:
    """Harmonic mean; 0 where a share is 0."""
    return len(shares) / sum(1 / share for share in shares) if shares and min(shares) > 0 else 0.0


def shift(count: int, seed: int = 0) -> list[int]:
    """A random order of 0..count-1 in which nothing keeps its place (Sattolo 1986: one cycle). A single item has no other place."""
    order, rng = list(range(count)), random.Random(seed)
    for i in range(count - 1, 0, -1):
        j = rng.randrange(i)
        order[i], order[j] = order[j], order[i]
    return order
