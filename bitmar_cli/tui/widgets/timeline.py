"""The reasoning steps of a turn: when each part came, what it chose, how sure it was."""

from __future__ import annotations

from bitmar_cli.answers import ranked, title
from bitmar_cli.render import cells, fit, safe
from bitmar_cli.tui.drawing import Line, num, spread, wrap
from bitmar_cli.tui.turns import Turn, entropy
from bitmar_cli.tui.widgets.lines import Pane, set_title
from bitmar_cli.tui.widgets.robots import short
from bitmar_core.events import SECTIONS


class Timeline(Pane):
    """Steps, times and the way of each probability. `full` adds the text of the chosen step."""

    def __init__(self, *, full: bool = False, **more: object) -> None:
        super().__init__(**more)
        self.full = full

    def build(self, width: int) -> list[Line]:
        """Steps, times, probabilities, then the text."""
        turn = self.bitmar.state.turn()
        set_title(self, "Reasoning steps (F4)")
        if turn is None or not turn.steps:
            return [[("no steps yet: ask something", "dim")]]
        lines = [*self._steps(turn, width), [], *self._paths(turn, width), [], *self._times(turn, width)]
        if self.full:
            lines += [[], *self._text(turn, width)]
        return lines

    def _steps(self, turn: Turn, width: int) -> list[Line]:
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        lines: list[Line] = []
        for index, step in enumerate(turn.steps):
            name, p = ranked(step["probabilities"])[0]
            here = state.step == index
            head = f"{glyphs.fold if here else ' '} {index + 1} {step['name']}"
            facts = [f"{squeeze_name(name, 18)} {num(p):>3}", f"  H {entropy(step['probabilities']):.2f}", f"  V {num(step['value']):>3}"]
            lines.append(spread([(head, "key" if here else "")], [(_fitting(facts, width - len(head) - 1), "" if here else "dim")], width))
        here = state.step is None
        head = f"{glyphs.fold if here else ' '} {glyphs.arrow} together"
        if turn.decision is not None:
            p = turn.decision["probabilities"]
            facts = [f"{squeeze_name(turn.decision['robot'], 18)} {num(turn.decision['confidence']):>3}", f"  H {entropy(p):.2f}", " " * 7]
            lines.append(spread([(head, "key" if here else "")], [(_fitting(facts, width - len(head) - 1), "good" if here else "dim")], width))
        for row in wrap("H: spread of the choice in bits. V: the step's own estimate of its worth. The memory is read once, for all steps.", width):
            lines.append([(row, "dim")])
        return lines

    def _paths(self, turn: Turn, width: int) -> list[Line]:
        glyphs = self.bitmar.glyphs
        names = [name for name, _ in ranked(turn.probabilities(None))]
        gap = f" {glyphs.arrow} "
        if width < 18 + 2 + len(turn.steps) * (3 + len(gap)):
            gap = " " if glyphs.ascii else glyphs.arrow
        size = max(6, min(max(cells(safe(name)) for name in names), 18, width - 1 - len(turn.steps) * (3 + len(gap))))
        lines: list[Line] = []
        for name in names:
            way = gap.join(f"{num(step['probabilities'].get(name, 0.0)):>3}" for step in turn.steps)
            lines.append([(short(name, size), ""), (" " + way, "heat")])
        return lines

    def _times(self, turn: Turn, width: int) -> list[Line]:
        """Wall time, as the events came: the five steps are computed at once, and only writing them takes longer."""
        glyphs = self.bitmar.glyphs
        marks = [("reading and deciding", turn.times["decided"])] if "decided" in turn.times else []
        before = turn.times.get("decided", 0.0)
        for name in SECTIONS:
            if name in turn.times:
                marks.append((f"writing {title(name)}" if width >= 40 else title(name), turn.times[name] - before))
                before = turn.times[name]
        longest = max((seconds for _, seconds in marks), default=0.0)
        size = min(max((len(name) for name, _ in marks), default=0), width - 14)
        bar = max(4, width - size - 12)
        return [
            [(fit(name, size) + " ", "dim"), (glyphs.bar(seconds / longest if longest else 0.0, bar), "heat"), (f" {seconds:.2f} s", "dim")]
            for name, seconds in marks
        ]

    def _text(self, turn: Turn, width: int) -> list[Line]:
        state = self.bitmar.state
        steps = range(len(turn.steps)) if state.step is None else (state.step,)
        lines: list[Line] = []
        for index in steps:
            for name, text in turn.section_texts(index):
                lines.append([(f"{index + 1} {title(name)}", "bold")])
                lines += [[("  " + row, "")] for row in wrap(text.strip("\n"), width - 2)]
        return lines


def _fitting(facts: list[str], width: int) -> str:
    """As many of the facts as fit; where not even the name does, the number alone."""
    while len(facts) > 1 and sum(map(len, facts)) > width:
        facts = facts[:-1]
    said = "".join(facts)
    return said if len(said) <= width else said[-3:]


def squeeze_name(name: str, width: int) -> str:
    """A robot's name in at most `width` columns."""
    return fit(name, width, pad=False)
