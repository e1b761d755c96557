"""Advantages against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from bitmar_core.training.advantages import advantages, group_advantage, value_advantage, zero_spread


def test_group_advantage_by_hand():
    # Means 2 and 1; sample deviations sqrt((1+0+1)/2) = 1 and sqrt((1+4+1)/2) = sqrt(3).
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 3.0, 0.0]])
    expected = torch.tensor([[-1 / 1.0001, 0.0, 1 / 1.0001], [-1 / 1.7321508, 2 / 1.7321508, -1 / 1.7321508]])
    assert torch.allclose(group_advantage(rewards), expected, atol=1e-6)
    assert torch.equal(group_advantage(rewards, scale=False), torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 2.0, -1.0]]))


def test_a_group_without_spread_teaches_nothing():
    rewards = torch.tensor([[0.7, 0.7, 0.7], [0.0, 1.0, 0.0]])
    assert group_advantage(rewards)[0].abs().max() < 1e-2 * group_advantage(rewards)[1].abs().min()
    assert zero_spread(rewards) == 0.5


def test_groups_do_not_mix():
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([group_advantage(row.unsqueeze(0)) for row in rewards])
    assert torch.allclose(group_advantage(rewards), alone, atol=1e-6)
    assert group_advantage(rewards).mean(1).abs().max() < 1e-5
    # Shift and (but for the floor) scale of the rewards do not count.
    assert torch.allclose(group_advantage(rewards * 5 + 3), group_advantage(rewards), atol=2e-3)


def test_value_advantage_and_sum():
    rewards, values = torch.tensor([[1.0, 2.0], [0.5, 0.0]]), torch.tensor([1.5, 0.25], requires_grad=True)
    gained = value_advantage(rewards, values)
    assert torch.equal(gained, torch.tensor([[-0.5, 0.5], [0.25, -0.25]]))
    assert not gained.requires_grad
    assert torch.equal(advantages("value", rewards, values), gained)
    assert torch.equal(advantages("group", rewards, values), group_advantage(rewards))
    assert torch.equal(advantages("group+value", rewards, values), group_advantage(rewards) + gained)
    assert torch.equal(advantages("group+value", rewards, values, scale=False), group_advantage(rewards, scale=False) + gained)


def test_what_is_refused():
    with pytest.raises(ValueError, match="two chains"):
        group_advantage(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="two chains"):
        group_advantage(torch.zeros(3))
    with pytest.raises(ValueError, match="needed"):
        value_advantage(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="no advantage 'best'"):
        advantages("best", torch.zeros(1, 2), torch.zeros(1))
