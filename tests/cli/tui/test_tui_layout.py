"""Each screen at three sizes, in colour and without, against stored pictures; and that nothing is cut or overlaps.

`BITMAR_SNAPSHOTS=write python -m pytest tests/cli/tui/test_tui_layout.py` stores new pictures.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
import tui_fakes as fakes

from bitmar_cli.tui import protocol as p
from bitmar_cli.tui import sessions
from bitmar_cli.tui.app import BitMarApp
from bitmar_cli.tui.drawing import Glyphs
from bitmar_cli.tui.runs import Run
from bitmar_cli.tui.screens.base import BitMarScreen
from bitmar_cli.tui.widgets.lines import Pane
from bitmar_cli.tui.widgets.picture import Picture

STORED = Path(__file__).with_name("snapshots")
SIZES = [(80, 24), (120, 36), (200, 60)]
SCREENS = {"chat": "", "image": "f3", "steps": "f4", "memory": "f2", "training": "f5", "sessions": "f6"}

pytestmark = pytest.mark.usefixtures("own_home")


def canned(app: BitMarApp, photo: str, folder: Path) -> None:
    """A state with a bit of everything, the same every time."""
    state = app.state
    state.session = "2026-01-31-abcd"
    state.apply(fakes.READY)
    state.image = "site.png"
    session = fakes.ScriptedSession(memory="off")
    state.pictures["site.png"] = p.Looked(path="site.png", side=16, **session.preview(photo, 16))
    for task, image in (("Look at the roof [bold]after[/bold] the storm", None), ("Inspect the hull of the ferry at its berth before the evening tide", photo)):
        turn = state.new_turn(task)
        turn.image = None
        state.turns.append(turn)
        for event in session.ask(task, image=image):
            turn.take(event, 0.5)
        turn.image = "site.png" if image else None
    state.turns[-1].memory = [{"slot": 3, "similarity": 0.97, "weight": 0.8, "robot": "Underwater Robot", "task": "The hull of a barge"}]
    state.turns[0].folded = True
    state.next_id = 3
    state.memory = fakes.memory_of(9, 32)
    state.nearness = p.Nearness(question=state.question(), similarity={i: 0.9 - 0.17 * i for i in range(9)})
    rows = [{"step": 10 * i, "total": 400, "kind": "robots", "loss": 3.0 / i, "learning_rate": 1e-4, "grad_norm": 0.8, "robot": 1.0 / i} for i in range(1, 20)]
    rows.append({"stage": "selection", "held_out_tasks": {"n": 297, "top1": 0.8788}})
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "events.jsonl", (time.time() - 500, time.time() - 500))
    state.run = Run(folder)
    state.run.read(now=1.0)
    state.run.changed = time.time() - 500
    state.say("photo site.png 160x120 sha 1234")


def picture_of(app: BitMarApp, *, colours: bool) -> str:
    """The characters of the screen; with colours, also a letter for the style of each."""
    strips = list(app.screen._compositor.render_strips())
    text = "\n".join(strip.text.rstrip() for strip in strips) + "\n"
    if not colours:
        return text
    photo = [pane.region for pane in app.screen.query(Picture) if pane.region]
    names: dict[str, str] = {}
    rows = []
    for y, strip in enumerate(strips):
        row, x = "", 0
        for segment in strip:
            style = str(segment.style)
            for _ in range(segment.cell_length):
                if any(region.contains(x, y) for region in photo):
                    row += " "
                else:
                    row += names.setdefault(style, chr(ord("A") + len(names) % 26) if len(names) < 26 else chr(ord("a") + len(names) % 26))
                x += 1
        rows.append(row)
    legend = "\n".join(f"{letter} {style}" for style, letter in names.items())
    return text + "\n".join(rows) + "\n" + legend + "\n"


def check_layout(app: BitMarApp, width: int, height: int) -> None:
    """Everything that is shown lies on the screen, and no pane on another."""
    panes = [pane for pane in app.screen.query(Pane) if pane.region]
    assert panes
    for pane in panes:
        assert pane.region.right <= width and pane.region.bottom <= height and pane.region.x >= 0 and pane.region.y >= 1, pane
        assert pane.size.height >= 1 and pane.inner >= 12, pane
        for y in range(min(pane.count(), 200)):
            if not isinstance(pane, Picture):
                assert sum(fakes.cells(text) for text, _ in pane.line(y)) <= pane.inner + 1, (pane, y, pane.line(y))
    for i, one in enumerate(panes):
        assert not any(one.region.overlaps(other.region) for other in panes[i + 1 :])
    for line in ("#top", "#said", "#keys"):
        assert app.screen.query_one(line).region.width == width
    assert len(app.screen.query_one("#keys").text) <= width


@pytest.mark.parametrize("colours", [True, False], ids=["colour", "NO_COLOR"])
@pytest.mark.parametrize(("width", "height"), SIZES, ids=[f"{w}x{h}" for w, h in SIZES])
def test_screens(width: int, height: int, colours: bool, photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sessions, "saved", lambda: [sessions.Saved(name="2026-01-31-abcd", changed=0.0, bytes=9, first="Look at the roof")])
    monkeypatch.setattr(sessions, "folder", lambda: Path("sessions"))
    monkeypatch.setattr(time, "localtime", time.gmtime)
    from bitmar_cli.tui.widgets import run_panes, slot_panes, slots

    monkeypatch.setattr(slots, "age_days", lambda row: 7)
    monkeypatch.setattr(slot_panes, "age_days", lambda row: 7)
    monkeypatch.setattr(run_panes, "duration", lambda seconds: "8 min")
    folder = tmp_path / "a-run"
    folder.mkdir()
    found: dict[str, str] = {}

    async def go() -> None:
        app = BitMarApp(fakes.SilentEngine())
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause(0.1)
            app.screen.query_one("TaskInput").show_cursor = False
            canned(app, photo, folder)
            app.changed({"session", "turns", "answer", "image", "memory", "status", "run"})
            for name, key in SCREENS.items():
                if key:
                    await pilot.press(key)
                for _ in range(3):
                    await pilot.pause(0.02)
                assert isinstance(app.screen, BitMarScreen) and name == app.screen.PLACE
                check_layout(app, width, height)
                if not colours:
                    for strip in app.screen._compositor.render_strips():
                        for segment in app_filtered(app, strip):
                            used = (segment.style.color, segment.style.bgcolor) if segment.style else ()
                            assert all(colour is None or colour.is_default for colour in used), segment
                found[name] = picture_of(app, colours=colours)

    asyncio.run(go())
    for name, picture in found.items():
        file = STORED / f"{name}-{width}x{height}-{'colour' if colours else 'plain'}.txt"
        if os.environ.get("BITMAR_SNAPSHOTS") == "write":
            STORED.mkdir(exist_ok=True)
            file.write_text(picture, encoding="utf-8")
        assert picture == file.read_text(encoding="utf-8"), f"{file.name} differs; BITMAR_SNAPSHOTS=write stores the new one"


def app_filtered(app: BitMarApp, strip):
    """What reaches the terminal: after the application's filters."""
    from textual.color import Color

    segments = list(strip)
    for line_filter in app._filters:
        if line_filter.enabled:
            segments = line_filter.apply(segments, Color(0, 0, 0))
    return segments


def test_ascii_shows_nothing_else(photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli.tui import themes

    monkeypatch.setattr(themes, "ascii_only", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM")

    async def go() -> None:
        app = BitMarApp(fakes.SilentEngine())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause(0.1)
            canned(app, photo, tmp_path)
            app.changed({"session", "turns", "answer", "image", "memory", "status", "run"})
            for key in ("f3", "f2", "f4", "f5", "escape"):
                await pilot.press(key)
                await pilot.pause(0.05)
                text = "".join(strip.text for strip in app.screen._compositor.render_strips())
                assert text.isascii(), sorted({char for char in text if not char.isascii()})

    asyncio.run(go())


@pytest.mark.parametrize(("width", "height"), [(40, 12), (59, 40), (90, 15), (20, 6)])
def test_small_terminals_show_the_chat(width: int, height: int) -> None:
    async def go() -> None:
        app = BitMarApp(fakes.SilentEngine())
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause(0.1)
            assert app.screen.query_one("#chat").region and not app.screen.query_one("#robots").region
            assert "small terminal" in app.state.said

    asyncio.run(go())


def test_themes_are_all_there() -> None:
    from bitmar_cli.tui import themes

    async def go() -> None:
        app = BitMarApp(fakes.SilentEngine())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause(0.05)
            seen = []
            for _ in themes.THEMES:
                seen.append(app.theme)
                app.action_next_theme()
                await pilot.pause()
            assert seen == [theme.name for theme in themes.THEMES] and Glyphs().ascii is False

    asyncio.run(go())
