"""A training run, drawn: progress, curve, figures, what happened. All of it is read from the run's event log."""

from __future__ import annotations

import math
import time
from typing import Any

from bitmar_cli.render import fit, safe
from bitmar_cli.tui.drawing import Glyphs, Line, duration, spread, squeeze
from bitmar_cli.tui.runs import Run
from bitmar_cli.tui.widgets.lines import Pane, set_title

NO_RUN = "no run is watched: a (here) or /run PATH attaches to a folder with an events.jsonl"


def compact(value: Any) -> str:
    """A figure in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def progress_lines(run: Run, width: int, glyphs: Glyphs) -> list[Line]:
    """A bar with share, rate and time left; then the figures of the last step."""
    share = run.step / run.total if run.total else 0.0
    rate, left = run.rate(), run.left()
    speed = f"{rate:.2f} steps/s, about {duration(left)} left" if rate and left is not None and run.status() == "running" else "rate: not seen yet"
    if run.finished:
        speed = "finished"
    right = f" {share * 100:3.0f}%  {run.stage or '-'} {run.step:,}/{run.total:,}  {speed}"
    bar = max(4, width - len(right))
    facts = []
    for name, label in (("learning_rate", "lr"), ("grad_norm", "grad"), ("seconds", "s/step"), ("ram_gb", "ram GB"), ("kwh", "kWh (estimate)")):
        value = run.latest.get(name)
        if isinstance(value, int | float):
            facts.append(f"{label} {value:.1e}" if name == "learning_rate" else f"{label} {compact(float(value))}")
    facts.append(f"log grew {duration(max(0.0, time.time() - run.changed))} ago")
    return [[(glyphs.bar(share, bar), "heat"), (squeeze(right, width), "")], [(squeeze(f" {glyphs.dot} ".join(facts), width), "dim")]]


class Progress(Pane):
    """How far the run is."""

    def build(self, width: int) -> list[Line]:
        """Two lines."""
        run = self.bitmar.shown_run()
        set_title(self, "Progress")
        return [[(squeeze(NO_RUN, width), "dim")]] if run is None else progress_lines(run, width, self.bitmar.glyphs)


class Curve(Pane):
    """The loss, or a part of it or of the reward."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.log_scale = False
        self.metric = "loss"

    def metrics(self) -> list[str]:
        """What can be plotted."""
        run = self.bitmar.shown_run()
        return ["loss", *(run.parts if run else ())]

    def build(self, width: int) -> list[Line]:
        """Axis, curve, steps."""
        run, glyphs = self.bitmar.shown_run(), self.bitmar.glyphs
        if self.metric not in self.metrics():
            self.metric = "loss"
        set_title(self, f"{self.metric}{' (log)' if self.log_scale else ''}")
        points = [] if run is None else run.losses if self.metric == "loss" else run.parts[self.metric]
        height = self.size.height - 2
        if len(points) < 2 or height < 2 or width < 20:
            return [[("no curve yet", "dim")]]
        ys = [(x, math.log10(y)) for x, y in points if y > 0] if self.log_scale else list(points)
        if len(ys) < 2:
            return [[("nothing above zero to show on a logarithmic scale", "dim")]]
        plot = glyphs.plot(ys, width - 9, height)
        low, high = min(y for _, y in ys), max(y for _, y in ys)
        lines: list[Line] = []
        for row, text in enumerate(plot):
            value = high - (high - low) * row / max(1, height - 1)
            value = 10**value if self.log_scale else value
            label = f"{value:8.3g} " if row % 3 == 0 or row == height - 1 else " " * 9
            lines.append([(label, "dim"), (text, "heat")])
        lines.append(spread([(" " * 9 + f"step {points[0][0]:,.0f}", "dim")], [(f"{points[-1][0]:,.0f}", "dim")], width))
        lines.append([(squeeze(f"{self.metric} now {points[-1][1]:.4g}, lowest {min(y for _, y in points):.4g}", width), "")])
        return lines


class Figures(Pane):
    """Parts of the loss, rewards, and what finished stages measured."""

    def build(self, width: int) -> list[Line]:
        """A line for each."""
        run, glyphs = self.bitmar.shown_run(), self.bitmar.glyphs
        set_title(self, "Figures")
        if run is None:
            return []
        lines: list[Line] = []
        rewards = run.rewards()
        for name, points in run.parts.items():
            value = compact(points[-1][1])
            spark = glyphs.sparkline([y for _, y in points], max(0, width - 16 - 8 - 1))
            lines.append([(fit(safe(name.replace("_", " ")), 16), "good" if name in rewards else ""), (f"{value:>7} ", ""), (spark, "heat")])
        if run.figures:
            lines.append([("measured at the end of a stage", "dim")])
        for name, value in run.figures.items():
            shown = fit(compact(value), 12, pad=False)
            lines.append(spread([(fit(safe(name), max(4, width - len(shown) - 1), pad=False), "")], [(shown, "")], width))
        return lines


class RunEvents(Pane):
    """What happened, the latest first."""

    def build(self, width: int) -> list[Line]:
        """A line for each event."""
        run = self.bitmar.shown_run()
        set_title(self, "Events")
        if run is None:
            return []
        lines: list[Line] = [[(squeeze(event, width), "")] for event in reversed(run.events)]
        if run.bad_lines:
            lines.insert(0, [(f"{run.bad_lines} lines of the log could not be read", "warn")])
        return lines


class RunStrip(Pane):
    """A run in four lines, under the chat of a large terminal."""

    def build(self, width: int) -> list[Line]:
        """Progress and sparklines."""
        run, glyphs = self.bitmar.shown_run(), self.bitmar.glyphs
        if run is None:
            return []
        set_title(self, f"Training (F5)  {run.folder.name}  read-only")
        lines = progress_lines(run, width, glyphs)
        if run.losses:
            lines.append([(f"loss {run.losses[-1][1]:.4g} ", ""), (glyphs.sparkline([y for _, y in run.losses], max(10, width - 20)), "heat")])
        parts = "  ".join(f"{name} {compact(points[-1][1])}" for name, points in run.parts.items())
        return [*lines, [(squeeze(parts, width), "dim")]]
