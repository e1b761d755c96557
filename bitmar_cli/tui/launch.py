"""Starting the full-screen program, or saying in one line why it cannot be."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from bitmar_cli.render import is_terminal
from bitmar_core.errors import MissingError, UsageError


def check_terminal() -> None:
    """Refuse where there is nothing to draw on.

    Raises:
        UsageError: stdin or stdout is no terminal, or a dumb one.
    """
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        raise UsageError("the full-screen program needs a terminal; `bitmar chat --plain` works in a pipe, `bitmar ask` answers once")


def launch(
    *, model: str | None = None, fleet: Path | None = None, memory: str = "read", store: str | None = None, image: str | None = None,
    site: str | None = None, seed: int | None = None, run: Path | None = None, resume: str | None = None, theme: str | None = None,
    opener: str | None = None,
) -> None:  # fmt: skip
    """Run it until the person leaves.

    Raises:
        UsageError: no terminal, an unknown theme, or no such session.
    """
    check_terminal()
    from bitmar_cli.tui import sessions, themes

    if theme is not None and theme not in themes.NAMES:
        raise UsageError(f"there is no theme {theme[:40]!r}; there are: {', '.join(themes.NAMES)}")
    if resume is not None:
        known = sessions.saved()
        found = known[:1] if resume == "last" else [item for item in known if item.name == resume]
        if not found:
            raise MissingError(f"there is no session {resume[:40]!r}; F6 in the program lists those that are saved")
        resume = found[0].name
    if run is not None and not (run / "events.jsonl").is_file():
        raise MissingError(f"there is no events.jsonl in {run}; give the folder of a training run")
    from bitmar_cli.tui.app import BitMarApp
    from bitmar_cli.tui.engine import REAL, Engine
    from bitmar_cli.tui.protocol import Opening

    gc.freeze()  # what is imported stays: without this, each full collection looks at all of it and holds the interface up
    opening = Opening(model=model, fleet=None if fleet is None else str(fleet), memory=memory, store=store)
    app = BitMarApp(Engine(opening, opener=opener or REAL), image=image, site=site, seed=seed, run=run, resume=resume, theme=theme)
    app.run()
    if app.return_code:
        raise SystemExit(app.return_code)
    print(f"session {app.state.session} is saved; `bitmar tui --resume last` goes on with it" if app.state.turns else "nothing was asked")
