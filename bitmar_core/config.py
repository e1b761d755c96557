"""Configuration: one dataclass a part, keyword-only, checked when built. Presets are functions.

A YAML file holds the same keys as nested mappings; unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from bitmar_core.errors import ConfigError


def number(default: Any, low: float, high: float) -> Any:
    """A field that must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def choice(default: str, *options: str) -> Any:
    """A field that must be one of `options`."""
    return dataclasses.field(default=default, metadata={"options": options})


class Checked:
    """Checks every field of a dataclass against its type, range and options when it is built."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            label = f"{_label(type(self))}.{item.name}"
            kind = hints[item.name]
            if is_dataclass(kind):
                continue
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
                object.__setattr__(self, item.name, value)
            if isinstance(kind, type) and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
                raise ConfigError(f"{label} must be {_kind_name(kind)}, not {str(value)[:60]!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{label} is {value}; a finite number is needed")
            if "range" in item.metadata:
                low, high = item.metadata["range"]
                if not low <= value <= high:
                    raise ConfigError(f"{label} is {value}; it must lie between {low} and {high}")
            if "options" in item.metadata and value not in item.metadata["options"]:
                near = difflib.get_close_matches(str(value), item.metadata["options"], n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{label} is {str(value)[:60]!r}; it must be one of {', '.join(item.metadata['options'])}{hint}")


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, kind.__name__)


def _label(kind: type) -> str:
    return SECTION_NAMES.get(kind.__name__, kind.__name__)


SECTION_NAMES = {
    "TextConfig": "text",
    "DecoderConfig": "decoder",
    "VisionConfig": "vision",
    "FusionConfig": "fusion",
    "ReasoningConfig": "reasoning",
    "PolicyConfig": "policy",
    "MemoryConfig": "memory",
    "InferenceConfig": "inference",
    "TrainingConfig": "training",
    "GRPOConfig": "grpo_reasoning",
    "BitMarConfig": "config",
}


@dataclass(frozen=True, kw_only=True)
class TextConfig(Checked):
    """The text encoder, which reads tasks and robot cards."""

    tokenizer: str = "tokenizer.json"
    """Tokenizer of the encoder: a file beside the checkpoint or a Hugging Face tokenizer.json on disk."""
    vocab_size: int = number(8192, 64, 300_000)
    """Number of token ids."""
    max_tokens: int = number(512, 8, 8192)
    """Longest text that is read, in tokens; the rest is cut and the answer says so."""
    width: int = number(768, 16, 8192)
    """Width of the model, shared by encoder, fusion, reasoning and decoder."""
    layers: int = number(4, 1, 64)
    """Encoder layers."""
    heads: int = number(12, 1, 128)
    """Attention heads; must divide the width."""
    hidden: int = number(3072, 16, 65_536)
    """Width inside the feed-forward layers."""
    layout: str = choice("bitnet", "bitnet", "bert")
    """`bitnet`: pre-norm, rotary, gated. `bert`: MiniLM's layout, for a warm start."""
    threshold: float = number(2 / 3, 0.0, 2.0)
    """Ternary threshold on |w|/mean|w|, for every BitLinear of the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(f"text.width {self.width} is not a multiple of text.heads {self.heads}")
        if (self.width // self.heads) % 2:
            raise ConfigError(f"text.width / text.heads is {self.width // self.heads}; rotary positions need an even number")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Checked):
    """The text decoder, which writes the reasoning."""

    tokenizer: str = "decoder.json"
    """Tokenizer of the decoder: byte-level BPE with section and robot tokens."""
    vocab_size: int = number(8192, 300, 300_000)
    """Number of token ids."""
    max_tokens: int = number(4096, 32, 65_536)
    """Longest chain, in tokens: room for a line about each of 64 robots."""
    layers: int = number(4, 1, 64)
    """Decoder layers."""
    heads: int = number(12, 1, 128)
    """Attention heads; must divide the width."""
    hidden: int = number(2048, 16, 65_536)
    """Width inside the feed-forward layers."""
    window: int = number(512, 8, 8192)
    """Sliding window: how many recent tokens self-attention sees."""
    sinks: int = number(4, 0, 64)
    """Attention sinks: first tokens that stay visible for ever (StreamingLLM, arXiv 2309.17453)."""
    dropout: float = number(0.1, 0.0, 0.9)
    """Dropout on residual branches while training."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig(Checked):
    """The vision encoder."""

    encoder: str = choice("dinov2", "compact", "dinov2")
    """`compact`: ours, shipped. `dinov2`: any facebook/dinov2-* through transformers."""
    name: str = "facebook/dinov2-base"
    """Hub name or folder of the DINOv2 checkpoint, where `encoder` is dinov2."""
    image_size: int = number(224, 16, 1024)
    """Side of the square that is seen, in pixels."""
    width: int = number(768, 16, 8192)
    """Width of patch features that the encoder gives."""
    patches: int = number(256, 1, 8192)
    """Number of patches that the encoder gives."""
    freeze: bool = True
    """Do not train the vision encoder with the rest."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Checked):
    """FIBER fusion of text and photo."""

    layers: int = number(2, 1, 32)
    """Fusion blocks."""
    heads: int = number(4, 1, 128)
    """Attention heads."""


@dataclass(frozen=True, kw_only=True)
class ReasoningConfig(Checked):
    """The reasoning module."""

    lstm_hidden: int = number(512, 8, 8192)
    """Width of the LSTM state."""
    heads: int = number(4, 1, 128)
    """Heads of the attention over robot cards."""
    card_layers: int = number(2, 1, 16)
    """Layers in which each robot card reads the task."""
    card_window: int = number(4, 1, 64)
    """Card tokens that are averaged into one state before cards read the task; 1 keeps every token, at as many times the cost."""
    blend: float = number(0.3, 0.0, 1.0)
    """Blend weight: share of the direct reading of the task in the final scores; the rest comes from the steps."""
    dropout: float = number(0.1, 0.0, 0.9)
    """Dropout while training."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Checked):
    """Robot policy and value head."""

    hidden: int = number(256, 8, 8192)
    """Width of the first hidden layer."""
    state: int = number(128, 8, 4096)
    """Width of the policy state that scores each card key."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig(Checked):
    """Episodic memory."""

    slots: int = number(32, 1, 1_000_000)
    """Number of slots."""
    width: int = number(128, 8, 4096)
    """Width of keys and values."""
    candidates: int = number(8, 1, 256)
    """Nearest slots that the scope score looks at."""
    temperature: float = number(0.1, 0.001, 10.0)
    """Temperature of the attention over slots."""
    write: bool = False
    """Also write each answer as an observed episode; corrections are written always."""


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(Checked):
    """Answering."""

    confidence_floor: float = number(0.3, 0.0, 1.0)
    """Under this confidence the answer counts as "not sure"."""
    section_tokens: int = number(64, 4, 4096)
    """Longest free text of one section, in tokens."""
    line_tokens: int = number(32, 4, 4096)
    """Longest line about one robot, in tokens."""
    repetition_penalty: float = number(1.15, 1.0, 10.0)
    """Divides the score of tokens that the section already holds (CTRL, arXiv 1909.05858, section 4.1)."""
    no_repeat: int = number(2, 0, 64)
    """No run of this many tokens comes twice in a section or a robot's line; 0 allows all."""
    max_task_chars: int = number(20_000, 100, 10_000_000)
    """Longest task text that is accepted, in characters."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Checked):
    """Supervised training on robot tasks."""

    learning_rate: float = number(4e-4, 1e-8, 1.0)
    """Peak learning rate of new parts."""
    encoder_learning_rate: float = number(1.5e-4, 0.0, 1.0)
    """Peak learning rate of the text encoder."""
    weight_decay: float = number(0.01, 0.0, 1.0)
    """Decoupled weight decay of matrices."""
    warmup: float = number(0.06, 0.0, 1.0)
    """Share of the steps in which the rate rises; a cosine falls after it."""
    batch_size: int = number(32, 1, 65_536)
    """Tasks in a step."""
    epochs: int = number(3, 1, 100_000)
    """Passes over the tasks while learning to choose."""
    writing_epochs: int = number(3, 1, 100_000)
    """Passes over the chains while the decoder learns to write."""
    writing_learning_rate: float = number(1.2e-3, 1e-8, 1.0)
    """Peak learning rate of the decoder, which starts from nothing."""
    quality_epochs: int = number(1, 1, 100_000)
    """Passes over sound and broken chains for the quality heads."""
    max_grad_norm: float = number(1.0, 1e-6, 1e6)
    """Gradients are clipped to this norm."""
    label_smoothing: float = number(0.02, 0.0, 0.9)
    """Smoothing of the decoder's targets."""
    holdout: float = number(0.08, 0.0, 0.9)
    """Share of tasks kept back, by minimal pair, for calibration and early figures."""
    bfloat16: bool = True
    """Matrix products in bfloat16 where the processor has it."""
    seed: int = number(0, 0, 2**31 - 1)
    """Seed of shuffling, dropout and initialisation."""


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(Checked):
    """The GRPO stage (DeepSeekMath, arXiv 2402.03300) with the documented actor-critic terms."""

    reasoning_steps: int = number(5, 5, 5)
    """Steps of reasoning; the five named ones."""
    temperature: float = number(0.7, 0.01, 10.0)
    """Sampling temperature of chains and robots, here and where a seed is given."""
    group_size: int = number(8, 2, 1024)
    """Chains sampled for each task."""
    learning_rate: float = number(1e-6, 1e-10, 1.0)
    """Learning rate."""
    clip_low: float = number(0.2, 0.0, 1.0)
    """ε of the ratio's lower clip."""
    clip_high: float = number(0.2, 0.0, 10.0)
    """ε of the ratio's upper clip (DAPO raises it, arXiv 2503.14476)."""
    kl_weight: float = number(0.04, 0.0, 100.0)
    """β of the KL term to the reference."""
    value_loss_weight: float = number(0.5, 0.0, 100.0)
    """Weight of the value loss."""
    entropy_weight: float = number(0.01, 0.0, 100.0)
    """Weight of the entropy bonus."""
    max_grad_norm: float = number(0.5, 1e-6, 1e6)
    """Gradients are clipped to this norm."""
    reward_scaling: float = number(1.0, 1e-6, 1e6)
    """Rewards are multiplied by this."""
    advantage: str = choice("group", "group", "value", "group+value")
    """What a reward is compared with: its group, V(s), or both."""
    loss: str = choice("grpo", "grpo", "dr_grpo", "dapo")
    """How token losses are averaged (Dr. GRPO, arXiv 2503.20783)."""
    steps: int = number(100, 1, 10_000_000)
    """Optimiser steps."""
    batch_size: int = number(8, 1, 65_536)
    """Tasks in a step; each gives a group."""


@dataclass(frozen=True, kw_only=True)
class BitMarConfig(Checked):
    """The whole model and how it is trained and asked."""

    preset: str = choice("base", "tiny", "small", "base")
    """Which preset the numbers start from."""
    text: TextConfig = TextConfig()
    decoder: DecoderConfig = DecoderConfig()
    vision: VisionConfig = VisionConfig()
    fusion: FusionConfig = FusionConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    policy: PolicyConfig = PolicyConfig()
    memory: MemoryConfig = MemoryConfig()
    inference: InferenceConfig = InferenceConfig()
    training: TrainingConfig = TrainingConfig()
    grpo_reasoning: GRPOConfig = GRPOConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        for label, heads in (("decoder", self.decoder.heads), ("fusion", self.fusion.heads), ("reasoning", self.reasoning.heads)):
            if self.text.width % heads:
                raise ConfigError(f"text.width {self.text.width} is not a multiple of {label}.heads {heads}")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain mappings, as in YAML."""
        return dataclasses.asdict(self)


def base() -> BitMarConfig:
    """The documented sizes: width 768, DINOv2 base, decoder of 4 layers."""
    return BitMarConfig()


def small() -> BitMarConfig:
    """384 wide, for two CPU cores: an encoder of MiniLM's layout and the compact vision encoder. This one is shipped."""
    return BitMarConfig(
        preset="small",
        text=TextConfig(vocab_size=30_522, width=384, layers=6, heads=12, hidden=1536, layout="bert"),
        decoder=DecoderConfig(layers=3, heads=6, hidden=1024),
        vision=VisionConfig(encoder="compact", width=1024, patches=49),
    )


def tiny() -> BitMarConfig:
    """A model for tests: trains in seconds."""
    return BitMarConfig(
        preset="tiny",
        text=TextConfig(vocab_size=600, max_tokens=128, width=32, layers=2, heads=4, hidden=64),
        decoder=DecoderConfig(vocab_size=600, max_tokens=320, layers=2, heads=4, hidden=64, window=320, dropout=0.0),
        vision=VisionConfig(encoder="compact", image_size=32, width=64, patches=1),
        fusion=FusionConfig(layers=1, heads=4),
        reasoning=ReasoningConfig(lstm_hidden=32, card_layers=1, dropout=0.0),
        policy=PolicyConfig(hidden=32, state=16),
        memory=MemoryConfig(slots=4, width=16),
        inference=InferenceConfig(section_tokens=16, line_tokens=8),
    )


PRESETS = {"tiny": tiny, "small": small, "base": base}


def preset(name: str) -> BitMarConfig:
    """The preset called `name`.

    Raises:
        ConfigError: no such preset; offers the nearest.
    """
    if not isinstance(name, str) or name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        raise ConfigError(f"no preset {str(name)[:60]!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(PRESETS)}"))
    return PRESETS[name]()


def from_dict(data: Any, *, where: str = "config") -> BitMarConfig:
    """Build a configuration from nested mappings. Keys that are left out keep the values of the named preset.

    Raises:
        ConfigError: an unknown key (the nearest known one is offered) or a refused value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a configuration is a mapping of sections; see assets/configs/bitmar_coco.yaml")
    try:
        start = preset(data.get("preset", "base"))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return _replace(start, data, where, "")


def _replace(current: Any, data: dict, where: str, prefix: str) -> Any:
    known = {item.name for item in fields(current)}
    changes: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1)
            hint = f"; did you mean `{prefix}{near[0]}`?" if near else f"; known: {', '.join(sorted(known))}"
            raise ConfigError(f"{where}: unknown key `{prefix}{str(key)[:60]}`{hint}")
        old = getattr(current, key)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: `{prefix}{key}` must be a mapping of keys, not {str(value)[:60]!r}")
            value = _replace(old, value, where, f"{key}.")
        changes[key] = value
    try:
        return dataclasses.replace(current, **changes)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from error


def load_config(path: str | Path) -> BitMarConfig:
    """Read a YAML configuration.

    Raises:
        MissingError: no such file.
        ConfigError: refused; one line names the file, the key and the mend.
    """
    from bitmar_core.safe_yaml import read_yaml

    return from_dict(read_yaml(Path(path), error=ConfigError), where=str(path))


def apply_overrides(config: BitMarConfig, pairs: list[str]) -> BitMarConfig:
    """Apply `section.key=value` overrides; values are read as YAML.

    Raises:
        ConfigError: not of that form, an unknown key, or a refused value.
    """
    from bitmar_core.safe_yaml import parse_yaml

    for pair in pairs:
        key, sep, raw = pair.partition("=")
        if not sep:
            raise ConfigError(f"--set {pair!r}: write key=value, as in training.epochs=2")
        if key == "preset":
            # It would change the label and none of the numbers that the label stands for.
            raise ConfigError("--set preset: a preset is where the numbers start from; write `preset:` in a file and give it with --config")
        value = parse_yaml(raw, name=f"--set {key}", error=ConfigError)
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        config = _replace(config, nested, "--set", "")
    return config
