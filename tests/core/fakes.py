"""Tiny but complete: tokenizers, a checkpoint, batches of every kind, for tests.

Letters: B batch, T tokens, R robots, L card tokens, P patches, W vision width, U decoder tokens, K candidates, E memory width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bitmar_core.checkpoint.folder import VISION, save_checkpoint
from bitmar_core.config import BitMarConfig, tiny
from bitmar_core.data.chains import Chain, write_chain
from bitmar_core.memory.episodic import Candidates
from bitmar_core.model.bitmar import BitMar, create_bitmar_model
from bitmar_core.model.vision_encoder import CompactVisionConfig, CompactVisionEncoder, save_vision_file
from bitmar_core.robots import load_fleet
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer, train_bpe

SENTENCES = (
    "Inspect the hull of a ferry at its berth before it sails.",
    "Carry thirty crates across the warehouse floor to the loading dock.",
    "Climb the rocky slope and look for a hiker who has not come back.",
    "Take a picture of the roof after the storm and count the broken tiles.",
    "Write a letter to the council about the noise at night.",
    "Open the valve in the boiler room and read the pressure aloud.",
    "The water is deep and dark, so whatever goes there must be sealed.",
    "Stairs and doors are made for people; wheels would stop at the first step.",
    "I am fairly sure, though the wind may be too strong for flying.",
)


def tiny_config(*, patches: int = 4, layout: str = "bitnet", **decoder: int) -> BitMarConfig:
    """The tiny preset with several patches, so that attention over a photo has something to choose."""
    config = tiny()
    return replace(config, vision=replace(config.vision, patches=patches), text=replace(config.text, layout=layout), decoder=replace(config.decoder, **decoder))


def tiny_model(config: BitMarConfig | None = None, seed: int = 0) -> BitMar:
    """A seeded model in training mode."""
    torch.manual_seed(seed)
    return create_bitmar_model(config or tiny_config())


def with_gates(model: BitMar, alpha: float = 0.5) -> BitMar:
    """Fusion gates off zero, where they start."""
    with torch.no_grad():
        for block in model.fusion.blocks:
            block.alpha.fill_(alpha)
    return model


def set_scope(model: BitMar, bias: float) -> BitMar:
    """A memory that takes every slot for the case at hand (large `bias`), or none (large and negative)."""
    with torch.no_grad():
        model.memory.scope_output.weight.zero_()
        model.memory.scope_cosines.weight.zero_()
        model.memory.scope_output.bias.fill_(bias)
    return model


def build_tokenizers(folder: Path) -> tuple[Path, Path]:
    """Reader and writer, 600 tokens each at most: `tokenizer.json` and `decoder.json` in `folder`."""
    cards = [robot.text() for robot in load_fleet().robots]
    reader, writer = folder / "tokenizer.json", folder / "decoder.json"
    train_bpe([*SENTENCES, *cards], 600, reader)
    train_bpe(SENTENCES, 600, writer)
    return reader, writer


def build_checkpoint(folder: Path, *, change: Callable[[BitMar], object] | None = None, seed: int = 0) -> Path:
    """A complete checkpoint of the tiny preset, untrained, whose sections are at most six tokens long, and lines four.

    Args:
        folder: gets the checkpoint; its name becomes the model's.
        change: is called with the model before it is packed.
    """
    made = folder.parent / f"{folder.name}-parts"
    made.mkdir(parents=True, exist_ok=True)
    reader, writer = build_tokenizers(made)
    config = replace(tiny(), inference=replace(tiny().inference, section_tokens=6, line_tokens=4))  # short chains: tests write many
    model = with_gates(tiny_model(config, seed))
    if change is not None:
        change(model)
    files = {"tokenizer.json": reader, "decoder.json": writer}
    save_checkpoint(model, folder, files=files | {VISION: save_vision(model.config, made)})
    return folder


def save_vision(config: BitMarConfig, folder: Path) -> Path:
    """One file with an untrained compact encoder that fits `config`."""
    torch.manual_seed(0)
    encoder = CompactVisionEncoder(CompactVisionConfig(image_size=config.vision.image_size, width_multiplier=0.0625))
    save_vision_file(encoder, folder / VISION)
    return folder / VISION


def readers(folder: Path) -> tuple[ReaderTokenizer, WriterTokenizer]:
    """Both tokenizers of a checkpoint."""
    return ReaderTokenizer(folder / "tokenizer.json", 128), WriterTokenizer(folder / "decoder.json")


@dataclass
class Inputs:
    """Random inputs of a forward pass."""

    ids: Tensor
    mask: Tensor
    features: Tensor
    has_image: Tensor
    card_ids: Tensor
    card_mask: Tensor
    chain: Tensor
    sections: Tensor
    slots: Tensor
    chosen: Tensor

    def call(self, **changes: object) -> dict:
        """Keyword arguments of `BitMar.forward`, chain included."""
        return {
            "input_ids": self.ids, "attention_mask": self.mask, "vision_features": self.features, "has_image": self.has_image,
            "card_ids": self.card_ids, "card_mask": self.card_mask, "decoder_input_ids": self.chain, "decoder_sections": self.sections,
            "slots": self.slots, "chosen": self.chosen,
        } | changes  # fmt: skip


def random_inputs(config: BitMarConfig, *, batch: int = 4, robots: int = 3, tokens: int = 9, chain: int = 12, seed: int = 1) -> Inputs:
    """Rows of falling length; the first, third, ... row has a photo."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([max(2, tokens - 2 * row) for row in range(batch)])
    mask = (torch.arange(tokens)[None] < lengths[:, None]).long()
    ids = torch.randint(1, config.text.vocab_size, (batch, tokens), generator=g) * mask
    card_lengths = torch.tensor([7 + row for row in range(robots)])
    card_mask = (torch.arange(int(card_lengths.max()))[None] < card_lengths[:, None]).long()
    return Inputs(
        ids=ids, mask=mask, features=torch.randn(batch, config.vision.patches, config.vision.width, generator=g), has_image=torch.arange(batch) % 2 == 0,
        card_ids=torch.randint(1, config.text.vocab_size, card_mask.shape, generator=g) * card_mask, card_mask=card_mask,
        chain=torch.randint(0, config.decoder.vocab_size, (batch, chain), generator=g), sections=(torch.arange(chain) * 5 // chain).expand(batch, -1),
        slots=torch.arange(10, 10 + robots), chosen=torch.arange(batch) % robots,
    )  # fmt: skip


def random_candidates(config: BitMarConfig, *, batch: int = 4, slots: int = 3, robots: int = 3, length: int = 6, seed: int = 2) -> Candidates:
    """Full slots with stories of full length."""
    g = torch.Generator().manual_seed(seed)
    e, d = config.memory.width, config.text.width
    return Candidates(
        keys=torch.nn.functional.normalize(torch.randn(batch, slots, e, generator=g), dim=-1), values=torch.randn(batch, slots, e, generator=g),
        tokens=torch.randn(batch, slots, length, d, generator=g), token_mask=torch.ones(batch, slots, length, dtype=torch.long),
        robots=torch.nn.functional.one_hot(torch.randint(0, robots, (batch, slots), generator=g), robots).float(),
        present=torch.ones(batch, slots, dtype=torch.bool),
    )  # fmt: skip


def sample_chain(writer: WriterTokenizer, names: tuple[str, ...], chosen: int) -> Chain:
    """A whole chain for a fleet."""
    lines = {name: SENTENCES[i % len(SENTENCES)] for i, name in enumerate(names)}
    texts: list[str | dict[str, str]] = [SENTENCES[0], SENTENCES[6], lines, SENTENCES[7], SENTENCES[8], SENTENCES[0]]
    return write_chain(texts, names, names, chosen, writer)
