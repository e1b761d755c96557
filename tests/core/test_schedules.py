"""The learning-rate schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitmar_core.training.schedules import warmup_cosine


def test_rises_in_a_line_then_falls_to_the_floor():
    factors = [warmup_cosine(step, 100, 0.1, floor=0.02) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0 and factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[55] == pytest.approx(0.02 + 0.98 * 0.5) and factors[100] == pytest.approx(0.02)


@given(st.integers(1, 10_000), st.data(), st.floats(0, 1), st.floats(0, 1))
def test_stays_between_nought_and_one(total: int, data: st.DataObject, warmup: float, floor: float):
    factor = warmup_cosine(data.draw(st.integers(0, total + 10)), total, warmup, floor)
    assert 0 <= factor <= 1 + 1e-9


def test_a_single_step_has_the_full_rate():
    assert warmup_cosine(0, 1, 0.06) == 1.0
