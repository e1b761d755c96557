"""FIBER fusion."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_config

from bitmar_core.model.fusion import Fusion


@pytest.fixture
def fusion() -> Fusion:
    torch.manual_seed(0)
    return Fusion(tiny_config()).eval()


def gate(fusion: Fusion, alpha: float) -> Fusion:
    with torch.no_grad():
        for block in fusion.blocks:
            block.alpha.fill_(alpha)
    return fusion


def test_training_starts_with_the_identity(fusion: Fusion):
    text, mask, features = torch.randn(2, 5, 32), torch.ones(2, 5), torch.randn(2, 4, 64)
    assert all(float(block.alpha.detach()) == 0 for block in fusion.blocks)
    fused, patches, _ = fusion(text, mask, features)
    assert torch.equal(fused, text)
    assert torch.equal(patches, fusion.project(features, None, 2)[0])
    gate(fusion, 0.5)
    fused, patches, _ = fusion(text, mask, features)
    assert not torch.allclose(fused, text) and not torch.allclose(patches, fusion.project(features, None, 2)[0])


def test_both_sides_read_each_other(fusion: Fusion):
    gate(fusion, 0.5)
    text, mask, features = torch.randn(1, 5, 32), torch.ones(1, 5), torch.randn(1, 4, 64)
    fused, patches, _ = fusion(text, mask, features)
    assert not torch.allclose(fusion(text, mask, features.flip(2))[0], fused, atol=1e-3)
    assert not torch.allclose(fusion(text.flip(2), mask, features)[1], patches, atol=1e-3)


def test_no_photo_is_the_learned_token_alone(fusion: Fusion):
    text, mask = torch.randn(2, 5, 32), torch.ones(2, 5)
    _, patches, seen = fusion(text, mask, None)
    assert patches.shape == (2, 1, 32) and seen.all()
    assert torch.equal(patches[0, 0], fusion.no_image)


def test_rows_without_a_photo_in_a_mixed_batch_are_as_if_alone(fusion: Fusion):
    gate(fusion, 0.7)
    text, mask, features = torch.randn(2, 5, 32), torch.ones(2, 5), torch.randn(2, 4, 64)
    fused, patches, seen = fusion(text, mask, features, torch.tensor([True, False]))
    assert seen.tolist() == [[True] * 4, [True, False, False, False]]
    torch.testing.assert_close(fused[:1], fusion(text[:1], mask[:1], features[:1])[0], rtol=0, atol=1e-4)
    alone, token, _ = fusion(text[1:], mask[1:], None)
    torch.testing.assert_close(fused[1:], alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(patches[1:, :1], token, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 5, 64), (2, 4, 63), (2, 4)])
def test_features_of_another_shape_are_refused(fusion: Fusion, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"do not fit \(2, 4, 64\)"):
        fusion(torch.randn(2, 5, 32), torch.ones(2, 5), torch.randn(shape))
