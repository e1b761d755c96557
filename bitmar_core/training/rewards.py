"""What a sampled chain of thought earns: pure functions of its text and of the answer.

R = task_success + reasoning_quality, both between 0 and 1, and each a sum of parts that are kept by themselves.

No model judges here, only counting, so every part is built against the cheap way to earn it: a robot that is named beside
the right one costs precision; words of praise are not content; a copy is not a second text; words beyond a limit cost.
What counting cannot see is whether a sentence is true; the KL term of the loss keeps the writing near its teacher's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bitmar_core.data.chains import EVALUATION, SELECTION
from bitmar_core.events import SECTIONS
from bitmar_core.robots import NO_ROBOT
from bitmar_core.tokenizer import WriterTokenizer

QUALITY_WEIGHTS = {"form": 0.1, "lines": 0.15, "sections": 0.15, "variety": 0.15, "grounding": 0.2, "agreement": 0.2, "length": 0.05}
"""Weight of each part of `reasoning_quality`; they add to 1."""
REWARD_MAX = 2.0
"""The most that a chain can earn, before `reward_scaling`."""

SECTION_WORDS, LINE_WORDS = 40, 20
"""Longest section and longest line that cost nothing, in words. Hand-written ones end at 32 and 13."""
CONTENT_WORDS = 2
"""Different words of content that a text needs in order to count as one."""
GROUNDED_WORDS = 2
"""Different words of the task in a section that earn its full share of grounding."""
COPIED_RUN = 6
"""A run of so many words of the task, in its order, is a copy and not an account of it."""
ALIKE = 0.8
"""Share of common words (Jaccard) from which two texts count as one."""


def word_set(text: str) -> frozenset[str]:
    """Words between blanks."""
    return frozenset(text.split())


DENIALS = word_set(
    "cannot can't not no never nothing none nobody nowhere nor neither without hardly barely only too but yet would could "
    "unable unfit unsuited useless pointless impossible unsteady unsafe risky risks risk fails fail lacks lack needs beyond outside "
    "exceeds exclude excludes excluded forbids forbidden forbid bans banned rules ruled removes stops stop stuck falls fall sinks sink "
    "slow slower slowly poor far less than unlike instead rather wrong unnecessary wasted waste drowns blocked block stays remains "
    "doesn't don't isn't aren't won't wouldn't couldn't hasn't haven't wasn't"
)
"""Words by which a line says that its robot does not do."""
MILD = frozenset(["only", "but", "yet"])
"""Denials that a clause may hold while it recommends: "only the Drone gets there"."""
CLAUSE_BREAK = re.compile(r"[.!?;:,\n]+(?:\s|$)|\b(?=(?:while|whereas|but|since|because)\b)", re.IGNORECASE)
PRAISE = word_set(
    "good better best great excellent perfect perfectly ideal ideally amazing wonderful superb outstanding optimal fantastic brilliant "
    "suitable suited suits suit fit fits fitting right correct appropriate proper properly able capable capability capabilities "
    "very really highly extremely clearly definitely certainly absolutely truly most superior strong recommended recommend choice choose chosen "
    "option select selected selection job task work robot robots machine machines fleet well everything always"
)
"""Words that any robot could be given for any task; they are no content."""
STOP = word_set(
    "a an and are as at be been being both by can do does done each for from had has have he her here him his i if in into is it its "
    "may me might more must my of off on one or our out over per she should so some such that the their them then there these they "
    "this those through to under until up upon us was we were what when where which while who whole will with you your about after all "
    "also any because before between down during just like made make many much now other same shall since still site"
)
"""Words without content of their own."""


@dataclass(frozen=True, kw_only=True)
class ChainText:
    """A chain as text, with what only its tokens tell."""

    names: tuple[str, ...]
    """robots of the fleet, in the order of the slots"""
    chosen: int
    """robot of the closing section, -1 where the chain never came to it"""
    sections: dict[str, str]
    """text by section; the evaluation is left out"""
    lines: tuple[str, ...]
    """the line of each robot, "" where there is none"""
    order: tuple[str, ...] = SECTIONS
    """sections as they were opened"""
    finished: bool = True
    """False where the chain was cut"""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What a chain earned, before scaling."""

    task_success: float
    reasoning_quality: float
    parts: dict[str, float] = field(default_factory=dict)
    """`chosen` and `robots` make the success; the keys of QUALITY_WEIGHTS make the quality; each 0 to 1"""

    @property
    def total(self) -> float:
        """R, between 0 and REWARD_MAX."""
        return self.task_success + self.reasoning_quality


def read_chain(ids: list[int], names: tuple[str, ...], writer: WriterTokenizer) -> ChainText:
    """The chain that token ids spell. Any ids are read: what is missing stays empty."""
    opened: list[str] = []
    words: dict[str, list[int]] = {name: [] for name in SECTIONS}
    lines: list[list[int]] = [[] for _ in names]
    slot = chosen = -1
    inside = ended = False
    robots = writer.robots[: len(names)]
    for token in ids:
        if token in writer.sections:
            opened.append(SECTIONS[writer.sections.index(token)])
            inside, slot, ended = True, -1, False
        elif not inside:
            continue
        elif token == writer.end:
            inside, ended = False, True
        elif opened[-1] == SECTIONS[EVALUATION]:
            if token == writer.line:
                slot = -1
            elif slot < 0 and token in robots:
                slot = robots.index(token)
            elif slot >= 0:
                lines[slot].append(token)
        elif opened[-1] == SECTIONS[SELECTION] and chosen < 0 and not words[SECTIONS[SELECTION]] and token in robots:
            chosen = robots.index(token)
        else:
            words[opened[-1]].append(token)
    return ChainText(
        names=names, chosen=chosen, sections={name: writer.decode(words[name], names) for name in SECTIONS if name != SECTIONS[EVALUATION]},
        lines=tuple(writer.decode(line, names) for line in lines), order=tuple(opened), finished=ended and opened[-1] == SECTIONS[SELECTION],
    )  # fmt: skip


# --- words ---


def words_of(text: str) -> list[str]:
    """Words and numbers in lower case, in order."""
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)?", text.casefold().replace("\u2019", "'"))


def stem(word: str) -> str:
    """A crude stem, so that `blades` meets `blade` and `inspecting` meets `inspection`: without a common ending, and no longer than six."""
    for ending in ("ing", "ion", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word.rstrip("e")[:6] if len(word) > 3 else word


def content(text: str, names: tuple[str, ...] = ()) -> set[str]:
    """Stems of the words that say something: no stop words, no denials, no praise, no robot's name."""
    bare = {word for name in names for word in words_of(name)}
    return {stem(w) for w in words_of(text) if w not in STOP and w not in DENIALS and w not in PRAISE and w not in bare and (len(w) > 2 or w.isdigit())}


def substantial(text: str, names: tuple[str, ...]) -> bool:
    """Whether a text says anything, as far as counting can tell."""
    return len(content(text, names)) >= CONTENT_WORDS


def denies(text: str, names: tuple[str, ...] = (), words: frozenset[str] = DENIALS) -> bool:
    """Whether a text holds a word of denial outside the names of robots ("No Robot" is a name)."""
    return any(word in words for word in mask_names(text, names)[0].split())


def mask_names(text: str, names: tuple[str, ...]) -> tuple[str, set[int]]:
    """The words of a text with robots' names taken out, and which robots those were; longest name first, so that "Drone Boat" is not "Drone"."""
    found, rest = set(), " ".join(words_of(text))
    for index in sorted(range(len(names)), key=lambda i: -len(names[i])):
        wanted = " ".join(words_of(names[index]))
        rest, count = re.subn(rf"(?<!\S){re.escape(wanted)}(?!\S)", "|", rest) if wanted else (rest, 0)
        if count:
            found.add(index)
    return rest, found


def named(text: str, names: tuple[str, ...]) -> set[int]:
    """Robots that a text names."""
    return mask_names(text, names)[1]


# --- task success ---


def recommended(chain: ChainText) -> set[int]:
    """Robots that the chain tells one to send: its choice, and those that the selection reasoning or the justification names in a clause that denies nothing.

    A word of denial excuses the names of its own clause only: "the Drone, the Humanoid, all without doubt" recommends both.
    """
    found = {chain.chosen} if chain.chosen >= 0 else set()
    for section in ("selection_reasoning", "robot_selection"):
        for clause in CLAUSE_BREAK.split(chain.sections.get(section, "")):
            if not denies(clause, chain.names, DENIALS - MILD):
                found |= named(clause, chain.names)
    return found


def set_f1(found: set[int], gold: set[int]) -> float:
    """Harmonic mean of precision and recall of two sets; 0 where they share nothing."""
    return 2 * len(found & gold) / (len(found) + len(gold)) if found and gold else 0.0


def task_success(chain: ChainText, gold: tuple[str, ...]) -> dict[str, float]:
    """`chosen`: 1 where the choice is acceptable. `robots`: F1 of the recommended robots against the acceptable ones.

    The success is their product. F1 alone would pay a chain for naming a second robot in case the choice is wrong: of six
    robots, all six named earn 0.29, and a blind choice 0.17.
    """
    right = {index for index, name in enumerate(chain.names) if name in gold}
    return {"chosen": float(chain.chosen in right), "robots": set_f1(recommended(chain), right)}


# --- reasoning quality ---


def form(chain: ChainText) -> float:
    """A third each: all six sections once and in order; the chain came to its end; sections of prose that end as sentences do."""
    prose = [chain.sections.get(name, "") for name in SECTIONS if name not in (SECTIONS[EVALUATION], SECTIONS[SELECTION])]
    closed = sum(text.rstrip().endswith((".", "!", "?")) for text in prose) / len(prose)
    return (float(chain.order == SECTIONS) + float(chain.finished) + closed) / 3


def texts(chain: ChainText) -> list[str]:
    """Sections of prose and robots' lines. The justification is not among them: it may repeat the chosen robot's line."""
    return [chain.sections.get(name, "") for name in SECTIONS if name not in (SECTIONS[EVALUATION], SECTIONS[SELECTION])] + list(chain.lines)


def variety(chain: ChainText) -> float:
    """Share of texts that say something, do not run in circles and are no near copy of an earlier one."""
    seen: list[set[str]] = []
    fresh = 0.0
    every = texts(chain)
    for text in every:
        words = words_of(text)
        own = set(words) - {w for name in chain.names for w in words_of(name)}
        copied = any(len(own & other) >= ALIKE * len(own | other) for other in seen)
        if substantial(text, chain.names) and not copied:
            pairs = list(zip(words, words[1:], strict=False))
            fresh += len(set(pairs)) / len(pairs) if pairs else 1.0
        seen.append(own)
    return fresh / len(every)


def without_copies(text: str, task: str) -> str:
    """`text` less every run of COPIED_RUN words or more that stands so in `task`."""
    words, source = words_of(text), words_of(task)
    runs = {tuple(source[i : i + COPIED_RUN]) for i in range(len(source) - COPIED_RUN + 1)}
    copied = [False] * len(words)
    for at in range(len(words) - COPIED_RUN + 1):
        if tuple(words[at : at + COPIED_RUN]) in runs:
            copied[at : at + COPIED_RUN] = [True] * COPIED_RUN
    return " ".join(word for word, drop in zip(words, copied, strict=True) if not drop)


def grounding(chain: ChainText, task: str) -> float:
    """How far thinking, environment, reasoning and the chosen line speak of this task: each by its different words of the task, up to GROUNDED_WORDS."""
    wanted = content(task, chain.names)
    if not wanted:
        return 1.0
    enough = min(GROUNDED_WORDS, len(wanted))
    told = [chain.sections.get(name, "") for name in ("thinking", "environment_analysis", "selection_reasoning")]
    told.append(chain.lines[chain.chosen] if chain.chosen >= 0 else "")
    return sum(min(1.0, len(content(without_copies(text, task), chain.names) & wanted) / enough) for text in told) / len(told)


def agreement(chain: ChainText) -> float:
    """How far the lines speak for the choice and against the rest: the share of other robots whose line denies more than the chosen one's; a tie counts half.

    The line of "No Robot" speaks of the whole fleet; it is left out. Where "No Robot" is the choice, every other line must
    deny. A line that says nothing earns nothing.
    """
    if chain.chosen < 0:
        return 0.0
    machines = [i for i, name in enumerate(chain.names) if name != NO_ROBOT]
    others = [i for i in machines if i != chain.chosen]
    refused = chain.chosen not in machines
    if not others or (not refused and not substantial(chain.lines[chain.chosen], chain.names)):
        return 0.0
    mine = 0 if refused else int(denies(chain.lines[chain.chosen], chain.names))
    score = 0.0
    for other in others:
        if substantial(chain.lines[other], chain.names):
            theirs = int(denies(chain.lines[other], chain.names))
            score += 1.0 if theirs > mine else 0.5 if theirs == mine else 0.0
    return score / len(others)


def length(chain: ChainText) -> float:
    """Mean over all texts: 1 up to the limit in words, down to 0 at twice the limit; an empty text earns 0. No text earns more by being longer."""
    prose = [(chain.sections.get(name, ""), SECTION_WORDS) for name in SECTIONS if name != SECTIONS[EVALUATION]]
    every = [*prose, *((line, LINE_WORDS) for line in chain.lines)]
    score = 0.0
    for text, limit in every:
        count = len(words_of(text))
        score += 0.0 if count == 0 else min(1.0, max(0.0, 2 - count / limit))
    return score / len(every)


def reasoning_quality(chain: ChainText, task: str) -> dict[str, float]:
    """Every part of the quality, 0 to 1: the keys of QUALITY_WEIGHTS."""
    prose = texts(chain)[: -len(chain.lines)] if chain.lines else texts(chain)
    return {
        "form": form(chain),
        "lines": sum(substantial(line, chain.names) for line in chain.lines) / max(1, len(chain.lines)),
        "sections": sum(substantial(text, chain.names) for text in prose) / len(prose),
        "variety": variety(chain),
        "grounding": grounding(chain, task),
        "agreement": agreement(chain),
        "length": length(chain),
    }


def reward(chain: ChainText, task: str, gold: tuple[str, ...]) -> Reward:
    """What a chain earns for a task.

    Args:
        task: the text that the model read.
        gold: names of the acceptable robots.
    """
    success, quality = task_success(chain, gold), reasoning_quality(chain, task)
    return Reward(
        task_success=success["chosen"] * success["robots"],
        reasoning_quality=sum(QUALITY_WEIGHTS[name] * value for name, value in quality.items()),
        parts=success | quality,
    )
