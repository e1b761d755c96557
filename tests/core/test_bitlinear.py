"""BitLinear against a straight-through reference written in plain steps, its bounds, and its frozen form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bitmar_core.model.bitlinear import ACTIVATION_CLAMP, SCALE_MAX, SCALE_MIN, BitLinear, quantise_activations, set_quantisation, ternarise


def reference(x: Tensor, weight: Tensor, threshold: float) -> Tensor:
    """The same layer as formulas, gradients by `x + (quantised - x).detach()`."""
    gamma = weight.abs().mean().clamp(SCALE_MIN, SCALE_MAX)
    ternary = torch.where(weight / gamma > threshold, 1.0, torch.where(weight / gamma < -threshold, -1.0, 0.0))
    step = x.abs().amax(-1, keepdim=True).clamp_min(SCALE_MIN) / 127
    quantised = (x / step).round() * step
    return F.linear(x + (quantised - x).detach(), weight + (ternary * gamma - weight).detach())


@pytest.mark.parametrize("threshold", [0.5, 2 / 3, 0.9])
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (2, 3, 4, 24)])
def test_forward_and_gradient_equal_the_straight_through_reference(shape: tuple[int, ...], threshold: float):
    torch.manual_seed(3)
    layer = BitLinear(24, 10, threshold=threshold)
    x, upstream = torch.randn(shape) * 3, torch.randn(*shape[:-1], 10)
    mine, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    y, expected = layer(mine), reference(plain, weight, threshold)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    y.backward(upstream)
    expected.backward(upstream)
    # The reference's dL/dx goes through the ternary weights and its dL/dW through the quantised inputs, as ours.
    torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-5, atol=1e-4)


def test_bias_is_added_and_trained():
    layer = BitLinear(8, 3, bias=True)
    x = torch.randn(4, 8)
    before = layer(x)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    torch.testing.assert_close(layer(x), before + torch.tensor([1.0, -2.0, 3.0]))
    layer(x).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 4.0))


def test_no_gradient_where_none_is_asked_for():
    layer = BitLinear(8, 3)
    layer.weight.requires_grad_(False)
    x = torch.randn(4, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad.abs().sum() > 0


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=6, max_size=6), st.floats(0.0, 1.5))
def test_weights_become_ternary(values: list[float], threshold: float):
    weight = torch.tensor(values).view(2, 3)
    ternary, scale = ternarise(weight, threshold)
    assert set(ternary.flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert SCALE_MIN * 0.999 <= float(scale) <= SCALE_MAX * 1.001
    assert torch.equal(ternary, weight.sign() * (ternary != 0)), "a sign was turned"


def test_threshold_sets_the_share_of_zeros():
    """P(|w| < t E|w|) on Gaussian weights: 0.31 at 0.5 and 0.40 at 2/3."""
    weight = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    assert float((ternarise(weight, 0.5)[0] == 0).float().mean()) == pytest.approx(0.31, abs=0.01)
    assert float((ternarise(weight, 2 / 3)[0] == 0).float().mean()) == pytest.approx(0.405, abs=0.01)


@pytest.mark.parametrize(("value", "expected"), [(0.0, SCALE_MIN), (1e-9, SCALE_MIN), (0.25, 0.25), (1e9, SCALE_MAX)])
def test_scale_stays_in_bounds(value: float, expected: float):
    ternary, scale = ternarise(torch.full((4, 4), value), 2 / 3)
    assert float(scale) == pytest.approx(expected)
    assert ternary.isfinite().all()


def test_scaled_weights_are_clamped_to_ten():
    """With the scale at its upper bound w/γ is 10^35; a threshold over the clamp shows that ±10 is where it ends."""
    weight = torch.tensor([[1e38, -1e38]])
    assert ternarise(weight, 9.99)[0].tolist() == [[1.0, -1.0]]
    assert ternarise(weight, 10.0)[0].tolist() == [[0.0, 0.0]]


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_activations_are_eight_bit(values: list[float]):
    x = torch.tensor([values])
    quantised, step = quantise_activations(x)
    assert torch.equal(quantised, quantised.round()) and float(quantised.abs().max()) <= 127
    clamped = x.clamp(-ACTIVATION_CLAMP, ACTIVATION_CLAMP)
    assert ((quantised * step - clamped).abs() <= step * 0.501).all(), "more than half a step away"


def test_activations_beyond_a_million_count_as_a_million():
    layer = BitLinear(4, 3)
    big = torch.tensor([[1e6, 5.0, 0.0, -1e6]])
    assert torch.equal(layer(big * torch.tensor([1e6, 1.0, 1.0, 1e6])), layer(big))
    assert layer(torch.full((1, 4), float("inf"))).isfinite().all()


def test_zero_input_and_zero_weight_give_zero_and_finite_gradients():
    layer = BitLinear(6, 4)
    x = torch.zeros(2, 6, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 4))
    assert x.grad.isfinite().all() and layer.weight.grad.isfinite().all()
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(layer(torch.randn(2, 6)), torch.zeros(2, 4))


@pytest.mark.parametrize("bias", [False, True])
def test_frozen_equals_unfrozen(bias: bool):
    torch.manual_seed(1)
    layer = BitLinear(40, 12, bias=bias)
    x = torch.randn(3, 5, 40)
    before = layer(x)
    layer.freeze()
    assert layer.weight is None and layer.ternary.dtype == torch.int8 and "weight" not in dict(layer.named_parameters())
    assert torch.equal(layer(x), before)
    layer.freeze()  # a second time changes nothing
    assert torch.equal(layer(x), before)


def test_load_ternary_takes_over_and_checks_the_shape():
    layer, other = BitLinear(6, 4), BitLinear(6, 4)
    x = torch.randn(2, 6)
    other(x)
    other.load_ternary(*layer.quantised_weight())
    assert torch.equal(other(x), layer(x))
    with pytest.raises(ValueError, match=r"\(4, 5\) do not fit \(4, 6\)"):
        other.load_ternary(torch.zeros(4, 5), torch.tensor(1.0))


def test_each_token_is_quantised_by_itself():
    layer = BitLinear(16, 8)
    x = torch.randn(1, 3, 16)
    alone = layer(x[:, :1])
    x[:, 2] *= 1000
    assert torch.equal(layer(x)[:, :1], alone)


def test_fresh_layers_keep_the_scale():
    torch.manual_seed(0)
    y = BitLinear(512, 512)(torch.randn(64, 512))
    assert float(y.detach().std()) == pytest.approx(1.0, abs=0.05)


@torch.no_grad()
def test_fading_runs_from_full_precision_to_ternary():
    torch.manual_seed(0)
    layer, x = BitLinear(32, 16), torch.randn(4, 32)
    ternary = layer(x)
    set_quantisation(layer, 0.0)
    plain = layer(x)
    torch.testing.assert_close(plain, F.linear(x, layer.weight))
    distances = []
    for amount in (0.25, 0.5, 0.75, 0.999999):
        set_quantisation(layer, amount)
        distances.append(float((layer(x) - ternary).norm()))
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-3
    assert float((plain - ternary).norm()) > distances[0]
    set_quantisation(layer, 1.0)
    assert torch.equal(layer(x), ternary)


def test_bfloat16_training_is_close_to_serving():
    """Integers are exact in bfloat16; what autocast rounds is the sum, by at most 2^-8 of itself."""
    torch.manual_seed(0)
    layer, x = BitLinear(256, 64), torch.randn(8, 256)
    served = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        trained = layer(x)
    assert trained.dtype == torch.float32
    assert ((trained - served).abs() <= served.abs() * 2**-8 + 1e-6).all()
