"""What training needs besides text: photo features, and sentence vectors of what a person wrote about each task.

Both are computed once, by commands of their own, and read from safetensors; neither is shipped.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bitmar_core.data.robot_tasks import held_out

PLACES = {
    "underwater": ("underwater",),
    "rough": ("mountain", "mountain_gray", "forest", "forest_gray", "forest_bamboo", "forest_rainforest", "glacier_snow", "desert"),
    "smooth_indoor": ("library", "store_gray", "laundromat", "computer_room", "office_gray", "art_gallery_indoor_public", "auditorium"),
    "road": ("street", "street_gray", "highway", "highway_gray", "road_driving", "insidecity_gray"),
    "home": ("kitchen", "kitchen_gray", "kitchen_home", "bedroom_home", "bedroom_gray", "bathroom_home", "livingroom_gray"),
    "height": ("power_line_aerial", "windmill", "wind_turbine_overhead", "tallbuilding_gray"),
}
"""Photo folders by the kind of place that decides a vague task."""


@dataclass
class PhotoFeatures:
    """Vision features of photos, and which photo shows which kind of place.

    `patches` and `grey`: (N, P, W) float16; `names`: N paths `folder/file`; `places`: indices of training photos by place.
    """

    patches: Tensor
    grey: Tensor | None
    names: list[str]
    places: dict[str, list[int]]
    held: dict[str, list[int]]

    @classmethod
    def load(cls, features: Path, index: Path, *, skip: set[str], holdout: float = 0.1) -> PhotoFeatures:
        """Read features in the order of `index` (a path a line); photos named in `skip` or held out are not trained on."""
        from safetensors.torch import load_file

        tensors = load_file(features)
        names = [line.strip() for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
        places: dict[str, list[int]] = {place: [] for place in PLACES}
        held: dict[str, list[int]] = {place: [] for place in PLACES}
        folder_place = {folder: place for place, folders in PLACES.items() for folder in folders}
        for number, name in enumerate(names):
            place = folder_place.get(Path(name).parts[-2])
            if place and Path(name).name not in skip:
                (held if held_out(Path(name).name, holdout) else places)[place].append(number)
        return cls(patches=tensors["patches"], grey=tensors.get("patches_grey"), names=names, places=places, held=held)

    def pick(self, place: str, rng: random.Random) -> Tensor:
        """Features (P, W) of a random training photo of a place, in grey about a third of the time."""
        number = rng.choice(self.places[place])
        source = self.grey if self.grey is not None and rng.random() < 0.35 else self.patches
        return source[number].float()


class SentenceVectors:
    """Teacher vectors of texts: a mapping from text to (D,) unit vector."""

    def __init__(self, vectors: dict[str, Tensor], width: int) -> None:
        self.vectors, self.width = vectors, width

    def get(self, text: str) -> tuple[Tensor, float]:
        """The vector and 1.0, or zeros and 0.0 where there is none."""
        found = self.vectors.get(text)
        return (found, 1.0) if found is not None else (torch.zeros(self.width), 0.0)

    @classmethod
    def compute(cls, texts: list[str], cache: Path | None = None) -> SentenceVectors:
        """Vectors of `texts` by the MiniLM package; what `cache` holds is not computed again.

        Raises:
            MissingError: the teacher package is not installed.
        """
        import hashlib

        from safetensors.torch import load_file, save_file

        from bitmar_core.model.layers import masked_mean
        from bitmar_core.training.distill_text import teacher_folder

        def key(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()[:24]

        known = load_file(cache) if cache is not None and cache.exists() else {}
        todo = sorted({t for t in texts if t and key(t) not in known}, key=len)
        if todo:
            from tokenizers import Tokenizer
            from transformers import BertModel

            folder = teacher_folder()
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.enable_truncation(128)
            tokenizer.enable_padding()
            teacher = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
            with torch.no_grad():
                for at in range(0, len(todo), 64):
                    chunk = todo[at : at + 64]
                    encoded = tokenizer.encode_batch(chunk)
                    ids, mask = torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])
                    with torch.autocast("cpu", torch.bfloat16):
                        states = teacher(input_ids=ids, attention_mask=mask).last_hidden_state
                    for text, vector in zip(chunk, torch.nn.functional.normalize(masked_mean(states.float(), mask), dim=-1), strict=True):
                        known[key(text)] = vector.half()
            if cache is not None:
                save_file(known, cache)
        vectors = {t: known[key(t)].float() for t in texts if t}
        return cls(vectors, len(next(iter(vectors.values()))))
