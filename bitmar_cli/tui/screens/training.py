"""The training monitor: watches a run through its event log, while it grows or long after."""

from __future__ import annotations

import copy
import time

from textual.app import ComposeResult
from textual.containers import Horizontal

from bitmar_cli.tui.runs import Run
from bitmar_cli.tui.screens.base import BitMarScreen, screen_bindings
from bitmar_cli.tui.widgets.lines import Pane
from bitmar_cli.tui.widgets.run_panes import Curve, Figures, Progress, RunEvents
from bitmar_core.training_requests import listens, request


class TrainingScreen(BitMarScreen):
    """Progress, curve, figures, events."""

    PLACE = "training"
    NAME = "Train"
    BINDINGS = screen_bindings("training")
    AUTO_FOCUS = "Curve"
    held: Run | None = None
    """The run as it was when the view was paused."""

    def body(self) -> ComposeResult:
        """Top to bottom."""
        yield Progress(id="progress")
        with Horizontal(id="body"):
            yield Curve(id="plot")
            yield Figures(id="metrics")
        yield RunEvents(id="run-events")

    def facts_line(self) -> list[str]:
        """The run first."""
        run = self.bitmar.shown_run()
        return [self.NAME] if run is None else [self.NAME, f"run {run.folder.name}", f"step {run.step:,}/{run.total:,}"]

    def state_word(self) -> tuple[str, str]:
        """What the run is doing."""
        run = self.bitmar.shown_run()
        if run is None:
            return "no run", "dim"
        if self.held is not None:
            return "view paused", "warn"
        return run.status(), {"running": "good", "finished": "good"}.get(run.status(), "warn")

    def show(self, changed: set[str]) -> None:
        """Panes follow the log."""
        super().show(changed)
        if "run" in changed and self.held is None:
            for pane in self.query(Pane):
                pane.redraw()

    def action_pause(self) -> None:
        """Hold what is shown, or let it go."""
        run = self.bitmar.state.run
        self.held = copy.deepcopy(run) if self.held is None and run is not None else None
        self.redraw_all()

    def _request(self, what: str, said: str) -> None:
        run = self.bitmar.state.run
        if run is None:
            self.bitmar.say("no run is watched", "warn")
        elif run.status() != "running":
            self.bitmar.say("this run is not going on; there is nobody to ask", "warn")
        elif not listens(run.folder):
            self.bitmar.say("this run takes no requests; Ctrl-C where it runs ends it, and its last saved state stays", "warn")
        else:
            try:
                request(run.folder, what)
                self.bitmar.say(f"asked the run to {said} after its present step; the event log will tell when it has")
            except OSError as error:
                self.bitmar.say(f"cannot write into {run.folder}: {error.strerror or error}", "bad")

    def action_checkpoint(self) -> None:
        self._request("save", "save its state")

    def action_stop_run(self) -> None:
        """Asks first."""
        self.bitmar.confirm("Ask the run to save its state and stop?", lambda: self._request("stop", "save its state and stop"))

    def action_log_scale(self) -> None:
        curve = self.query_one(Curve)
        curve.log_scale = not curve.log_scale
        curve.redraw()

    def action_metric(self) -> None:
        """The next curve."""
        curve = self.query_one(Curve)
        names = curve.metrics()
        curve.metric = names[(names.index(curve.metric) + 1) % len(names)]
        curve.redraw()

    def action_csv(self) -> None:
        """Ask for a file name and write it."""
        run = self.bitmar.shown_run()
        if run is None:
            self.bitmar.say("no run is watched", "warn")
            return
        text = run.csv()

        def write(name: str) -> None:
            from bitmar_cli.names import file_to_write
            from bitmar_core.paths import write_atomic

            write_atomic(file_to_write(name), text.encode())
            self.bitmar.say(f"wrote {name}")

        self.bitmar.ask_text("Write the curve as CSV", f"{run.folder.name}-{time.strftime('%H%M')}.csv", write)

    def action_attach_run(self) -> None:
        self.bitmar.action_attach()
