"""The text encoder in both layouts."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_config

from bitmar_core.model.text_encoder import TextEncoder


@pytest.fixture(params=["bitnet", "bert"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(tiny_config(layout=request.param).text).eval()


def test_shapes_and_states_of_every_layer(encoder: TextEncoder):
    ids = torch.randint(0, 600, (2, 7))
    assert encoder(ids).shape == (2, 7, 32)
    states = encoder(ids, all_states=True)
    assert len(states) == encoder.config.layers and all(s.shape == (2, 7, 32) for s in states)


def test_padding_changes_nothing(encoder: TextEncoder):
    ids = torch.randint(1, 600, (1, 6))
    padded = torch.cat([ids, torch.full((1, 5), 9)], 1)
    mask = torch.tensor([[1] * 6 + [0] * 5])
    torch.testing.assert_close(encoder(padded, mask)[:, :6], encoder(ids), rtol=0, atol=1e-4)


def test_reads_both_ways_and_in_order(encoder: TextEncoder):
    """A later token reaches the first state; the same words in another order mean something else."""
    ids = torch.randint(1, 600, (1, 6))
    changed = ids.clone()
    changed[0, 5] = ids[0, 5] % 599 + 1
    assert not torch.allclose(encoder(ids)[:, 0], encoder(changed)[:, 0], atol=1e-4)
    assert not torch.allclose(encoder(ids).mean(1), encoder(ids.flip(1)).mean(1), atol=1e-4)


def test_a_text_that_is_too_long_is_refused(encoder: TextEncoder):
    with pytest.raises(ValueError, match="129 tokens are more than the 128"):
        encoder(torch.zeros(1, 129, dtype=torch.long))
    assert encoder(torch.zeros(1, 128, dtype=torch.long)).isfinite().all()
