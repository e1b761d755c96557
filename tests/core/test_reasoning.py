"""Five steps and the quality heads."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_config

from bitmar_core.events import SECTIONS, STEP_NAMES
from bitmar_core.model.reasoning import QUALITIES, STEPS, QualityHeads, ReasoningModule


@pytest.fixture
def module() -> ReasoningModule:
    torch.manual_seed(0)
    return ReasoningModule(tiny_config()).eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, ...]:
    """context (B, D), patches (B, P, D), patch mask (B, P), cards (B, R, D)."""
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(batch, 4, dtype=torch.bool)
    mask[0, 2:] = False
    return torch.randn(batch, 32, generator=g), torch.randn(batch, 4, 32, generator=g), mask, torch.randn(batch, 3, 32, generator=g)


def test_five_named_steps():
    assert STEPS == len(STEP_NAMES) == 5 and len(SECTIONS) == 6
    assert QUALITIES == ("coherence", "relevance", "completeness", "accuracy")


def test_shapes_and_attention(module: ReasoningModule):
    trace = module(*inputs())
    assert trace.states.shape == (2, 5, 32) and trace.values.shape == (2, 5)
    assert trace.patch_attention.shape == (2, 5, 4) and trace.robot_attention.shape == (2, 5, 3)
    torch.testing.assert_close(trace.patch_attention.sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(trace.robot_attention.sum(-1), torch.ones(2, 5))
    assert (trace.patch_attention[0, :, 2:] == 0).all(), "a step looked at a masked patch"


def test_a_robot_out_of_the_running_is_not_looked_at(module: ReasoningModule):
    trace = module(*inputs(), robot_mask=torch.tensor([[1, 0, 1], [1, 1, 1]]))
    assert (trace.robot_attention[0, :, 1] == 0).all() and (trace.robot_attention[1] > 0).all()


def test_steps_are_causal(module: ReasoningModule):
    """What step t adds reaches the steps from t on and none before."""
    trace = module(*inputs())
    for t in range(5):
        kept = module.step_embedding.data[t].clone()
        module.step_embedding.data[t] += 1.0
        moved = module(*inputs())
        module.step_embedding.data[t] = kept
        assert torch.equal(moved.states[:, :t], trace.states[:, :t])
        assert all(not torch.allclose(moved.states[:, later], trace.states[:, later], atol=1e-4) for later in range(t, 5))


def test_every_input_reaches_the_last_step(module: ReasoningModule):
    context, patches, mask, cards = inputs()
    last = module(context, patches, mask, cards).states[:, -1]
    for changed in ((context.flip(1), patches, mask, cards), (context, patches.flip(2), mask, cards), (context, patches, mask, cards.flip(2))):
        assert not torch.allclose(module(*changed).states[:, -1], last, atol=1e-3)


def test_quality_depends_on_steps_and_chain():
    torch.manual_seed(0)
    heads = QualityHeads(tiny_config())
    states, chain = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    scores = heads(states, chain)
    assert scores.shape == (2, 4)
    for t in range(5):
        changed = chain.clone()
        changed[:, t] += torch.randn(32)
        assert not torch.allclose(heads(states, changed), scores, atol=1e-5), f"section {t} is not read"
    assert not torch.allclose(heads(states.flip(1), chain), scores, atol=1e-5)
