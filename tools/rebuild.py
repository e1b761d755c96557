"""Rebuild the shipped checkpoint from its teachers and data: language, sight, features, then choosing, writing and judging.

    python tools/rebuild.py --photos PHOTOS --teachers TEACHERS --captions captions.txt --out runs/rebuild

Each step saves its state; the same command goes on from where it stopped. See docs/training.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the four steps; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="one folder per environment")
    parser.add_argument("--teachers", type=Path, required=True, help="MobileNet file, photo index and scene labels")
    parser.add_argument("--captions", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--skip-photos", type=Path, help="JSON lines whose `image` must not be trained on")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from bitmar_core.training.distill_text import teacher_folder

    python, out = sys.executable, args.out
    index, features = args.teachers / "photos_index.txt", out / "features.safetensors"
    texts = [str(path) for path in sorted((ROOT / "assets" / "data").glob("[a-l]_*.jsonl"))]
    skip_vision = ["--exclude", str(args.skip_photos)] if args.skip_photos else []
    skip_robots = ["--skip-photos", str(args.skip_photos)] if args.skip_photos else []
    steps = [
        (out / "text" / "encoder.safetensors", ["-m", "bitmar_core.training.distill_text", "--out", str(out / "text"), "--steps", "2000", "--batch", "32", "--texts", *texts, str(args.captions)]),
        (out / "vision" / "meta.json", ["-m", "bitmar_core.training.distill_vision", "--photos", str(args.photos), "--teachers", str(args.teachers), "--out", str(out / "vision"), "--epochs", "4", *skip_vision]),
        (features, ["-m", "bitmar_core.training.photo_features", "--photos", str(args.photos), "--index", str(index), "--vision", str(out / "vision"), "--out", str(features)]),
        (out / "small" / "bitmar-small" / "manifest.json", [
            "-m", "bitmar_cli", "train", "robots", "--out", str(out / "small"), "--reader", str(teacher_folder() / "tokenizer.json"),
            "--text-encoder", str(out / "text" / "encoder.safetensors"), "--vision", str(out / "vision"),
            "--photo-features", str(features), "--photo-index", str(index), *skip_robots,
        ]),
    ]  # fmt: skip
    for result, command in steps:
        if result.exists():
            print(f"{result} is there")
            continue
        print("running:", " ".join(command[:2]), flush=True)
        code = subprocess.run([python, *command], cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
