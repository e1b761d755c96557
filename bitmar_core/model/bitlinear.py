"""BitLinear: a linear layer with ternary weights and 8-bit activations (BitNet b1.58, arXiv 2402.17764; BitNet, 2310.11453).

Numerics: master weights are float32. In training and in serving the product is taken between integers, activations in
[-127, 127] and weights in {-1, 0, 1}, and the scales are applied after it. In float32 the product is exact up to 2^24, so a
float32 training graph is what is served. Under bfloat16 autocast the factors are exact too, but each result is rounded to
bfloat16, by up to 2^-8 of itself: training in it differs from serving by that much.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE_MIN, SCALE_MAX = 1e-5, 1e3
"""Bounds of the weight scale γ; the activation maximum is floored at SCALE_MIN too."""
WEIGHT_CLAMP = 10.0
ACTIVATION_CLAMP = 1e6
QUANT_MAX = 127.0


def ternarise(weight: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Quantise weights to {-1, 0, 1} with one scale for the matrix.

    Differs from the paper's RoundClip (arXiv 2402.17764, eq. 1-3, threshold 0.5) by a threshold that is a parameter.

    Args:
        weight: (out, in), any float dtype.
        threshold: |w|/γ above which a weight is not zero.

    Returns:
        ternary weights (out, in) in the dtype of `weight`, and γ, a scalar: mean |w| in [1e-5, 1e3].
    """
    scale = weight.abs().mean().clamp(SCALE_MIN, SCALE_MAX)
    scaled = (weight / scale).clamp_(-WEIGHT_CLAMP, WEIGHT_CLAMP)
    return (scaled > threshold).to(weight.dtype).sub_((scaled < -threshold).to(weight.dtype)), scale


def quantise_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise activations to 8 bits, one scale a token (absmax; arXiv 2310.11453, eq. 4, per token).

    Args:
        x: (..., in).

    Returns:
        integers in [-127, 127] as floats (..., in), and the step (..., 1) to multiply them with.
    """
    x = x.float().clamp(-ACTIVATION_CLAMP, ACTIVATION_CLAMP)
    step = x.abs().amax(dim=-1, keepdim=True).clamp_min(SCALE_MIN) / QUANT_MAX
    return (x / step).round_().clamp_(-QUANT_MAX, QUANT_MAX), step


class _TernaryProduct(torch.autograd.Function):
    """y = (xq · step) (t · γ)ᵀ with the straight-through gradient: both roundings count as the identity.

    With g = dL/dy: dL/dx = γ g t and dL/dW = (g · step)ᵀ xq; the scales are constants. One function instead of a chain of
    them, so that quantising costs few passes over memory. Products are in `dtype`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, threshold: float, dtype: torch.dtype) -> Tensor:
        ternary, scale = ternarise(weight, threshold)
        # Flat rows throughout: matmul of a strided batch would copy the weights once a sample.
        quantised, step = quantise_activations(x.reshape(-1, x.shape[-1]))
        ternary, quantised = ternary.to(dtype), quantised.to(dtype)
        ctx.save_for_backward(quantised, ternary, step, scale)
        ctx.input_shape, ctx.input_dtype = x.shape, x.dtype
        return ((quantised @ ternary.T).float() * (step * scale)).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        quantised, ternary, step, scale = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = ((grad.to(ternary.dtype) @ ternary).to(ctx.input_dtype) * scale).view(ctx.input_shape)
        if ctx.needs_input_grad[1]:
            grad_weight = ((grad * step).to(quantised.dtype).T @ quantised).float()
        return grad_x, grad_weight, None, None


class BitLinear(nn.Module):
    """Linear layer whose weights are ternary and whose inputs are 8 bit.

    Args:
        in_features, out_features: sizes.
        bias: False in BitNet; True only where a pretrained layer that has one is taken over.
        threshold: see `ternarise`. Our default is 2/3 (40 % zeros on Gaussian weights against 31 % at 0.5).

    Shapes: (..., in_features) -> (..., out_features), float32.

    After `freeze()` the master weight is gone: `ternary` (int8) and `scale` are what is left and what is saved.
    `quantisation` (0 to 1) fades quantisation in while a pretrained layer is being taught to be ternary.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, threshold: float = 2 / 3) -> None:
        super().__init__()
        self.in_features, self.out_features, self.threshold = in_features, out_features, threshold
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("ternary", None)
        self.register_buffer("scale", None)
        self._dense: Tensor | None = None
        self.quantisation = 1.0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit-scale outputs for unit-scale inputs: normal with deviation 1/sqrt(in), divided by the gain of quantising.

        For Gaussian weights E|w| = 0.8 σ; at threshold t the ternary matrix has root mean square sqrt(P(|w| > t·γ)).
        """
        # On the meta device, where a checkpoint is loaded into, there is nothing to fill, and pretending to costs a second.
        if self.weight is None or self.weight.is_meta:
            return
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        with torch.no_grad():
            ternary, scale = ternarise(self.weight, self.threshold)
            rms = (ternary.square().mean().sqrt() * scale).clamp_min(1e-8)
            self.weight.mul_(self.in_features**-0.5 / rms)

    def quantised_weight(self) -> tuple[Tensor, Tensor]:
        """Ternary weights (out, in) as float32 and their scale, frozen or not."""
        if self.weight is None:
            return self.ternary.float(), self.scale
        return ternarise(self.weight.detach(), self.threshold)

    def freeze(self) -> None:
        """Drop the master weight and keep the ternary one. Serving needs nothing else; training is over."""
        if self.weight is None:
            return
        ternary, scale = self.quantised_weight()
        self.ternary, self.scale = ternary.to(torch.int8), scale
        self.weight = None

    def load_ternary(self, ternary: Tensor, scale: Tensor) -> None:
        """Take over stored ternary weights (out, in) int8 and their scale."""
        if tuple(ternary.shape) != (self.out_features, self.in_features):
            raise ValueError(f"ternary weights of shape {tuple(ternary.shape)} do not fit ({self.out_features}, {self.in_features})")
        self.weight = None
        self.ternary, self.scale, self._dense = ternary.to(torch.int8), scale.float(), None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.weight is None:
            if self._dense is None or self._dense.device != x.device:
                self._dense = self.ternary.float()
            xq, step = quantise_activations(x)
            y = F.linear(xq, self._dense) * (step * self.scale)
            return y if self.bias is None else y + self.bias
        if self.quantisation <= 0.0:
            return F.linear(x, self.weight, self.bias).float()
        if self.quantisation < 1.0:
            y = self._faded(x, self.weight)
        else:
            dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else torch.float32
            # Autocast would cast inside the function as well; the dtypes are chosen here.
            with torch.autocast(x.device.type, enabled=False):
                y = _TernaryProduct.apply(x, self.weight, self.threshold, dtype)
        return y if self.bias is None else y + self.bias

    def _faded(self, x: Tensor, weight: Tensor) -> Tensor:
        """Part full precision, part quantised, for teaching a pretrained layer; straight-through as well."""
        mix, x = self.quantisation, x.float()
        with torch.no_grad():
            ternary, scale = ternarise(weight, self.threshold)
            xq, step = quantise_activations(x)
            extra_weight, extra_x = mix * (ternary * scale - weight), mix * (xq * step - x)
        return F.linear(x + extra_x, weight + extra_weight).float()

    def extra_repr(self) -> str:
        state = "frozen" if self.weight is None else f"threshold={self.threshold:.3f}"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {state}"


def set_quantisation(module: nn.Module, amount: float) -> None:
    """Set how far every BitLinear in `module` is quantised: 0 full precision, 1 ternary."""
    for part in module.modules():
        if isinstance(part, BitLinear):
            part.quantisation = amount
