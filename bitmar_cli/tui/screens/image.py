"""The photo, large, with the attention of each step."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from bitmar_cli.tui.outside import opened
from bitmar_cli.tui.screens.base import BitMarScreen, screen_bindings
from bitmar_cli.tui.widgets.picture import Picture
from bitmar_cli.tui.widgets.robots import Robots
from bitmar_cli.tui.widgets.timeline import Timeline


class StepsMixin(BitMarScreen):
    """Steps chosen with the arrow keys."""

    def show(self, changed: set[str]) -> None:
        """Panes follow the state."""
        super().show(changed)
        if changed & {"answer", "image", "turns", "session", "turn", "ended"}:
            for pane in self.query("Timeline, Robots, Picture"):
                if "turns" not in changed or changed - {"turns"} or isinstance(pane, Timeline):
                    pane.redraw()  # type: ignore[attr-defined]

    def action_step_back(self) -> None:
        self.bitmar.go_step(-1)

    def action_step_on(self) -> None:
        self.bitmar.go_step(1)


class ImageScreen(StepsMixin):
    """Photo left, steps right."""

    PLACE = "image"
    NAME = "Image"
    BINDINGS = screen_bindings("image")
    AUTO_FOCUS = "Picture"

    def body(self) -> ComposeResult:
        """Two columns."""
        with Horizontal(id="body"):
            yield Picture(id="photo")
            with Vertical(id="image-side"):
                yield Timeline()

    def action_overlay(self) -> None:
        picture = self.query_one(Picture)
        picture.overlay = not picture.overlay
        picture.redraw()

    def action_zoom(self) -> None:
        picture = self.query_one(Picture)
        picture.zoom = not picture.zoom
        picture.redraw()

    def action_open_outside(self) -> None:
        """In another program."""
        picture = self.bitmar.state.picture()
        self.bitmar.say("no photo" if picture is None else opened(picture.path))


class StepsScreen(StepsMixin):
    """Steps with their text; robots beside them."""

    PLACE = "steps"
    NAME = "Steps"
    BINDINGS = screen_bindings("steps")
    AUTO_FOCUS = "Timeline"

    def body(self) -> ComposeResult:
        """Two columns."""
        with Horizontal(id="body"):
            yield Timeline(full=True)
            with Vertical(id="side"):
                yield Picture()
                yield Robots()
