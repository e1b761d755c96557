"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: float, floor: float = 0.02) -> float:
    """Factor in [0, 1]: linear rise over `warmup` (share of the steps), then a cosine down to `floor`.

    Args:
        step: 0-based.
        total: number of steps, at least 1.
    """
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, total - rising)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
