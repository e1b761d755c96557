"""BitMar: the whole model. Start reading here.

    task text ─ TextEncoder ─┐                       robot cards ─ TextEncoder ─ CardReader (each card reads the task)
                             ├─ Fusion ─ context ──────────────────────┐               │
    site photo ─ VisionEncoder┘    └ key ─ EpisodicMemory ─ context ───┤               │
                                                          ReasoningModule: five steps ─┤
                                                                     RobotPolicy: probabilities
                                                                     TextDecoder: the chain of thought

Letters: B batch, T text tokens, P patches, W vision width, D width, R robots, L card tokens, S steps, K candidate slots,
E memory width, U decoder tokens, V decoder vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitmar_core.config import BitMarConfig, preset
from bitmar_core.memory.episodic import Candidates, EpisodicMemory, MemoryReading
from bitmar_core.model.fusion import Fusion
from bitmar_core.model.layers import masked_mean
from bitmar_core.model.policy import CardReader, RobotPolicy
from bitmar_core.model.reasoning import QUALITIES, STEPS, QualityHeads, ReasoningModule, ReasoningTrace
from bitmar_core.model.text_decoder import DecoderCache, TextDecoder
from bitmar_core.model.text_encoder import TextEncoder

ABSENT = -1e4
"""Logit of a robot that a request may not choose."""


@dataclass
class Reading:
    """A request, read: what every later part works from."""

    text: Tensor
    """(B, T, D) encoder states before fusion; what memory compares"""
    text_mask: Tensor
    """(B, T)"""
    fused: Tensor
    """(B, T, D)"""
    patches: Tensor
    """(B, P, D) fused patches, or (B, 1, D) where there is no photo"""
    patch_mask: Tensor
    """(B, P)"""
    context: Tensor
    """(B, D)"""


@dataclass
class BitMarOutput:
    """What one forward pass gives."""

    reading: Reading
    cards: Tensor
    """(B, R, D) card states after reading the task"""
    trace: ReasoningTrace
    policy_logits: Tensor
    """(B, R) final scores before memory and calibration"""
    step_logits: Tensor
    """(B, S, R)"""
    direct_logits: Tensor
    """(B, R) the share that does not go through the steps"""
    probabilities: Tensor
    """(B, R) calibrated, memory included; sums to 1"""
    suited_logits: Tensor
    """(B, R)"""
    step_weights: Tensor
    """(B, S) softmax of the steps' values"""
    quality_logits: Tensor
    """(B, 4) in the order of QUALITIES; judged on the written chain where there is one"""
    memory: MemoryReading | None = None
    memory_key: Tensor | None = None
    """(B, E)"""
    card_keys: Tensor | None = None
    """(B, R, policy state)"""
    logits: Tensor | None = None
    """(B, U, V) decoder logits where decoder input was given"""
    decoder_states: Tensor | None = None
    """(B, U, D)"""


class BitMar(nn.Module):
    """The model. It sees token ids and vision features, never text or files.

    Buffers: `calibration` (temperature of the final probabilities), `default_cards`, `default_card_mask` (the fleet that
    `forward` reads where none is given; set by `set_default_fleet`).
    """

    calibration: Tensor
    default_cards: Tensor
    default_card_mask: Tensor

    def __init__(self, config: BitMarConfig) -> None:
        super().__init__()
        self.config = config
        d = config.text.width
        self.encoder = TextEncoder(config.text)
        self.fusion = Fusion(config)
        self.card_reader = CardReader(config)
        self.reasoning = ReasoningModule(config)
        self.policy = RobotPolicy(config)
        self.memory = EpisodicMemory(config)
        self.memory_to_policy = nn.Linear(config.memory.width, config.policy.state, bias=False)
        self.decoder = TextDecoder(config)
        self.quality = QualityHeads(config)
        self.chosen = nn.Parameter(torch.randn(d) * 0.5)
        self.memory_to_decoder = nn.Linear(config.memory.width, d, bias=False)
        self.register_buffer("calibration", torch.ones(()))
        self.register_buffer("default_cards", torch.zeros(0, 0, dtype=torch.long), persistent=False)
        self.register_buffer("default_card_mask", torch.zeros(0, 0, dtype=torch.long), persistent=False)

    def set_default_fleet(self, ids: Tensor, mask: Tensor) -> None:
        """The cards (R, L) that `forward` reads where it is given none."""
        self.default_cards, self.default_card_mask = ids, mask

    def encode_cards(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Card token ids (R, L') and mask -> card states (R, L, D) and their mask (R, L); `card_window` tokens become one state.

        They do not depend on the task: encode once per fleet.
        """
        states, window = self.encoder(ids, mask), self.config.reasoning.card_window
        short = -states.shape[1] % window
        states, mask = F.pad(states, (0, 0, 0, short)), F.pad(mask, (0, short))
        grouped = mask.view(len(mask), -1, window)
        return masked_mean(states.view(len(states), -1, window, states.shape[-1]), grouped), grouped.amax(-1)

    def read(self, input_ids: Tensor, attention_mask: Tensor, vision_features: Tensor | None = None, has_image: Tensor | None = None) -> Reading:
        """Encode and fuse. input_ids, attention_mask (B, T); vision_features (B, P, W) or None; has_image (B,) or None for all."""
        text = self.encoder(input_ids, attention_mask)
        fused, patches, patch_mask = self.fusion(text, attention_mask, vision_features, has_image)
        # Fused patches join the context with the text, so that a vague text leaves the photo its say.
        context = masked_mean(fused, attention_mask) + masked_mean(patches, patch_mask)
        return Reading(text=text, text_mask=attention_mask, fused=fused, patches=patches, patch_mask=patch_mask, context=context)

    def decide(
        self, reading: Reading, cards: Tensor, card_mask: Tensor, *, robot_mask: Tensor | None = None, candidates: Candidates | None = None
    ) -> BitMarOutput:
        """Five steps and the policy.

        Args:
            reading: from `read`.
            cards, card_mask: (R, L, D) and (R, L), from `encode_cards`.
            robot_mask: (B, R), 0 for robots that this request may not choose; None for all.
            candidates: memory slots to look at, or None.
        """
        states = self.card_reader(
            cards, card_mask, torch.cat([reading.fused, reading.patches], 1), torch.cat([reading.text_mask.bool(), reading.patch_mask], 1)
        )
        trace = self.reasoning(reading.context, reading.patches, reading.patch_mask, states, robot_mask)
        card_keys = self.policy.keys(states)
        policy_states = self.policy.state(trace.states)  # (B, S, K)
        key = self.memory.make_key(reading.context)
        memory = None
        if candidates is not None:
            memory = self.memory.read(key, reading.text, reading.text_mask, candidates)
            policy_states = policy_states + self.memory_to_policy(memory.context).unsqueeze(1)
        step_logits = self.policy.score(policy_states, card_keys)  # (B, S, R)
        likeness = F.cosine_similarity(masked_mean(reading.text, reading.text_mask).unsqueeze(1), masked_mean(cards, card_mask).unsqueeze(0), dim=-1, eps=1e-8)
        suited = self.policy.suitability(states, likeness)  # (B, R)
        direct = suited
        if robot_mask is not None:
            absent = ~robot_mask.bool()
            # Finite, because minus infinity times a weight that is zero would be no number; its exponential is zero all the same.
            step_logits = step_logits.masked_fill(absent.unsqueeze(1), ABSENT)
            direct = direct.masked_fill(absent, ABSENT)
        weights = trace.values.softmax(-1)  # (B, S)
        blend = self.config.reasoning.blend
        logits = blend * direct + (1 - blend) * (weights.unsqueeze(-1) * step_logits).sum(1)
        probabilities = (logits / self.calibration).softmax(-1)
        if memory is not None and candidates is not None:
            probabilities = recall(probabilities, memory, candidates)
        return BitMarOutput(
            reading=reading, cards=states, trace=trace, policy_logits=logits, step_logits=step_logits, direct_logits=direct, probabilities=probabilities,
            suited_logits=suited, step_weights=weights, quality_logits=self.quality(trace.states, torch.zeros_like(trace.states)), memory=memory, memory_key=key, card_keys=card_keys,
        )  # fmt: skip

    def step_probabilities(self, output: BitMarOutput) -> Tensor:
        """Calibrated probabilities after each step (B, S, R): steps 1..t combined as at the end, memory included."""
        masked = output.trace.values.unsqueeze(1).expand(-1, STEPS, -1)
        later = torch.ones(STEPS, STEPS, dtype=torch.bool, device=masked.device).triu(1)
        weights = masked.masked_fill(later, float("-inf")).softmax(-1)  # (B, S, S)
        blend = self.config.reasoning.blend
        logits = blend * output.direct_logits.unsqueeze(1) + (1 - blend) * (weights @ output.step_logits)
        return (logits / self.calibration).softmax(-1)

    def decoder_memory(self, output: BitMarOutput, chosen: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder reads: robots, fused text, fused patches, the remembered case.

        Args:
            chosen: (B,) index of the robot that the text explains.
            slots: (R,) token ids of the robots' slot tokens.

        Returns:
            states (B, S, D) and mask (B, S).
        """
        reading, b = output.reading, len(chosen)
        names = self.decoder.embedding(slots) * self.config.text.width**0.5
        picked = F.one_hot(chosen, output.cards.shape[1]).unsqueeze(-1)
        robots = output.cards + names + picked * self.chosen
        recalled = torch.zeros(b, self.config.memory.width, device=robots.device) if output.memory is None else output.memory.context
        parts = [robots, reading.fused, reading.patches, self.memory_to_decoder(recalled).unsqueeze(1)]
        ones = torch.ones(b, 1, dtype=torch.bool, device=robots.device)
        mask = torch.cat([ones.expand(b, robots.shape[1]), reading.text_mask.bool(), reading.patch_mask, ones], 1)
        return torch.cat(parts, 1), mask

    def start_decoding(self, output: BitMarOutput, chosen: Tensor, slots: Tensor) -> tuple[DecoderCache, Tensor]:
        """A cache over the decoder's memory, and the memory's mask."""
        memory, mask = self.decoder_memory(output, chosen, slots)
        return self.decoder.start(memory), mask

    def judge(self, output: BitMarOutput, states: Tensor, sections: Tensor, mask: Tensor) -> Tensor:
        """Quality logits (B, 4) of a written chain.

        Args:
            states: (B, U, D) decoder states.
            sections: (B, U) step index 0..4 of each token.
            mask: (B, U), 1 for real tokens.
        """
        belongs = F.one_hot(sections, STEPS).float() * mask.float().unsqueeze(-1)  # (B, U, S)
        chain = belongs.transpose(1, 2) @ states / belongs.sum(1).clamp_min(1.0).unsqueeze(-1)
        return self.quality(output.trace.states, chain)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        vision_features: Tensor | None = None,
        *,
        has_image: Tensor | None = None,
        card_ids: Tensor | None = None,
        card_mask: Tensor | None = None,
        robot_mask: Tensor | None = None,
        candidates: Candidates | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_sections: Tensor | None = None,
        decoder_mask: Tensor | None = None,
        chosen: Tensor | None = None,
        slots: Tensor | None = None,
    ) -> BitMarOutput:
        """Read, decide and, where decoder tokens are given, write (teacher forcing).

        Args:
            input_ids, attention_mask: (B, T).
            vision_features: (B, P, W) from a vision encoder, or None.
            has_image: (B,) bool; None: all have one (or none has).
            card_ids, card_mask: (R, L) the fleet; None: the default fleet.
            robot_mask: (B, R).
            candidates: memory slots.
            decoder_input_ids: (B, U); decoder_sections (B, U) step index of each token; decoder_mask (B, U).
            chosen: (B,) robot that the text explains; None: the policy's first choice.
            slots: (R,) token ids of the robots' slot tokens; needed with decoder_input_ids.
        """
        if card_ids is None or card_mask is None:
            if not len(self.default_cards):
                raise ValueError("no fleet: give card_ids and card_mask, or call set_default_fleet")
            card_ids, card_mask = self.default_cards, self.default_card_mask
        reading = self.read(input_ids, attention_mask, vision_features, has_image)
        output = self.decide(reading, *self.encode_cards(card_ids, card_mask), robot_mask=robot_mask, candidates=candidates)
        if decoder_input_ids is not None:
            assert decoder_sections is not None and slots is not None
            chosen = output.probabilities.argmax(-1) if chosen is None else chosen
            cache, memory_mask = self.start_decoding(output, chosen, slots)
            steps = output.trace.states.gather(1, decoder_sections.unsqueeze(-1).expand(-1, -1, output.trace.states.shape[-1]))
            output.logits, output.decoder_states = self.decoder(decoder_input_ids, steps, cache, memory_mask)
            mask = torch.ones_like(decoder_input_ids) if decoder_mask is None else decoder_mask
            output.quality_logits = self.judge(output, output.decoder_states, decoder_sections, mask)
        return output

    @staticmethod
    def extract_robot_selections(outputs: BitMarOutput, names: list[str] | None = None) -> list[dict]:
        """The choice for each sample: `{"robot" (name, or index where no names are given), "confidence", "suited"}`."""
        chosen = []
        for row, suited in zip(outputs.probabilities.detach(), outputs.suited_logits.detach(), strict=True):
            best = int(row.argmax())
            fit = [i for i in suited.argsort(descending=True).tolist() if float(suited[i]) > 0]
            chosen.append({
                "robot": names[best] if names else best,
                "confidence": float(row[best]),
                "suited": [names[i] if names else i for i in fit],
            })  # fmt: skip
        return chosen

    def get_reasoning_analysis(self, outputs: BitMarOutput, names: list[str] | None = None) -> dict:
        """Probabilities by step and at the end, the four qualities, and the selections, as plain Python."""
        quality = torch.sigmoid(outputs.quality_logits.detach())
        return {
            "robot_probabilities": outputs.probabilities.detach().tolist(),
            "step_probabilities": self.step_probabilities(outputs).detach().tolist(),
            "step_values": outputs.trace.values.detach().tolist(),
            "reasoning_quality": [dict(zip(QUALITIES, row, strict=True)) for row in quality.tolist()],
            "robot_selections": self.extract_robot_selections(outputs, names),
        }


def recall(probabilities: Tensor, memory: MemoryReading, candidates: Candidates) -> Tensor:
    """Blend remembered robots into the policy: p = (1 - Σg) p + Σ g·robot, where a slot's robot is in this fleet. (B, R) -> (B, R)."""
    usable = memory.weights * candidates.robots.sum(-1)  # (B, K)
    remembered = (usable.unsqueeze(-1) * candidates.robots).sum(1)
    return (1 - usable.sum(-1, keepdim=True)) * probabilities + remembered


def create_bitmar_model(config: BitMarConfig | str = "base") -> BitMar:
    """A freshly initialised model for a configuration or the name of a preset."""
    return BitMar(preset(config) if isinstance(config, str) else config)
