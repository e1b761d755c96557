"""How a turn of the conversation reads: lines of a given width. Pure."""

from __future__ import annotations

import os.path

from bitmar_cli.answers import ranked, title
from bitmar_cli.render import safe
from bitmar_cli.tui.drawing import Glyphs, Line, duration, num, spread, squeeze, wrap
from bitmar_cli.tui.protocol import Ablations
from bitmar_cli.tui.turns import Turn, margin
from bitmar_core.events import STEP_NAMES

INDENT = 5


def turn_lines(turn: Turn, width: int, glyphs: Glyphs, why: Ablations | None = None, step: int | None = None) -> list[Line]:
    """The turn, ending with an empty line. `step` is marked where panes show it."""
    if turn.note:
        return [*_said("sys", "dim", turn.note, width), []]
    lines = _said("you", "you", turn.task, width)
    about = [f"photo {os.path.basename(turn.image)}"] if turn.image else []
    about += [f"site: {turn.site}"] if turn.site else []
    for text in about:
        lines += [[(" " * INDENT + row, "dim")] for row in wrap(text, width - INDENT)]
    if turn.truncated:
        lines += [[(" " * INDENT + row, "warn")] for row in wrap("the task is longer than the model reads; its end was left out", width - INDENT)]
    lines.append(_head(turn, width, glyphs))
    if not turn.folded:
        for index in range(len(turn.steps)):
            lines += _step(turn, index, width, glyphs, marked=index == step)
    lines += _outcome(turn, width, glyphs)
    if why is not None:
        lines += why_lines(why, width, glyphs)
    return [*lines, []]


def _said(who: str, style: str, text: str, width: int) -> list[Line]:
    rows = wrap(text, width - INDENT)
    return [[(who.ljust(INDENT), style), (rows[0], "")], *([(" " * INDENT, ""), (row, "")] for row in rows[1:])]


def _head(turn: Turn, width: int, glyphs: Glyphs) -> Line:
    sign = glyphs.fold if turn.folded else glyphs.unfold
    facts = [f"{len(turn.steps)} steps", f"{turn.tokens} pieces" if turn.live else f"{turn.tokens} tokens", duration(turn.seconds) if turn.seconds else ""]
    state = {"waiting": "waiting for the model", "reading": "reading", "writing": "writing", "stopped": "stopped", "length": "cut at its longest"}.get(
        turn.status, ""
    )
    said = ", ".join(fact for fact in [*(facts if turn.steps else []), state] if fact)
    return [("bit".ljust(INDENT), "bot"), (f"{sign} {said}" if said else sign, "dim")]


def _step(turn: Turn, index: int, width: int, glyphs: Glyphs, *, marked: bool) -> list[Line]:
    step = turn.steps[index]
    name, p = ranked(step["probabilities"])[0]
    name = safe(name)
    head = f"{index + 1} {step['name']}"
    right = f"{name} {num(p)}"
    room = width - INDENT - len(head) - 2
    line: Line = [(" " * INDENT, ""), (head, "key" if marked else "bold")]
    if room >= 8:
        line = spread(line, [(squeeze(right, room), "dim")], width)
    lines = [line]
    texts = turn.section_texts(index)
    for section, text in texts:
        if title(section) != STEP_NAMES[index] and len(texts) > 1:
            lines.append([(" " * (INDENT + 2) + title(section), "dim")])
        rows = wrap(text.strip("\n"), width - INDENT - 2)
        lines += [[(" " * (INDENT + 2) + row, "")] for row in rows]
    if turn.live and texts and index == _now(turn):
        lines[-1] = [*lines[-1], (glyphs.cursor, "bot")]
    return lines


def _now(turn: Turn) -> int:
    return max((i for i in range(len(turn.steps)) if turn.section_texts(i)), default=-1)


def _outcome(turn: Turn, width: int, glyphs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    gap = " " * INDENT
    if turn.decision is not None:
        chosen, unsure = turn.decision["robot"], turn.decision["abstained"]
        style = "warn" if unsure else "good"
        said = f"{glyphs.arrow} {safe(chosen)} {num(turn.decision['confidence'])}" + ("  not sure: a best guess" if unsure else "")
        lines += [[(gap, ""), (row, style)] for row in wrap(said, width - INDENT)]
        others = [pair for pair in ranked(turn.decision["probabilities"], first=chosen) if pair[0] != chosen][:1]
        lead = margin(turn.decision["probabilities"])
        if others and lead is not None:
            text = f"next {safe(others[0][0])} {num(others[0][1])} {glyphs.dot} lead {num(lead)}"
            if turn.quality:
                text += f" {glyphs.dot} " + " ".join(f"{name} {num(value)}" for name, value in turn.quality.items())
            lines += [[(gap + row, "dim")] for row in wrap(text, width - INDENT)]
        for slot in turn.memory:
            text = f"memory #{slot['slot']:02} decides {num(slot['weight'])} (similarity {num(slot['similarity'])}): {slot['robot']}"
            lines += [[(gap + row, "heat")] for row in wrap(text, width - INDENT)]
    if turn.status == "stopped":
        lines += [[(gap + row, "warn")] for row in wrap("stopped; what was said is kept, /continue goes on", width - INDENT)]
    if turn.error:
        lines += [[(gap + row, "bad")] for row in wrap(turn.error, width - INDENT)]
    return lines


def why_lines(why: Ablations, width: int, glyphs: Glyphs) -> list[Line]:
    """What each thing that was used is worth: the answer again without it."""
    gap = " " * INDENT
    robot, now = why.present["robot"], why.present["probabilities"]
    lines: list[Line] = [[(gap, ""), ("why", "key"), (" reruns with one thing left out", "dim")]]
    if not why.without:
        lines += [[(gap + row, "dim")] for row in wrap("nothing to leave out: no photo, no site note, no memory was used", width - INDENT)]
    for what, answer in why.without:
        text = f"without {what}: {safe(robot)} {num(now[robot])} {glyphs.arrow} {num(answer['probabilities'].get(robot, 0.0))}"
        if answer["robot"] != robot:
            text += f"; the choice would be {safe(answer['robot'])} {num(answer['confidence'])}"
        lines += [[(gap + row, "")] for row in wrap(text, width - INDENT)]
    return lines
