"""The two tokenizers: one reads tasks and cards, one writes the chain of thought.

The reader may be any Hugging Face tokenizer.json. The writer is our own byte-level BPE with tokens for sections and robot
slots. What a person types never becomes a control token in either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitmar_core.errors import CheckpointError
from bitmar_core.events import SECTIONS
from bitmar_core.robots import MAX_ROBOTS

PAD, BEGIN, END, LINE = "<pad>", "<begin>", "<end>", "<line>"


def section_token(name: str) -> str:
    """The token that opens a section."""
    return f"<{name}>"


def robot_token(index: int) -> str:
    """The slot token of the robot at `index` (0-based) of the fleet; slots are numbered from 1."""
    return f"<robot_{index + 1}>"


SPECIAL = [PAD, BEGIN, END, LINE, *map(section_token, SECTIONS), *(robot_token(i) for i in range(MAX_ROBOTS))]


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault
        raise CheckpointError(f"cannot read the tokenizer {path}: {' '.join(str(error).split())[:120]}; fetch the checkpoint again") from error


def _whole_words(names: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `names`, the longest that fits, but not inside a longer word."""
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + r")(?!\w)")


class ReaderTokenizer:
    """Text -> token ids for the encoder. Special tokens in the text are read as plain text."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        self.tokenizer = _load(path)
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.max_tokens = max_tokens
        self.size: int = self.tokenizer.get_vocab_size()

    def encode(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        """Ids of each text, never empty, and whether the text was cut at `max_tokens`."""
        rows, cut = [], []
        for encoding in self.tokenizer.encode_batch(texts):
            rows.append(encoding.ids or [0])
            cut.append(bool(encoding.overflowing))
        return rows, cut


class WriterTokenizer:
    """Token ids of the chain <-> text."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = _load(path)
        self.tokenizer.encode_special_tokens = True
        self.size: int = self.tokenizer.get_vocab_size()
        missing = [t for t in SPECIAL if self.tokenizer.token_to_id(t) is None]
        if missing:
            raise CheckpointError(f"the tokenizer {path} lacks the token {missing[0]}; it is not one that BitMar writes with")
        self.pad, self.begin, self.end, self.line = (self.id(t) for t in (PAD, BEGIN, END, LINE))
        self.sections = [self.id(section_token(name)) for name in SECTIONS]
        self.robots = [self.id(robot_token(i)) for i in range(MAX_ROBOTS)]
        self.special = {self.id(t) for t in SPECIAL}

    def id(self, token: str) -> int:
        """Id of a special token."""
        value = self.tokenizer.token_to_id(token)
        assert value is not None
        return value

    def encode(self, text: str, names: tuple[str, ...] = ()) -> list[int]:
        """Ids of prose. Robot names that stand as whole words become slot tokens, longest name first; a slot stands for the blank before it too."""
        text = text.strip()
        pieces: list[int] = []
        at = 0
        for match in _whole_words(names).finditer(text) if names else ():
            pieces += self._words(text[at : match.start()].removesuffix(" "), first=not pieces)
            pieces.append(self.robots[names.index(match[0])])
            at = match.end()
        return pieces + self._words(text[at:], first=not pieces)

    def _words(self, text: str, *, first: bool) -> list[int]:
        """Ids of text without names. What opens a section gets the blank that words have inside a text."""
        return self.tokenizer.encode(" " + text if first else text, add_special_tokens=False).ids if text else []

    def decode(self, ids: Iterable[int], names: tuple[str, ...]) -> str:
        """Text of ids; slot tokens become names, other special tokens nothing."""
        slot = {token: index for index, token in enumerate(self.robots[: len(names)])}
        out, run = "", []  # type: str, list[int]
        for token in ids:
            if token in self.special:
                out += self.tokenizer.decode(run, skip_special_tokens=False) if run else ""
                run = []
                if token in slot:
                    out += " " + names[slot[token]]
            else:
                run.append(token)
        out += self.tokenizer.decode(run, skip_special_tokens=False) if run else ""
        return out.strip()


def train_bpe(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train a byte-level BPE of our own with the chain's special tokens and save it as tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
