"""Photo in, patch features out: our own small convolutional encoder, or DINOv2 when the user brings it.

Letters in shapes: B batch, C channels, H and W height and width in pixels, P patches, D feature width.

Both encoders take normalised pixels (B, 3, H, W) as `bitmar_core.data.images.to_pixels` makes them, say by themselves
how they want them (`image_size`, `mean`, `std`) and give `VisionFeatures`, so the rest of the model need not know which is in use.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.errors import CheckpointError, ModelMissingError

# (output channels, stride) of the thirteen separable blocks of MobileNet v1: Howard et al. 2017, arXiv 1704.04861, table 1.
MOBILENET_V1_BLOCKS: tuple[tuple[int, int], ...] = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # fmt: skip


@dataclass(frozen=True)
class VisionFeatures:
    """What an encoder saw."""

    patches: Tensor
    """(B, P, D), row by row from the top left corner"""
    pooled: Tensor
    """(B, D), the whole photo in one vector"""


@dataclass(frozen=True, kw_only=True)
class CompactVisionConfig:
    """Topology and preprocessing of `CompactVisionEncoder`."""

    image_size: int = 224
    """side of the square input in pixels; a multiple of `stride`"""
    stem_width: int = 32
    """channels after the first convolution"""
    width_multiplier: float = 1.0
    """scales every channel count; 1.0 is the size that the warm start fits"""
    blocks: tuple[tuple[int, int], ...] = MOBILENET_V1_BLOCKS
    """(output channels, stride) of each separable block"""
    mean: tuple[float, float, float] = (128 / 255,) * 3
    """subtracted from pixels in 0..1"""
    std: tuple[float, float, float] = (128 / 255,) * 3
    """divides what is left"""

    def __post_init__(self) -> None:
        # Lists are what JSON and YAML give; a frozen config holds tuples so that it stays hashable.
        object.__setattr__(self, "blocks", tuple((int(c), int(s)) for c, s in self.blocks))
        object.__setattr__(self, "mean", tuple(float(x) for x in self.mean))
        object.__setattr__(self, "std", tuple(float(x) for x in self.std))
        if not self.blocks or any(c < 1 or s not in (1, 2) for c, s in self.blocks):
            raise ValueError(f"blocks: expected pairs of channels >= 1 and stride 1 or 2, got {self.blocks}")
        if self.width_multiplier <= 0:
            raise ValueError(f"width_multiplier: expected a number above 0, got {self.width_multiplier}")
        if self.stem_width < 1:
            raise ValueError(f"stem_width: expected at least 1, got {self.stem_width}")
        if self.image_size < self.stride or self.image_size % self.stride:
            raise ValueError(f"image_size: expected a multiple of {self.stride}, got {self.image_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean, std: expected three numbers each, std above 0, got {self.mean} and {self.std}")

    @property
    def stride(self) -> int:
        """Pixels of the photo to one patch, along one side; the stem halves the photo once."""
        return 2 * math.prod(stride for _, stride in self.blocks)

    def channels(self, count: int) -> int:
        return max(1, round(count * self.width_multiplier))


def tiny_vision_config() -> CompactVisionConfig:
    """For tests: 32 pixels, 2 x 2 patches, 16 wide."""
    return CompactVisionConfig(image_size=32, stem_width=8, blocks=((8, 2), (16, 2), (16, 2)))


def _same_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution with TensorFlow's "SAME" padding: at stride 2 the odd row and column go to the bottom right."""
    if conv.stride[0] == 2:
        return conv(F.pad(x, (0, 1, 0, 1)))
    return F.conv2d(x, conv.weight, conv.bias, padding=1, groups=conv.groups)


class SeparableBlock(nn.Module):
    """3x3 depthwise, then 1x1 across channels, each followed by ReLU6. (B, C, H, W) -> (B, C', H / stride, W / stride)

    No batch norm: the warm start has it folded into weights and biases, and folded is what is served.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride=stride, groups=channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(_same_conv(x, self.depthwise))
        return F.relu6(self.pointwise(x))


class CompactVisionEncoder(nn.Module):
    """Our own encoder: MobileNet v1 up to its last feature map, which is read as 7 x 7 = 49 patches of 1024."""

    def __init__(self, config: CompactVisionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CompactVisionConfig()
        channels = config.channels(config.stem_width)
        self.stem = nn.Conv2d(3, channels, 3, stride=2)
        blocks = []
        for count, stride in config.blocks:
            blocks.append(SeparableBlock(channels, config.channels(count), stride))
            channels = config.channels(count)
        self.blocks = nn.ModuleList(blocks)
        self.width = channels
        self.image_size = config.image_size
        self.num_patches = (config.image_size // config.stride) ** 2
        self.mean, self.std = config.mean, config.std
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Every weight normal with std sqrt(2 / fan_in) (He et al. 2015), so that ReLU keeps the scale; every bias 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in))
                module.bias.zero_()

    def forward(self, pixels: Tensor) -> VisionFeatures:
        """pixels: (B, 3, H, W) normalised, H and W multiples of the stride -> patches (B, P, D), pooled (B, D)"""
        stride = self.config.stride
        if pixels.dim() != 4 or pixels.shape[1] != 3 or pixels.shape[2] % stride or pixels.shape[3] % stride:
            raise ValueError(f"pixels: expected (B, 3, H, W), H and W multiples of {stride}, got {tuple(pixels.shape)}")
        x = F.relu6(_same_conv(pixels, self.stem))  # (B, C, H/2, W/2)
        for block in self.blocks:
            x = block(x)
        patches = x.flatten(2).transpose(1, 2).contiguous()  # (B, P, D)
        return VisionFeatures(patches=patches, pooled=patches.mean(dim=1))  # pooled (B, D)


# Eight-bit storage. Weights are symmetric per output channel, scale = max|w| / 127, kept in float32; biases stay float16.
# Worked in float32 at run time: this is a way to store, not a way to compute.


def pack_int8(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict -> int8 `name` and float32 `name.scale` (C, 1, 1, 1) for every weight, float16 for every bias."""
    packed = {}
    for name, tensor in state.items():
        if tensor.dim() < 2:
            packed[name] = tensor.half()
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(dim=1).clamp(min=1e-8) / 127
        packed[name] = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8).view_as(tensor)
        packed[f"{name}.scale"] = scale.view(-1, *[1] * (tensor.dim() - 1))
    return packed


def unpack_int8(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict that `pack_int8` was given, up to half a step of each channel's scale."""
    return {
        name: tensor.float() * packed[f"{name}.scale"] if tensor.dtype == torch.int8 else tensor.float()
        for name, tensor in packed.items()
        if not name.endswith(".scale")
    }


def save_compact_encoder(encoder: CompactVisionEncoder, folder: str | Path, meta: dict | None = None) -> None:
    """Write `encoder.safetensors` (float16), `encoder_int8.safetensors` and `meta.json`, each beside and then renamed."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().float().contiguous() for name, tensor in encoder.state_dict().items()}
    files = {
        "encoder.safetensors": {name: tensor.half() for name, tensor in state.items()},
        "encoder_int8.safetensors": pack_int8(state),
    }
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.part")
        (folder / f"{name}.part").replace(folder / name)
    text = json.dumps({"config": asdict(encoder.config), **(meta or {})}, indent=2)
    (folder / "meta.json.part").write_text(text + "\n", encoding="utf-8")
    (folder / "meta.json.part").replace(folder / "meta.json")


def load_compact_encoder(folder: str | Path, *, int8: bool = False) -> CompactVisionEncoder:
    """The encoder that `save_compact_encoder` wrote, in evaluation mode; int8 reads the eight-bit file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    weights = folder / ("encoder_int8.safetensors" if int8 else "encoder.safetensors")
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        encoder = CompactVisionEncoder(CompactVisionConfig(**meta["config"]))
        encoder.load_state_dict(unpack_int8(load_file(weights)))
    except FileNotFoundError as error:
        raise ModelMissingError(f"{folder}: no vision encoder here ({Path(error.filename or weights).name} is missing)") from None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{folder}: the vision encoder here is damaged ({cause}); fetch or train it again") from None
    return encoder.eval()


def save_vision_file(encoder: CompactVisionEncoder, path: Path) -> None:
    """Write one file that holds eight-bit weights and the topology: what a checkpoint ships."""
    from safetensors.torch import save

    from bitmar_core.paths import write_atomic

    state = {name: tensor.detach().float().contiguous() for name, tensor in encoder.state_dict().items()}
    write_atomic(path, save(pack_int8(state), metadata={"config": json.dumps(asdict(encoder.config))}))


def load_vision_file(path: Path) -> CompactVisionEncoder:
    """The encoder that `save_vision_file` wrote, in evaluation mode.

    Raises:
        ModelMissingError: no such file. CheckpointError: damaged, not finite, or not a vision encoder.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelMissingError(f"{path} is missing; install the checkpoint again")
    try:
        with safe_open(path, framework="pt") as file:
            config = CompactVisionConfig(**json.loads((file.metadata() or {})["config"]))
            state = unpack_int8({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
        for name, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the tensor {name} is not finite")
        encoder = CompactVisionEncoder(config)
        encoder.load_state_dict(state)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({cause}); install the checkpoint again") from error
    return encoder.eval()


class DinoV2VisionEncoder(nn.Module):
    """DINOv2 (Oquab et al. 2023, arXiv 2304.07193) from a Hugging Face name or folder, with or without registers.

    Patches leave out the CLS token and the registers (Darcet et al. 2023, arXiv 2309.16588); pooled is CLS after the last norm.
    Frozen (the default) it has no gradients and stays in evaluation mode whatever the model around it does.
    """

    def __init__(
        self, name_or_path: str | Path = "facebook/dinov2-base", *, frozen: bool = True,
        image_size: int | None = None, local_files_only: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        name_or_path = str(name_or_path)
        try:
            from transformers import AutoModel
        except ImportError:
            raise ModelMissingError("DINOv2 needs the package transformers: pip install transformers") from None
        try:
            self.model = AutoModel.from_pretrained(name_or_path, local_files_only=local_files_only)
        except Exception as error:  # hub, network, JSON, safetensors and torch each raise their own kinds
            raise _dino_missing(name_or_path, error) from None
        settings = self.model.config
        if not str(settings.model_type).startswith("dinov2"):
            raise ModelMissingError(f"{name_or_path}: this is a {settings.model_type} model, not DINOv2; name one such as facebook/dinov2-base")
        preprocessing = _dino_preprocessing(name_or_path, local_files_only)
        self.patch_size = int(settings.patch_size)
        self.registers = int(getattr(settings, "num_register_tokens", 0) or 0)
        self.width = int(settings.hidden_size)
        # Trained at 518, published to be used at 224: the checkpoint's own crop, rounded down to whole patches.
        side = image_size or preprocessing["image_size"]
        self.image_size = max(1, side // self.patch_size) * self.patch_size
        self.num_patches = (self.image_size // self.patch_size) ** 2
        self.mean, self.std = preprocessing["mean"], preprocessing["std"]
        self.frozen = frozen
        if frozen:
            self.model.requires_grad_(False)
        self.train(not frozen)

    def train(self, mode: bool = True) -> DinoV2VisionEncoder:
        return super().train(mode and not self.frozen)

    def forward(self, pixels: Tensor) -> VisionFeatures:
        """pixels: (B, 3, H, W) normalised, H and W multiples of the patch size -> patches (B, P, D), pooled (B, D)"""
        side = self.patch_size
        if pixels.dim() != 4 or pixels.shape[1] != 3 or pixels.shape[2] % side or pixels.shape[3] % side:
            raise ValueError(f"pixels: expected (B, 3, H, W), H and W multiples of {side}, got {tuple(pixels.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            hidden = self.model(pixel_values=pixels).last_hidden_state  # (B, 1 + registers + P, D)
        return VisionFeatures(patches=hidden[:, 1 + self.registers :], pooled=hidden[:, 0])


def _dino_missing(name_or_path: str, error: Exception) -> ModelMissingError:
    folder = Path(name_or_path)
    if folder.is_dir():
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return ModelMissingError(f"{name_or_path}: no usable DINOv2 model in this folder ({cause[:160]})")
    return ModelMissingError(
        f"{name_or_path}: this DINOv2 model is neither a folder here nor in the Hugging Face cache, and could not be fetched;"
        f" fetch it once while online (hf download {name_or_path}) or give the folder that holds it"
    )


def _dino_preprocessing(name_or_path: str, local_files_only: bool) -> dict:
    """The checkpoint's own crop size, mean and std; those DINOv2 was trained with (ImageNet's) where it names none."""
    from transformers.utils import cached_file

    found: dict = {}
    try:
        file = cached_file(
            name_or_path, "preprocessor_config.json", local_files_only=local_files_only,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        if file:
            found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a preprocessor file that cannot be read is the same as none
        found = {}
    size = found.get("crop_size") or found.get("size") or 224
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or 224
    return {
        "image_size": int(size),
        "mean": tuple(found.get("image_mean") or (0.485, 0.456, 0.406)),
        "std": tuple(found.get("image_std") or (0.229, 0.224, 0.225)),
    }
