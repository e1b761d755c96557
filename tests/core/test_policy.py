"""Cards that read the task, and scores for any fleet."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_config

from bitmar_core.model.policy import CardReader, RobotPolicy, ScoreHead


@pytest.fixture
def reader() -> CardReader:
    torch.manual_seed(0)
    return CardReader(tiny_config()).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    """cards (R, L, D) and mask (R, L), text (B, T, D) and mask (B, T)."""
    g = torch.Generator().manual_seed(1)
    card_mask, text_mask = torch.ones(3, 6, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    card_mask[0, 3:] = 0
    text_mask[1, 2:] = 0
    return torch.randn(3, 6, 32, generator=g), card_mask, torch.randn(2, 5, 32, generator=g), text_mask


def test_cards_read_the_task(reader: CardReader):
    cards, card_mask, text, text_mask = inputs()
    states = reader(cards, card_mask, text, text_mask)
    assert states.shape == (2, 3, 32)
    other = reader(cards, card_mask, text.flip(2), text_mask)
    assert not torch.allclose(other, states, atol=1e-3)


def test_padding_of_cards_and_text_changes_nothing(reader: CardReader):
    cards, card_mask, text, text_mask = inputs()
    states = reader(cards, card_mask, text, text_mask)
    cards, text = cards.clone(), text.clone()
    cards[0, 3:], text[1, 2:] = 9.0, 9.0
    assert torch.equal(reader(cards, card_mask, text, text_mask), states)


def test_a_card_does_not_see_its_neighbours(reader: CardReader):
    """The order of a fleet is no more than an order."""
    cards, card_mask, text, text_mask = inputs()
    states = reader(cards, card_mask, text, text_mask)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(reader(cards[order], card_mask[order], text, text_mask), states[:, order], rtol=0, atol=1e-4)
    torch.testing.assert_close(reader(cards[:2], card_mask[:2], text, text_mask), states[:, :2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("robots", [2, 6, 64])
def test_scores_any_number_of_robots(robots: int):
    torch.manual_seed(0)
    policy = RobotPolicy(tiny_config())
    cards = torch.randn(2, robots, 32)
    scores = policy.score(policy.state(torch.randn(2, 5, 32)), policy.keys(cards))
    assert scores.shape == (2, 5, robots)
    assert policy.suitability(cards, torch.zeros(2, robots)).shape == (2, robots)


def test_score_is_a_scaled_product_with_a_gain():
    policy = RobotPolicy(tiny_config())
    state, keys = torch.randn(1, 2, 16), torch.randn(1, 3, 16)
    torch.testing.assert_close(policy.score(state, keys), state @ keys.transpose(1, 2) / 4)
    policy.gain.data.fill_(2.0)
    torch.testing.assert_close(policy.score(state, keys), state @ keys.transpose(1, 2) / 2)


def test_likeness_raises_suitability_by_its_gain():
    policy = RobotPolicy(tiny_config())
    cards = torch.randn(1, 3, 32)
    plain, alike = policy.suitability(cards, torch.zeros(1, 3)), policy.suitability(cards, torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(alike - plain, torch.tensor([[0.0, 2.5, 5.0]]))


def test_head_shapes():
    config = tiny_config()
    assert ScoreHead(config)(torch.randn(2, 5, 32)).shape == (2, 5, 16)
    assert ScoreHead(config, outputs=1)(torch.randn(2, 5, 32)).shape == (2, 5, 1)
