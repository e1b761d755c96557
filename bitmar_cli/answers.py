"""How the events of an answer are drawn: as lines for a terminal, as plain lines, or as JSON."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bitmar_cli.render import SafeStream, Screen, cells, fit, narrate, safe, to_json
from bitmar_core import events as ev

BAR = 24
EIGHTHS = " ▏▎▍▌▋▊▉█"


def title(section: str) -> str:
    """`robot_evaluation` as a person reads it."""
    return section.replace("_", " ")


def ranked(probabilities: dict[str, float], *, first: str | None = None, top: int | None = None) -> list[tuple[str, float]]:
    """Robots, likeliest first; among equals the chosen one leads."""
    pairs = sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0] != first))
    return pairs if top is None else pairs[:top]


def bar(share: float, width: int = BAR, *, blocks: bool = True) -> str:
    """`share` of `width` columns, to an eighth of a column where block characters can be shown."""
    share = min(max(share, 0.0), 1.0)
    if not blocks:
        return ("#" * round(share * width)).ljust(width)
    full, rest = divmod(round(share * width * 8), 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def quoted(text: str, width: int = 70) -> str:
    """A task in a line about something else: one line, cut."""
    return f'"{fit(text, width, pad=False)}"'


def outcome(answer: dict[str, Any]) -> str:
    """The choice in words."""
    if answer["abstained"]:
        return f"not sure; the best guess is {answer['robot']} (confidence {answer['confidence']:.2f})"
    return f"{answer['robot']} (confidence {answer['confidence']:.2f})"


def probabilities_line(probabilities: dict[str, float], *, chosen: str | None = None, top: int | None = None) -> str:
    """`*Drone 0.83, Humanoid 0.10`."""
    return ", ".join(f"{'*' if name == chosen else ''}{name} {p:.2f}" for name, p in ranked(probabilities, first=chosen, top=top))


def quality_line(quality: dict[str, float | None]) -> str:
    """The four scores; empty where there are none."""
    return ", ".join(f"{name} {value:.2f}" for name, value in quality.items() if value is not None)


def slot_line(slot: dict[str, Any]) -> str:
    """One memory slot that an answer used."""
    weight = f", weight {slot['weight']:.2f}" if slot.get("weight") is not None else ""
    return f"slot {slot['slot']} (similarity {slot['similarity']:.2f}{weight}): {slot['robot']} for {quoted(slot['task'])}"


class Drawer:
    """Draws one answer on a screen while it forms."""

    def __init__(self, screen: Screen, *, top: int | None = None, steps: bool = True) -> None:
        self.screen = screen
        self.top = top
        self.steps = steps
        self._section: str | None = None
        self._text = SafeStream()

    def drawing(self, stream: Iterable[ev.Event]) -> Iterator[ev.Event]:
        """Draw each event and pass it on."""
        for event in stream:
            self.draw(event)
            yield event

    def draw(self, event: ev.Event) -> None:
        """Draw one event."""
        match event:
            case ev.Started(truncated=True):
                narrate("note: the task is longer than the model reads; its end was left out")
            case ev.MemoryRead(slots=slots) if slots:
                for slot in slots:
                    self.screen.line(("memory: ", "magenta"), "read " + slot_line(dataclasses.asdict(slot)))
            case ev.Step() if self.steps:
                self._step(event)
            case ev.Decision():
                self._decision(event)
            case ev.Token():
                self._token(event)
            case ev.Section():
                self._end_section(event)
            case ev.Quality():
                self.screen.line(("quality: ", "dim"), (quality_line(dataclasses.asdict(event)), "dim"))
            case ev.Done():
                self._done(event)

    def _step(self, step: ev.Step) -> None:
        name, p = ranked(step.probabilities)[0]
        self.screen.line((f"step {step.index}: ", "cyan"), f"{step.name}: {name} {p:.2f}", (f" (value {step.value:.2f})", "dim"))

    def _decision(self, decision: ev.Decision) -> None:
        screen = self.screen
        if screen.plain:
            screen.line("robots: " + probabilities_line(decision.probabilities, chosen=decision.robot, top=self.top))
        else:
            screen.line()
            shown = ranked(decision.probabilities, first=decision.robot, top=self.top)
            columns = shutil.get_terminal_size().columns
            width = min(max(cells(safe(name)) for name, _ in shown), max(8, columns - BAR - 8))
            for name, p in shown:
                chosen = name == decision.robot
                style = ("bold yellow" if decision.abstained else "bold green") if chosen else ""
                screen.line((("*" if chosen else " ") + fit(name, width) + " ", style), (bar(p, blocks=screen.unicode), style or "blue"), (f" {p:.2f}", style))
            screen.line()
        if len(decision.suited) > 1:
            screen.line("equally suited: " + ", ".join(decision.suited))

    def _token(self, token: ev.Token) -> None:
        if self.screen.plain:
            return
        if token.section != self._section:
            self._section = token.section
            self._text = SafeStream()
            self.screen.line((title(token.section).capitalize(), "bold"))
        self.screen.piece(self._text.feed(token.text))

    def _end_section(self, section: ev.Section) -> None:
        if self.screen.plain:
            rows = section.text.strip("\n").split("\n")
            self.screen.line(f"{title(section.name)}: {rows[0]}")
            for row in rows[1:]:
                self.screen.line("  " + row)
        elif self._section == section.name:
            self._close_stream()
        else:
            self.screen.line((title(section.name).capitalize(), "bold"))
            self.screen.block(section.text, indent="")
            self.screen.line()

    def _close_stream(self) -> None:
        self.screen.piece(self._text.rest() + "\n")
        self.screen.line()
        self._section = None

    def _done(self, done: ev.Done) -> None:
        if self._section is not None:
            self._close_stream()
        if done.reason == "length":
            narrate("note: the reasoning reached its longest length and was cut there")
        if done.reason == "cancelled":
            narrate("stopped; the part so far is kept")
        if done.answer.get("robot") is not None:
            style = "bold yellow" if done.answer["abstained"] else "bold green"
            self.screen.line(("answer: ", style), (outcome(done.answer), style))


def last(stream: Iterable[ev.Event]) -> ev.Done:
    """Let every event pass; gives the last one."""
    event = None
    for event in stream:  # noqa: B007 - the last one is what counts
        pass
    assert isinstance(event, ev.Done), "the last event of a request is Done"
    return event


JSONL_NAMES = {
    ev.Started: "started",
    ev.MemoryRead: "memory",
    ev.Step: "step",
    ev.Decision: "decision",
    ev.Token: "token",
    ev.Section: "section",
    ev.Quality: "quality",
    ev.Done: "done",
}


def as_lines(stream: Iterable[ev.Event], screen: Screen, *, code: Callable[[ev.Done], int]) -> Iterator[ev.Event]:
    """Print each event as a line of JSON, `{"v":1,"t":"step",...}`, and pass it on.

    Args:
        stream: the events.
        screen: a plain one.
        code: gives the exit code, which the last line carries as "rc".
    """
    for event in stream:
        line: dict[str, Any] = {"v": 1, "t": JSONL_NAMES[type(event)]}
        if isinstance(event, ev.Done):
            line["rc"] = int(code(event))
        line.update(dataclasses.asdict(event))
        screen.stream.write(to_json(line) + "\n")
        screen.stream.flush()
        yield event


def shorten(answer: dict[str, Any], top: int | None) -> dict[str, Any]:
    """The answer with only the `top` likeliest robots in `probabilities`, likeliest first. Without `top` it stays as it is."""
    if top is None or not isinstance(answer.get("probabilities"), dict):
        return answer
    return {**answer, "probabilities": dict(ranked(answer["probabilities"], first=answer.get("robot"), top=top))}


def as_markdown(answer: dict[str, Any]) -> str:
    """One turn of a talk as Markdown. What people or the model wrote is escaped."""

    def md(text: object, *, newlines: bool = False) -> str:
        return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", safe(text, newlines=newlines))

    lines = [f"## {md(answer['task'])}", ""]
    for key in ("image", "site"):
        if answer.get(key):
            lines += [f"{key.capitalize()}: {md(answer[key])}", ""]
    lines += [f"**{md(outcome(answer))}**", "", "| robot | probability |", "| --- | --- |"]
    lines += [
        f"| {'**' if name == answer['robot'] else ''}{md(name)}{'**' if name == answer['robot'] else ''} | {p:.2f} |"
        for name, p in ranked(answer["probabilities"], first=answer["robot"])
    ]
    lines.append("")
    for name, text in answer["reasoning"].items():
        lines += [f"### {title(name).capitalize()}", "", md(text, newlines=True).replace("\n", "  \n"), ""]
    if quality_line(answer["quality"]):
        lines += ["Quality: " + quality_line(answer["quality"]), ""]
    lines += [f"- memory: {md(slot_line(slot))}" for slot in answer["memory"]] + ([""] if answer["memory"] else [])
    return "\n".join(lines)
