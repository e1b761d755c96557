"""Shared layers against torch's own and against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bitmar_core.model.layers import Attention, GatedFeedForward, GeluFeedForward, RMSNorm, apply_rotary, attend, key_mask, masked_mean, rotary_tables


def test_rms_norm_equals_torch():
    norm = RMSNorm(16)
    torch.nn.init.uniform_(norm.weight)
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, eps=1e-6))
    assert torch.equal(norm(torch.zeros(2, 16)), torch.zeros(2, 16))


def test_attend_equals_torch_and_rows_sum_to_one():
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = torch.rand(2, 1, 4, 6) > 0.4
    mask[..., 0] = True
    out, weights = attend(q, k, v, mask)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))
    assert (weights.masked_select(~mask.expand_as(weights)) == 0).all()


def test_rotary_depends_on_distance_only():
    """Scores of rotated queries and keys stay the same when both move by the same number of positions."""
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, to: int) -> float:
        return float((apply_rotary(q, rotary_tables(torch.tensor([at]), 16)) * apply_rotary(k, rotary_tables(torch.tensor([to]), 16))).sum())

    assert score(3, 1) == pytest.approx(score(103, 101), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-4)
    torch.testing.assert_close(apply_rotary(q, rotary_tables(torch.tensor([0]), 16)), q)
    torch.testing.assert_close(apply_rotary(q, rotary_tables(torch.tensor([77]), 16)).norm(), q.norm())


def test_attention_ignores_masked_keys_and_reuses_keys_and_values():
    torch.manual_seed(0)
    layer = Attention(16, 4, source_width=24)
    x, source = torch.randn(2, 3, 16), torch.randn(2, 5, 24)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    out = layer(x, source, mask=key_mask(mask))
    changed = source.clone()
    changed[0, 3:] = 99.0
    assert torch.equal(layer(x, changed, mask=key_mask(mask)), out)
    assert not torch.equal(layer(x, changed), layer(x, source))
    assert torch.equal(layer(x, mask=key_mask(mask), keys_values=layer.keys_values(source)), out)
    again, weights = layer.with_weights(x, source, mask=key_mask(mask))
    assert torch.equal(again, out) and weights.shape == (2, 3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))


def test_attention_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        Attention(10, 4)


@pytest.mark.parametrize("layer", [GatedFeedForward(16, 40), GeluFeedForward(16, 40)])
def test_feed_forward_works_token_by_token(layer: torch.nn.Module):
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(layer(x)[:, 1], layer(x[:, 1]))


def test_masked_mean():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]]])
    assert masked_mean(x, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]
    assert masked_mean(x, torch.zeros(1, 3)).tolist() == [[0.0, 0.0]]
    assert key_mask(None) is None and key_mask(torch.ones(2, 5)).shape == (2, 1, 1, 5)
