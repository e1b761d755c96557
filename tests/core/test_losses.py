"""Losses against numbers worked out by hand or by torch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fakes import random_inputs

from bitmar_core.model.bitmar import ABSENT, BitMar
from bitmar_core.training.losses import any_of, key_loss, language_loss, likeness_loss, scope_loss, selection_loss, total


def test_any_of_is_minus_log_of_the_mass_on_gold():
    logits = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]]).log()
    gold = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert float(any_of(logits, gold)) == pytest.approx(-(math.log(0.5) + math.log(0.6)) / 2, abs=1e-6)


def test_any_of_with_one_gold_is_cross_entropy():
    logits, target = torch.randn(4, 5), torch.tensor([0, 3, 2, 4])
    torch.testing.assert_close(any_of(logits, F.one_hot(target, 5).float()), F.cross_entropy(logits, target))


def test_any_of_is_nought_where_all_are_gold_and_ignores_absent_robots():
    assert float(any_of(torch.randn(2, 3), torch.ones(2, 3))) == pytest.approx(0.0, abs=1e-6)
    logits = torch.tensor([[1.0, ABSENT, 2.0]], requires_grad=True)
    loss = any_of(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), F.cross_entropy(torch.tensor([[1.0, 2.0]]), torch.tensor([0])))
    assert logits.grad.isfinite().all() and logits.grad[0, 1] == 0


def test_selection_loss_parts(model: BitMar):
    output = model(**random_inputs(model.config).call())
    gold = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1]]).float()
    parts = selection_loss(output, gold)
    assert set(parts) == {"robot", "steps", "direct", "suited", "value"} and all(p.ndim == 0 and p.isfinite() for p in parts.values())
    torch.testing.assert_close(parts["robot"], any_of(output.policy_logits, gold))
    torch.testing.assert_close(parts["steps"], torch.stack([any_of(output.step_logits[:, s], gold) for s in range(5)]).mean())
    torch.testing.assert_close(parts["suited"], F.binary_cross_entropy_with_logits(output.suited_logits, gold))
    hit = (output.step_logits.detach().softmax(-1) * gold.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(parts["value"], F.binary_cross_entropy_with_logits(output.trace.values, hit))


def test_robots_out_of_the_running_do_not_count_as_unsuited(model: BitMar):
    mask = torch.tensor([[1.0, 1.0, 0.0]]).expand(4, -1)
    gold = torch.tensor([[1.0, 0.0, 0.0]]).expand(4, -1)
    output = model(**random_inputs(model.config).call(robot_mask=mask))
    parts = selection_loss(output, gold, mask)
    assert all(p.isfinite() for p in parts.values())
    gradient = torch.autograd.grad(parts["suited"], output.suited_logits)[0]
    assert (gradient[:, 2] == 0).all() and (gradient[:, :2] != 0).all()


def test_likeness_loss():
    a = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]])
    b = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])  # distances 0, 1 and 2
    assert float(likeness_loss(a, b, torch.ones(1, 3))) == pytest.approx(1.0)
    assert float(likeness_loss(a, b, torch.tensor([[1.0, 0.0, 0.0]]))) == pytest.approx(0.0)
    assert float(likeness_loss(a, b, torch.zeros(1, 3))) == 0.0


def test_scope_loss_weighs_both_classes_the_same():
    scope, labels = torch.tensor([[2.0, -1.0, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    reading = SimpleNamespace(scope=scope)
    each = F.binary_cross_entropy_with_logits(scope, labels, reduction="none")[0]
    assert float(scope_loss(reading, labels, torch.ones(1, 4))) == pytest.approx(float(each[0] / 2 + each[1:].mean() / 2))
    assert float(scope_loss(reading, labels, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))) == pytest.approx(float(each[0] / 2 + each[1] / 2))
    assert float(scope_loss(reading, labels, torch.zeros(1, 4))) == 0.0


def test_key_loss_is_small_where_keys_find_their_story():
    stories = torch.eye(4)
    owner = torch.tensor([2, 0])
    assert float(key_loss(stories[owner], stories, owner)) < 1e-4
    assert float(key_loss(stories[[1, 1]], stories, owner)) > 5
    assert float(key_loss(torch.full((2, 4), 0.5), stories, owner)) == pytest.approx(math.log(4), abs=1e-5)


def test_language_loss_skips_what_is_no_target():
    logits, targets = torch.randn(2, 3, 7), torch.tensor([[1, -100, 4], [-100, -100, 6]])
    picked = torch.stack([logits[0, 0], logits[0, 2], logits[1, 2]])
    torch.testing.assert_close(language_loss(logits, targets), F.cross_entropy(picked, torch.tensor([1, 4, 6])))
    torch.testing.assert_close(language_loss(logits, targets, 0.1), F.cross_entropy(picked, torch.tensor([1, 4, 6]), label_smoothing=0.1))


def test_total_is_a_weighted_sum_and_wants_every_weight():
    parts = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(total(parts, {"a": 1.0, "b": 0.5, "c": 9.0})) == 3.5
    with pytest.raises(KeyError):
        total(parts, {"a": 1.0})
