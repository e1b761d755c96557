"""The engine: from token ids and photo features to a decision and a chain, token by token. It never sees text or files.

Letters: B batch, R robots, L card tokens, K candidate slots, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bitmar_core.data.chains import Grammar
from bitmar_core.inference.sampling import pick, repeats
from bitmar_core.memory.episodic import Candidates
from bitmar_core.model.bitmar import BitMar, BitMarOutput, Reading
from bitmar_core.model.text_decoder import DecoderCache

if TYPE_CHECKING:
    import threading

    from bitmar_core.tokenizer import WriterTokenizer


@dataclass
class FleetStates:
    """A fleet, encoded once."""

    states: Tensor
    """(R, L, D)"""
    mask: Tensor
    """(R, L)"""


@dataclass
class Written:
    """A chain as it was decoded; filled while it is being written."""

    ids: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    """reasoning step of each token"""
    states: list[Tensor] = field(default_factory=list)
    """decoder state (D,) of each token"""
    reason: str = "cancelled"
    """why it ended: finished, cancelled, length"""


@dataclass(frozen=True)
class Piece:
    """One token of a chain."""

    token: int
    section: int
    """index of its section"""
    forced: bool
    """part of the form, not a choice of the decoder"""
    ends_section: bool


class Engine:
    """Runs a model that is frozen and in evaluation mode. Stateless between calls."""

    def __init__(self, model: BitMar, writer: WriterTokenizer) -> None:
        self.model, self.writer = model, writer

    @torch.inference_mode()
    def fleet(self, ids: Tensor, mask: Tensor) -> FleetStates:
        """Encode a fleet's cards (R, L)."""
        states, pooled = self.model.encode_cards(ids, mask)
        return FleetStates(states=states, mask=pooled)

    @torch.inference_mode()
    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encoder states (B, T, D) of stories."""
        return self.model.encoder(ids, mask)

    @torch.inference_mode()
    def read(self, ids: Tensor, mask: Tensor, features: Tensor | None, has_image: Tensor | None) -> tuple[Reading, Tensor]:
        """Read requests: the reading and their memory keys (B, E)."""
        reading = self.model.read(ids, mask, features, has_image)
        return reading, self.model.memory.make_key(reading.context)

    @torch.inference_mode()
    def decide(self, reading: Reading, fleet: FleetStates, candidates: Candidates | None) -> BitMarOutput:
        """Reason and choose."""
        return self.model.decide(reading, fleet.states, fleet.mask, candidates=candidates)

    @torch.inference_mode()
    def write(self, output: BitMarOutput, chosen: int, written: Written, *, seed: int | None = None, cancel: threading.Event | None = None) -> Iterator[Piece]:
        """Write the chain of the single request in `output`; looks at `cancel` between tokens.

        Args:
            output: of a batch of one.
            chosen: index of the robot that the text explains.
            written: is filled as tokens come.
            seed: samples with it; None decodes greedily.
        """
        config, writer = self.model.config, self.writer
        robots = output.cards.shape[1]
        slots = torch.tensor(writer.robots[:robots])
        cache, memory_mask = self.model.start_decoding(output, torch.tensor([chosen]), slots)
        grammar = Grammar(writer, robots, chosen, config.inference.section_tokens, config.inference.line_tokens)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        states = output.trace.states  # (1, S, D)
        logits: Tensor | None = None
        recent: list[int] = []
        waiting: list[int] = []
        while not grammar.finished:
            if cancel is not None and cancel.is_set():
                return
            if len(written.ids) >= config.decoder.max_tokens:
                written.reason = "length"
                return
            token = grammar.forced()
            forced = token is not None
            if token is None:
                if waiting or logits is None:
                    logits = self._advance(waiting, written, states, cache, memory_mask)
                    waiting = []
                token = pick(
                    logits, banned=grammar.banned() + repeats(recent, config.inference.no_repeat), repeated=recent, penalty=config.inference.repetition_penalty,
                    temperature=config.grpo_reasoning.temperature, generator=generator,
                )  # fmt: skip
            section_before = grammar.section
            grammar.feed(token)
            recent = [] if token in writer.special else [*recent, token]
            written.ids.append(token)
            # A token is read with the state of the step that the next one belongs to, as in training.
            written.steps.append(4 if grammar.finished else grammar.step)
            waiting.append(token)
            ends = grammar.finished or (token == writer.end)
            yield Piece(token=token, section=max(grammar.section if not ends else section_before, 0), forced=forced, ends_section=ends)
        self._advance(waiting, written, states, cache, memory_mask)
        written.reason = "finished"

    def _advance(self, waiting: list[int], written: Written, states: Tensor, cache: DecoderCache, memory_mask: Tensor) -> Tensor:
        """Feed the tokens that the decoder has not seen; logits (V,) after the last."""
        steps = torch.tensor(written.steps[-len(waiting) :])
        logits, hidden = self.model.decoder(torch.tensor([waiting]), states[:, steps], cache, memory_mask)
        written.states += list(hidden[0])
        return logits[0, -1]

    @torch.inference_mode()
    def judge(self, output: BitMarOutput, written: Written) -> Tensor:
        """Quality probabilities (4,) of a written chain."""
        count = len(written.states)
        hidden = torch.stack(written.states).unsqueeze(0)
        steps = torch.tensor(written.steps[:count]).unsqueeze(0)
        return torch.sigmoid(self.model.judge(output, hidden, steps, torch.ones(1, count))[0])
