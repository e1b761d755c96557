"""Both encoders: shapes, the TensorFlow padding, storage, and DINOv2 through the very path that a downloaded one takes."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bitmar_core.data.images import to_pixels
from bitmar_core.errors import CheckpointError, ModelMissingError
from bitmar_core.model.vision_encoder import (
    CompactVisionConfig,
    CompactVisionEncoder,
    DinoV2VisionEncoder,
    VisionFeatures,
    load_compact_encoder,
    pack_int8,
    save_compact_encoder,
    tiny_vision_config,
    unpack_int8,
)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return CompactVisionEncoder(tiny_vision_config()).eval()


def test_base_is_49_patches_of_1024():
    encoder = CompactVisionEncoder()
    seen = encoder(torch.zeros(2, 3, 224, 224))
    assert (encoder.width, encoder.num_patches, encoder.image_size) == (1024, 49, 224)
    assert seen.patches.shape == (2, 49, 1024) and seen.pooled.shape == (2, 1024)
    assert sum(p.numel() for p in encoder.parameters()) == 3_196_032  # MobileNet v1 without its classifier, batch norm folded


def test_tiny_shapes_and_gradients(tiny):
    pixels = to_pixels(Image.new("RGB", (40, 30), "red"), tiny.image_size, tiny.mean, tiny.std)[None]
    seen = tiny(pixels)
    assert isinstance(seen, VisionFeatures)
    assert seen.patches.shape == (1, tiny.num_patches, tiny.width) == (1, 4, 16)
    torch.testing.assert_close(seen.pooled, seen.patches.mean(1))
    tiny(torch.randn(2, 3, 32, 32)).pooled.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tiny.parameters())


def test_patches_run_row_by_row(tiny):
    """The first patch is the top left one, the second its right neighbour: what a patch cannot see does not change it."""
    pixels = torch.zeros(1, 3, 64, 64)  # 4 x 4 patches of 16 pixels; the field of view of a patch is 31 pixels
    pixels[:, :, 63:, :1] = 50.0  # the bottom left corner
    changed = (tiny(pixels).patches != tiny(torch.zeros(1, 3, 64, 64)).patches).any(dim=2)[0]  # (P,)
    assert changed.nonzero().flatten().tolist() == [12]


def test_other_sizes_that_the_stride_divides(tiny):
    assert tiny(torch.zeros(1, 3, 48, 32)).patches.shape == (1, 6, 16)
    for shape in [(3, 32, 32), (1, 1, 32, 32), (1, 3, 33, 32)]:
        with pytest.raises(ValueError, match="pixels: expected"):
            tiny(torch.zeros(shape))


def test_stride_two_pads_bottom_right_as_tensorflow_does(tiny):
    pixels = torch.randn(1, 3, 32, 32)
    by_hand = F.conv2d(F.pad(pixels, (0, 1, 0, 1)), tiny.stem.weight, tiny.stem.bias, stride=2)
    first = by_hand[0, :, 0, 0]
    expected = (tiny.stem.weight * pixels[0, :, 0:3, 0:3]).sum((1, 2, 3)) + tiny.stem.bias  # no padding at the top left
    torch.testing.assert_close(first, expected)
    seen = {}
    tiny.blocks[0].register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    tiny(pixels)
    torch.testing.assert_close(seen["x"], F.relu6(by_hand))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 30),
        ("image_size", 0),
        ("width_multiplier", 0),
        ("blocks", ()),
        ("blocks", ((8, 3),)),
        ("stem_width", 0),
        ("std", (1, 0, 1)),
    ],
)
def test_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        CompactVisionConfig(**{field: value})


def test_int8_is_within_half_a_step(tiny):
    state = tiny.state_dict()
    packed = pack_int8(state)
    assert packed["blocks.0.pointwise.weight"].dtype == torch.int8
    back = unpack_int8(packed)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        if tensor.dim() > 1:
            half_step = packed[f"{name}.scale"] * 0.5001
            assert ((back[name] - tensor).abs() <= half_step).all()


def test_saved_and_loaded(tiny, tmp_path):
    save_compact_encoder(tiny, tmp_path, {"seed": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.safetensors", "encoder_int8.safetensors", "meta.json"]
    pixels = torch.randn(2, 3, 32, 32)
    for int8, tolerance in [(False, 0.01), (True, 0.1)]:
        again = load_compact_encoder(tmp_path, int8=int8)
        assert again.config == tiny.config and not again.training
        torch.testing.assert_close(again(pixels).patches, tiny(pixels).patches, atol=tolerance, rtol=0.05)


def test_missing_and_damaged_weights(tiny, tmp_path):
    with pytest.raises(ModelMissingError, match="no vision encoder"):
        load_compact_encoder(tmp_path / "nowhere")
    save_compact_encoder(tiny, tmp_path)
    weights = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(weights[:-100])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_compact_encoder(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "meta.json").write_text('{"config": {"image_size": 31}}')
    with pytest.raises(CheckpointError, match="image_size"):
        load_compact_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(ModelMissingError):
        (tmp_path / "meta.json").unlink()
        load_compact_encoder(tmp_path)


def dino_folder(folder, registers):
    """A DINOv2 checkpoint in miniature, saved as the published ones are."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70, "patch_size": 14}
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    model.save_pretrained(folder)
    preprocessor = {
        "crop_size": {"height": 44, "width": 44}, "size": {"shortest_edge": 50}, "image_processor_type": "BitImageProcessor",
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model.eval()


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2(tmp_path, registers):
    model = dino_folder(tmp_path, registers)
    encoder = DinoV2VisionEncoder(tmp_path)
    assert encoder.image_size == 42 and encoder.num_patches == 9 and encoder.width == 16  # 44 rounded down to whole patches
    assert encoder.mean == (0.4, 0.5, 0.6) and encoder.std == (0.2, 0.3, 0.4)
    pixels = to_pixels(Image.new("RGB", (60, 60), "green"), encoder.image_size, encoder.mean, encoder.std)[None].repeat(2, 1, 1, 1)
    seen = encoder(pixels)
    assert seen.patches.shape == (2, 9, 16) and seen.pooled.shape == (2, 16)
    hidden = model(pixel_values=pixels).last_hidden_state.detach()
    torch.testing.assert_close(seen.pooled, hidden[:, 0])
    torch.testing.assert_close(seen.patches, hidden[:, -9:])


def test_dinov2_frozen_or_not(tmp_path):
    dino_folder(tmp_path, 0)
    frozen = DinoV2VisionEncoder(tmp_path).train()
    assert not frozen.model.training and not any(p.requires_grad for p in frozen.parameters())
    assert not frozen(torch.zeros(1, 3, 28, 28)).patches.requires_grad
    free = DinoV2VisionEncoder(tmp_path, frozen=False, image_size=28)
    assert free.model.training and free.num_patches == 4
    free(torch.zeros(1, 3, 28, 28)).pooled.sum().backward()
    assert any(p.grad is not None for p in free.parameters())


def test_dinov2_without_preprocessor_uses_imagenet_numbers(tmp_path):
    dino_folder(tmp_path, 0)
    (tmp_path / "preprocessor_config.json").unlink()
    encoder = DinoV2VisionEncoder(tmp_path)
    assert encoder.image_size == 224 and encoder.mean == (0.485, 0.456, 0.406)


def test_dinov2_missing_is_one_line(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "vit", "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}')
    for name in (str(empty), str(other), str(tmp_path / "nowhere"), "facebook/no-such-dinov2"):
        with pytest.raises(ModelMissingError) as caught:
            DinoV2VisionEncoder(name, local_files_only=True)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_colour_views_never_choose_among_grey_environments():
    from bitmar_core.training.distill_vision import environment_loss

    only_grey = torch.tensor([False, False, True])
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0]], requires_grad=True)
    labels = torch.tensor([0, -1])
    in_colour = environment_loss(logits, labels, torch.tensor([False, False]), only_grey)
    torch.testing.assert_close(in_colour, torch.tensor(2.0).log())  # two choices left, evenly
    in_colour.backward()
    assert logits.grad[0, 2] == 0 and (logits.grad[1] == 0).all()  # no pull on the grey class, none from a photo without label
    in_grey = environment_loss(logits, labels, torch.tensor([True, True]), only_grey)
    assert in_grey > 9  # the grey class is a choice again
    of_grey_class = environment_loss(logits, torch.tensor([2, -1]), torch.tensor([False, False]), only_grey)
    assert of_grey_class < 0.01


def test_views_are_half_grey_and_grey_photos_stay_grey():
    from bitmar_core.training.distill_vision import augment

    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=generator)
    squares[32:] = squares[32:, :1]
    views, is_grey = augment(squares, generator)
    assert views.shape == squares.shape and views.min() >= 0 and views.max() <= 1
    assert is_grey[32:].all() and 8 < is_grey[:32].sum() < 24
    spread = (views.amax(1) - views.amin(1)).flatten(1).amax(1)  # (B,)
    assert (spread[is_grey] < 1e-5).all() and (spread[~is_grey] > 0.05).all()
    again, _ = augment(squares, torch.Generator().manual_seed(5))
    torch.testing.assert_close(again, augment(squares, torch.Generator().manual_seed(5))[0])
