"""The chain of thought as tokens: written for training, held to its form by a grammar when decoded, parsed for display.

    <begin> <thinking> words <end> <environment_analysis> words <end> <robot_evaluation> <robot_1> words <line> ...
    <robot_n> words <line> <end> <selection_reasoning> words <end> <confidence_check> words <end> <robot_selection>
    <robot_k> words <end>

The grammar forces section and robot tokens; every word is the decoder's. `robot_selection` opens with the robot that the
policy chose, its words are the justification.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.events import SECTIONS
from bitmar_core.robots import NO_ROBOT
from bitmar_core.tokenizer import WriterTokenizer

SECTION_STEP = (0, 1, 2, 3, 4, 4)
"""Reasoning step whose state each section is written from."""
EVALUATION, SELECTION = SECTIONS.index("robot_evaluation"), SECTIONS.index("robot_selection")


@dataclass
class Chain:
    """Token ids with the section of each and whether it is a target (forced and unwritten tokens are not)."""

    ids: list[int] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)
    """step index 0..4 of each token"""
    targets: list[bool] = field(default_factory=list)

    def add(self, ids: list[int], step: int, target: bool) -> None:
        """Append tokens of one step."""
        self.ids += ids
        self.sections += [step] * len(ids)
        self.targets += [target] * len(ids)


def section_texts(task: RobotTask, chosen: str, no_robot_line: str) -> list[str | dict[str, str]]:
    """The six sections as text for a task whose answer is `chosen`; the evaluation is a line for each robot.

    Hand-written chains have no line for "No Robot": `no_robot_line` stands there.
    """
    verdicts = dict(task.verdicts)
    if NO_ROBOT in task.fleet.names:
        verdicts.setdefault(NO_ROBOT, no_robot_line)
    first = task.reasoning.split(". ")[0].rstrip(".") + "." if task.reasoning else ""
    justification = first if chosen == NO_ROBOT or chosen not in task.verdicts else task.verdicts[chosen]
    return [task.thinking, task.environment, verdicts, task.reasoning, task.doubt, justification]


def write_chain(texts: list[str | dict[str, str]], names: tuple[str, ...], spoken: tuple[str, ...], chosen: int, tokenizer: WriterTokenizer) -> Chain:
    """Tokens of a chain.

    Args:
        texts: from `section_texts`.
        names: robot names as keys of the evaluation, in the order of the slots.
        spoken: names as they stand in the prose and become slot tokens, same order.
        chosen: index of the chosen robot.
    """
    chain = Chain()
    chain.add([tokenizer.begin], 0, False)
    for index, text in enumerate(texts):
        step = SECTION_STEP[index]
        chain.add([tokenizer.sections[index]], step, False)
        if isinstance(text, dict):
            for slot, name in enumerate(names):
                words = text.get(name, "")
                chain.add([tokenizer.robots[slot]], step, False)
                chain.add([*tokenizer.encode(words, spoken), tokenizer.line], step, bool(words))
            chain.add([tokenizer.end], step, False)
            continue
        if index == SELECTION:
            chain.add([tokenizer.robots[chosen]], step, False)
        chain.add([*tokenizer.encode(text, spoken), tokenizer.end], step, bool(text))
    return chain


@dataclass
class Grammar:
    """What may come next. Feed it every token; it forces structure and leaves words free.

    Args:
        robots: number of robots in the fleet.
        chosen: index of the policy's choice.
        limit: longest free text of a section, in tokens.
        line_limit: longest line about a robot; `limit` where None.
    """

    tokenizer: WriterTokenizer
    robots: int
    chosen: int
    limit: int
    line_limit: int | None = None
    section: int = -1
    slot: int = -1
    """robot whose line is being written, in the evaluation"""
    written: int = 0
    """free tokens since the last forced one"""
    finished: bool = False
    _queue: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queue = [self.tokenizer.begin]
        self._open(0)

    def _open(self, section: int) -> None:
        self._next_section = section
        self._queue.append(self.tokenizer.sections[section])
        if section == EVALUATION:
            self._queue.append(self.tokenizer.robots[0])
        elif section == SELECTION:
            self._queue.append(self.tokenizer.robots[self.chosen])

    @property
    def step(self) -> int:
        """Reasoning step of the next token."""
        section = self.section
        if self._queue and self._queue[0] in self.tokenizer.sections:
            section = self.tokenizer.sections.index(self._queue[0])
        return SECTION_STEP[max(section, 0)]

    @property
    def closing(self) -> int:
        """The token that ends what is being written."""
        return self.tokenizer.line if self.section == EVALUATION else self.tokenizer.end

    def forced(self) -> int | None:
        """The only token that may come next, or None where the decoder chooses."""
        if self._queue:
            return self._queue[0]
        limit = self.line_limit if self.section == EVALUATION and self.line_limit is not None else self.limit
        return self.closing if self.written >= limit else None

    def banned(self) -> list[int]:
        """Special tokens that may not be chosen now; robot slots of this fleet may be named in prose, not at its start."""
        free = {self.closing} if self.written else set()
        if self.written and self.section not in (EVALUATION, SELECTION):
            free |= set(self.tokenizer.robots[: self.robots])
        return sorted(self.tokenizer.special - free)

    def feed(self, token: int) -> None:
        """Take the token that was chosen or forced."""
        if self._queue:
            assert token == self._queue.pop(0)
            if token in self.tokenizer.sections:
                self.section, self.slot = self._next_section, -1
            elif token in self.tokenizer.robots and self.section == EVALUATION:
                self.slot = self.tokenizer.robots.index(token)
            elif token == self.tokenizer.end:
                self._after_section()
            self.written = 0
            return
        if token != self.closing:
            self.written += 1
            return
        self.written = 0
        if self.section == EVALUATION:
            if self.slot + 1 < self.robots:
                self._queue.append(self.tokenizer.robots[self.slot + 1])
            else:
                self._queue.append(self.tokenizer.end)
            return
        self._after_section()

    def _after_section(self) -> None:
        if self.section == SELECTION:
            self.finished = True
        else:
            self._open(self.section + 1)
