"""FIBER fusion: text and photo read each other (arXiv 2206.07643, section 3.1).

FIBER's block is h' = Norm(h + a + α·CrossAttn(a, other)) with a = SelfAttn(h). Ours gates the whole update,
h' = h + α·Norm(a + CrossAttn(a, other)), so that α = 0, where training starts, is exactly the identity.

Letters: B batch, T text tokens, P patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.layers import Attention, RMSNorm, key_mask


class FusionSide(nn.Module):
    """One modality's half of a block: x (B, N, D) reads other (B, M, D)."""

    def __init__(self, width: int, heads: int, threshold: float) -> None:
        super().__init__()
        self.input_norm = RMSNorm(width)
        self.self_attention = Attention(width, heads, threshold=threshold)
        self.cross_norm = RMSNorm(width)
        self.cross_attention = Attention(width, heads, threshold=threshold)
        self.output_norm = RMSNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None, other: Tensor, other_mask: Tensor | None) -> Tensor:
        """The update (B, N, D), to be gated and added."""
        a = self.self_attention(self.input_norm(x), mask=mask)
        return self.output_norm(a + self.cross_attention(self.cross_norm(a), other, mask=other_mask))


class FusionBlock(nn.Module):
    """Both halves with one learned gate α."""

    def __init__(self, width: int, heads: int, threshold: float) -> None:
        super().__init__()
        self.text = FusionSide(width, heads, threshold)
        self.image = FusionSide(width, heads, threshold)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, text: Tensor, text_mask: Tensor | None, patches: Tensor, patch_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        new_text = text + self.alpha * self.text(text, text_mask, patches, patch_mask)
        return new_text, patches + self.alpha * self.image(patches, patch_mask, text, text_mask)


class Fusion(nn.Module):
    """Projects patches to the model's width and lets both sides read each other.

    Shapes: text (B, T, D), text_mask (B, T), features (B, P, W) or None, has_image (B,) bool or None
    -> fused text (B, T, D), fused patches (B, P or 1, D), patch mask (B, P or 1) bool.

    Where there is no image a learned "no image" token stands alone in place of the patches.
    """

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        width, threshold = config.text.width, config.text.threshold
        self.patch_norm = RMSNorm(config.vision.width)
        self.patch_projection = BitLinear(config.vision.width, width, threshold=threshold)
        self.patch_positions = nn.Parameter(torch.randn(config.vision.patches, width) * 0.02)
        self.no_image = nn.Parameter(torch.randn(width) * 0.5)
        self.blocks = nn.ModuleList(FusionBlock(width, config.fusion.heads, threshold) for _ in range(config.fusion.layers))

    def project(self, features: Tensor | None, has_image: Tensor | None, batch: int) -> tuple[Tensor, Tensor]:
        """Patches (B, P, D) and their mask (B, P); the no-image token (B, 1, D) where `features` is None."""
        if features is None:
            return self.no_image.expand(batch, 1, -1), torch.ones(batch, 1, dtype=torch.bool, device=self.no_image.device)
        if features.ndim != 3 or features.shape[1:] != (len(self.patch_positions), self.patch_norm.weight.shape[0]):
            expected = (batch, len(self.patch_positions), self.patch_norm.weight.shape[0])
            raise ValueError(f"vision features of shape {tuple(features.shape)} do not fit {expected}")
        patches = self.patch_projection(self.patch_norm(features)) + self.patch_positions
        mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        if has_image is None:
            return patches, mask
        first = torch.zeros_like(mask)
        first[:, 0] = True
        absent = ~has_image.bool()[:, None]
        patches = torch.where((absent & first).unsqueeze(-1), self.no_image, patches)
        return patches, torch.where(absent, first, mask)

    def forward(self, text: Tensor, text_mask: Tensor | None, features: Tensor | None, has_image: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        patches, patch_mask = self.project(features, has_image, len(text))
        seen_text, seen_patches = key_mask(text_mask), key_mask(patch_mask)
        for block in self.blocks:
            text, patches = block(text, seen_text, patches, seen_patches)
        return text, patches, patch_mask
