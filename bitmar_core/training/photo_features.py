"""Vision features of photos, in colour and in grey, for training on them without computing them again.

    python -m bitmar_core.training.photo_features --photos DIR --index FILE --vision DIR --out features.safetensors

`--index` names the photos, folder/file, a line each; the rows of the result are in that order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from bitmar_core.data.images import load_image
from bitmar_core.errors import MissingError
from bitmar_core.model.vision_encoder import CompactVisionEncoder, load_compact_encoder
from bitmar_core.training.distill_vision import grey, image_to_bytes, normalise


@torch.inference_mode()
def features_of(encoder: CompactVisionEncoder, squares: Tensor, *, in_grey: bool) -> Tensor:
    """Patch features (N, P, W) float16 of squares (N, 3, H, H) uint8."""
    pixels = squares.float() / 255
    with torch.autocast("cpu", torch.bfloat16):
        return encoder(normalise(grey(pixels) if in_grey else pixels, encoder)).patches.half()


def main(argv: list[str] | None = None) -> int:
    """Write the features; see the module's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--vision", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    from safetensors.torch import save_file

    if not args.index.is_file():
        raise MissingError(f"no file {args.index}; it names the photos, folder/file, a line each")
    names = [line.strip() for line in args.index.read_text(encoding="utf-8").splitlines() if line.strip()]
    encoder = load_compact_encoder(args.vision)
    colour, shades = [], []
    for at in range(0, len(names), 64):
        squares = torch.stack([image_to_bytes(load_image(args.photos / name), encoder.image_size) for name in names[at : at + 64]])
        colour.append(features_of(encoder, squares, in_grey=False))
        shades.append(features_of(encoder, squares, in_grey=True))
        print(f"{min(at + 64, len(names))}/{len(names)} photos", flush=True)
    beside = args.out.with_name(args.out.name + ".part")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"patches": torch.cat(colour), "patches_grey": torch.cat(shades)}, beside)
    beside.replace(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
