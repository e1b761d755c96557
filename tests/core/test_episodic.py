"""The maths of the episodic memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import random_candidates, random_inputs, set_scope

from bitmar_core.memory.episodic import Candidates
from bitmar_core.model.bitmar import BitMar, recall


def asked(model: BitMar) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Memory keys (B, E), encoder states (B, T, D) and mask (B, T) of random requests."""
    inputs = random_inputs(model.config)
    reading = model.read(inputs.ids, inputs.mask, inputs.features, inputs.has_image)
    return model.memory.make_key(reading.context), reading.text, reading.text_mask


def test_keys_have_unit_length(model: BitMar):
    keys = asked(model)[0]
    torch.testing.assert_close(keys.norm(dim=-1), torch.ones(4))
    assert model.memory.make_key(torch.zeros(1, 32)).isfinite().all()


def test_a_written_slot_is_recalled_exactly(model: BitMar):
    """In scope and with the request's own key: its value comes back, and its robot decides alone."""
    key, text, mask = asked(model)
    set_scope(model, 30.0)
    value = torch.randn(4, 1, model.config.memory.width)
    robots = torch.tensor([0.0, 1.0, 0.0]).expand(4, 1, 3)
    slot = Candidates(
        keys=key.unsqueeze(1), values=value, tokens=text.unsqueeze(1), token_mask=mask.unsqueeze(1), robots=robots, present=torch.ones(4, 1, dtype=torch.bool)
    )
    reading = model.memory.read(key, text, mask, slot)
    torch.testing.assert_close(reading.similarity, torch.ones(4, 1))
    torch.testing.assert_close(reading.context, value[:, 0])
    torch.testing.assert_close(recall(torch.full((4, 3), 1 / 3), reading, slot), robots[:, 0])


def test_the_likest_slot_weighs_most(model: BitMar):
    key, text, mask = asked(model)
    set_scope(model, 30.0)
    candidates = random_candidates(model.config)
    candidates.keys[:, 1] = key
    reading = model.memory.read(key, text, mask, candidates)
    assert (reading.weights.argmax(-1) == 1).all()
    # Attention is a softmax of cosine over temperature, since every scope is the same.
    expected = ((candidates.keys @ key.unsqueeze(-1)).squeeze(-1) / model.config.memory.temperature).softmax(-1)
    torch.testing.assert_close(reading.weights, expected, rtol=1e-4, atol=1e-5)


def test_a_doubtful_slot_decides_as_much_as_its_scope(model: BitMar):
    """Weights sum to the sigmoid of the scope where all slots share it; the policy keeps the rest."""
    set_scope(model, 0.5)
    key, text, mask = asked(model)
    candidates = random_candidates(model.config)
    reading = model.memory.read(key, text, mask, candidates)
    share = torch.sigmoid(torch.tensor(0.5))
    torch.testing.assert_close(reading.weights.sum(-1), share.expand(4))
    before = torch.randn(4, 3).softmax(-1)
    expected = (1 - share) * before + (reading.weights.unsqueeze(-1) * candidates.robots).sum(1)
    torch.testing.assert_close(recall(before, reading, candidates), expected)


def test_policy_and_decoder_learn_from_what_was_read(model: BitMar):
    set_scope(model.train(), 0.5)
    candidates = random_candidates(model.config)
    candidates.values.requires_grad_()
    output = model(**random_inputs(model.config).call(candidates=candidates))
    for result in (output.step_logits[..., 0], output.logits[..., 0]):
        (gradient,) = torch.autograd.grad(result.sum(), candidates.values, retain_graph=True)
        assert float(gradient.abs().min()) > 0


@pytest.mark.parametrize("training", [False, True])
def test_padding_slots_are_ignored(model: BitMar, training: bool):
    model.train(training)
    key, text, mask = asked(model)
    if not training:
        set_scope(model, 3.0)
    full = random_candidates(model.config, slots=2)
    padded = random_candidates(model.config, slots=5)
    for name in ("keys", "values", "tokens", "token_mask", "robots"):
        getattr(padded, name)[:, :2] = getattr(full, name)
    padded.present[:, 2:] = False
    padded.token_mask[:, 2:] = 0
    one, two = model.memory.read(key, text, mask, full), model.memory.read(key, text, mask, padded)
    torch.testing.assert_close(two.weights[:, :2], one.weights, rtol=0, atol=1e-5)
    assert (two.weights[:, 2:] == 0).all() and one.weights.sum() > 0
    torch.testing.assert_close(two.context, one.context, rtol=0, atol=1e-5)


def test_padding_inside_a_story_is_ignored(model: BitMar):
    key, text, mask = asked(model)
    candidates = random_candidates(model.config)
    candidates.token_mask[:, :, 4:] = 0
    scope = model.memory.read(key, text, mask, candidates).scope
    candidates.tokens[:, :, 4:] = 50.0
    assert torch.equal(model.memory.read(key, text, mask, candidates).scope, scope)


def test_no_slot_at_all_reads_nothing(model: BitMar):
    key, text, mask = asked(model)
    empty = replace(random_candidates(model.config), present=torch.zeros(4, 3, dtype=torch.bool))
    for training in (False, True):
        model.train(training)
        reading = model.memory.read(key, text, mask, empty)
        assert torch.equal(reading.context, torch.zeros(4, model.config.memory.width)) and (reading.weights == 0).all()


def test_out_of_scope_slots_change_nothing_in_use(model: BitMar):
    set_scope(model, -0.5)
    inputs = random_inputs(model.config)
    with torch.no_grad():
        plain = model(**inputs.call())
        output = model(**inputs.call(candidates=random_candidates(model.config)))
    for name in ("probabilities", "policy_logits", "step_logits", "logits", "quality_logits"):
        assert torch.equal(getattr(output, name), getattr(plain, name)), name
    assert (output.memory.weights == 0).all()


def test_in_scope_slots_do_change_the_answer(model: BitMar):
    set_scope(model, 0.5)
    inputs = random_inputs(model.config)
    output, plain = model(**inputs.call(candidates=random_candidates(model.config))), model(**inputs.call())
    for name in ("probabilities", "policy_logits", "logits"):
        assert not torch.allclose(getattr(output, name), getattr(plain, name), atol=1e-4), name
    torch.testing.assert_close(output.probabilities.sum(-1), torch.ones(4))


def test_training_gives_out_of_scope_slots_a_gradient(model: BitMar):
    model.train()
    set_scope(model, -0.5)
    key, text, mask = asked(model)
    candidates = random_candidates(model.config)
    candidates.values.requires_grad_()
    model.memory.read(key, text, mask, candidates).context.sum().backward()
    assert candidates.values.grad.abs().min() > 0


def test_scope_reads_both_texts(model: BitMar):
    key, text, mask = asked(model)
    candidates = random_candidates(model.config)
    scope = model.memory.read(key, text, mask, candidates).scope
    other = replace(candidates, tokens=candidates.tokens.flip(-1))
    assert not torch.allclose(model.memory.read(key, text, mask, other).scope, scope, atol=1e-3)
    assert not torch.allclose(model.memory.read(key, text.flip(-1), mask, candidates).scope, scope, atol=1e-3)


def test_a_robot_that_left_the_fleet_decides_nothing(model: BitMar):
    set_scope(model, 30.0)
    key, text, mask = asked(model)
    candidates = random_candidates(model.config)
    candidates.robots.zero_()
    before = torch.randn(4, 3).softmax(-1)
    reading = model.memory.read(key, text, mask, candidates)
    assert float(reading.weights.detach().sum()) == pytest.approx(4.0, abs=1e-4)
    assert torch.equal(recall(before, reading, candidates), before)


def test_reading_leaves_model_and_slots_as_they_were(model: BitMar):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    candidates = random_candidates(model.config)
    kept = {name: value.clone() for name, value in vars(candidates).items()}
    with torch.no_grad():
        model(**random_inputs(model.config).call(candidates=candidates))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(getattr(candidates, name), value) for name, value in kept.items())
