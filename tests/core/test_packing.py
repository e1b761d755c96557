"""Five ternary weights in a byte, exactly; embeddings in eight bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitmar_core.checkpoint.packing import pack, quantise_rows, restore_rows, unpack

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


@given(hnp.arrays(np.int8, SHAPES, elements=st.integers(-1, 1)))
def test_round_trip_is_exact(ternary: np.ndarray):
    packed = pack(ternary)
    assert packed.dtype == np.uint8 and packed.shape == (-(-ternary.size // 5),)
    back = unpack(packed, ternary.shape)
    assert back.dtype == np.int8 and np.array_equal(back, ternary)


@given(hnp.arrays(np.uint8, st.integers(1, 12), elements=st.integers(0, 242)))
def test_every_packing_is_read_back_to_itself(packed: np.ndarray):
    assert np.array_equal(pack(unpack(packed, (5 * len(packed),))), packed)


def test_known_bytes():
    """1 + 3 + 9 + 27 + 81 = 121 stands for five zeros, 242 for five ones, 0 for five minus ones."""
    assert pack(np.zeros(5)).tolist() == [121] and pack(np.ones(5)).tolist() == [242] and pack(-np.ones(5)).tolist() == [0]
    assert pack(np.array([1, 0, 0, 0, 0])).tolist() == [122] and pack(np.array([0, 0, 0, 0, 1])).tolist() == [202]
    assert pack(np.array([[1]])).tolist() == [122], "the rest of the last byte is zeros"


@given(hnp.arrays(np.float32, 6, elements=st.floats(-3, 3, width=32)))
def test_only_ternary_values_are_packed(values: np.ndarray):
    if np.isin(values, (-1, 0, 1)).all():
        assert np.array_equal(unpack(pack(values), (6,)), values)
    else:
        with pytest.raises(ValueError, match="only -1, 0 and 1"):
            pack(values)


@pytest.mark.parametrize(
    ("packed", "shape", "words"), [([121], (2, 3), "1 bytes cannot hold 6 weights; 2 are needed"), ([121, 121], (5,), "2 bytes"), ([243], (5,), "byte 243")]
)
def test_what_no_packing_gives_is_refused(packed: list[int], shape: tuple[int, ...], words: str):
    with pytest.raises(ValueError, match=words):
        unpack(np.array(packed, dtype=np.uint8), shape)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-100, 100, width=32)))
def test_rows_come_back_within_half_a_step(table: np.ndarray):
    rows, scale = quantise_rows(table)
    assert rows.dtype == np.int8 and scale.dtype == np.float16
    back = restore_rows(rows, scale)
    # Half a step, and what rounding the scale to float16 takes off the largest value: 11 bits of it, or 127 times half of 2^-24.
    bound = scale.astype(np.float32) * 0.5 + np.abs(table).max(1) * 2.0**-10 + 4e-6
    assert (np.abs(back - table) <= bound[:, None]).all()


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-2, 2, width=32)))
def test_rounded_rows_stay_as_they_are(table: np.ndarray):
    once = restore_rows(*quantise_rows(table))
    twice = restore_rows(*quantise_rows(once))
    assert np.abs(twice - once).max() <= np.abs(once).max() * 2.0**-10
