"""The real application with the scripted engine: what keys and commands do, judged by the state first."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path

import pytest
import tui_fakes as fakes

from bitmar_cli.tui import protocol as p
from bitmar_cli.tui import sessions
from bitmar_cli.tui.app import BitMarApp
from bitmar_cli.tui.screens.dialogs import ShowText
from bitmar_cli.tui.turns import Turn
from bitmar_cli.tui.widgets.conversation import Conversation
from bitmar_cli.tui.widgets.picture import Picture
from bitmar_cli.tui.widgets.robots import Robots
from bitmar_cli.tui.widgets.slots import Slots
from bitmar_cli.tui.widgets.task_input import TaskInput

SETTLE = 0.1
"""Seconds that the pilot itself waits around a key."""

pytestmark = pytest.mark.usefixtures("own_home")


def run(test, *, size=(80, 24), engine=None, **options) -> None:
    """Run `test(pilot, app)` in the application."""
    import asyncio

    async def go() -> None:
        app = BitMarApp(engine or fakes.ThreadEngine(), **options)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await test(pilot, app)

    asyncio.run(go())


async def say(pilot, text: str) -> None:
    pilot.app.screen.query_one(TaskInput).put(text)
    await pilot.press("enter")


def screen_text(app) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def test_a_first_answer(until) -> None:
    async def test(pilot, app) -> None:
        await say(pilot, "Inspect the hull of the ferry")  # before the model is there: it waits its turn
        assert app.state.turns[-1].task == "Inspect the hull of the ferry"
        await until(pilot, lambda: app.state.status == "ready" and app.state.last().status == "done")
        await pilot.pause(0.1)
        assert "Underwater Robot .72" in screen_text(app)
        assert app.screen.query_one(Robots).text.startswith("*Underwater Robot")
        assert [t.task for t in sessions.load(app.state.session)] == ["Inspect the hull of the ferry"]

    run(test)


def test_escape_stops_within_100_ms_and_keeps_what_was_said(until) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "crawl over the roof")
        await until(pilot, lambda: app.state.last().sections)
        stalls = Stalls()
        began, waited = time.perf_counter(), stalls.waited()
        await pilot.press("escape")
        took = time.perf_counter() - began - (stalls.waited() - waited)
        assert app.state.last().status == "stopped" and took < 0.1 + SETTLE, took
        said = dict(app.state.last().sections)
        await until(pilot, lambda: app.state.status == "ready")
        assert app.state.last().sections == said
        await pilot.pause(0.2)
        (kept,) = sessions.load(app.state.session)
        assert kept.status == "stopped" and kept.sections == said

    run(test)


def test_a_second_task_can_follow_at_once(until) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "slow look at the roof")
        await until(pilot, lambda: app.state.last().sections)
        await pilot.press("ctrl+c")
        await say(pilot, "Go up the stairs")
        await until(pilot, lambda: app.state.last().status == "done")
        assert [t.status for t in app.state.turns] == ["stopped", "done"]

    run(test)


def test_teach_ask_again_without_and_undo(until) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.memory is not None)
        await say(pilot, "Look at the roof")
        await until(pilot, lambda: app.state.last().status == "done")
        await say(pilot, "/teach Humanoid because the drone is at the workshop")
        await until(pilot, lambda: len(app.state.memory.rows) == 1)
        await say(pilot, "Look at the roof")
        await until(pilot, lambda: len(app.state.turns) == 2 and app.state.last().status == "done")
        assert app.state.last().decision["robot"] == "Humanoid" and app.state.weights() == {0: 0.8}
        await pilot.press("f2")
        await until(pilot, lambda: app.state.nearness is not None)
        await pilot.press("w")
        await until(pilot, lambda: 0 in app.state.reruns)
        await pilot.pause(0.1)
        assert "workshop" in screen_text(app) and "without it" in screen_text(app)
        await pilot.press("p")
        await until(pilot, lambda: app.state.memory.rows[0].pinned)
        await pilot.press("f", "y")
        await until(pilot, lambda: not app.state.memory.rows)
        await pilot.press("u")
        await until(pilot, lambda: app.state.memory.rows)
        await pilot.press("escape")
        await pilot.pause()
        assert app.place == "chat"

    run(test)


def test_the_memory_is_shared_found_sorted_and_compared(until, tmp_path: Path) -> None:
    session = fakes.open_scripted()
    for task, robot in (("Look at the roof", "Drone"), ("Mop the pool hall", "Robot with Wheels")):
        session.teach(task, robot)

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.memory is not None)
        await pilot.press("f2")
        await pilot.pause()
        file = tmp_path / "shared.json"
        await pilot.press("x", "ctrl+u", *str(file), "enter")
        await until(pilot, file.exists)
        await pilot.press("f", "y")
        await until(pilot, lambda: len(app.state.memory.rows) == 1)
        await pilot.press("d", "ctrl+u", *str(file), "enter")
        await until(pilot, lambda: isinstance(app.screen, ShowText))
        await pilot.press("escape", "m", "ctrl+u", *str(file), "enter")
        await until(pilot, lambda: len(app.state.memory.rows) == 2)
        await pilot.press("slash", *"pool", "enter")
        await until(pilot, lambda: app.screen.query(Slots) and app.screen.query_one(Slots).count() == 1)
        await pilot.press("s", "e", "c")
        assert app.screen.query_one(Slots).sort == "slot" and "Mop the pool hall" in app.clipboard

    run(test)


def test_steps_move_bars_and_overlay(until, photo: str) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: photo in app.state.pictures)
        await say(pilot, "Inspect the hull")
        await until(pilot, lambda: app.state.last().status == "done")
        await pilot.press("f3")
        await pilot.pause(0.1)
        last = app.screen.query_one(Picture).text
        assert "of 7x7" in last
        await pilot.press("left", "left")
        await pilot.pause(0.1)
        assert app.state.step == 3 and "4,4 of 7x7" in app.screen.query_one(Picture).text
        await pilot.press("o", "z", "f4")
        await pilot.pause(0.1)
        assert ".70" in app.screen.query_one(Robots).text.splitlines()[0]
        await pilot.press("right", "right")
        assert app.state.step is None

    run(test, image=photo)


def test_why_reruns_without_each_thing(until, photo: str) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "Inspect the hull")
        await until(pilot, lambda: app.state.last().status == "done")
        await pilot.press("escape", "w")
        await until(pilot, lambda: app.state.why)
        await pilot.pause(0.1)
        assert "without the photo: Underwater Robot .80 → .72" in " ".join(app.screen.query_one(Conversation).text.split())

    run(test, image=photo)


def test_user_text_is_never_markup(until) -> None:
    texts = json.loads((Path(__file__).parents[1] / "hostile_texts.json").read_text())

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        for text in texts:
            app.state.turns.append(app.state.new_turn(text))
            app.state.turns[-1].status = "done"
        app.changed({"turns", "answer"})
        app.state.memory = fakes.memory_of(0, 32)
        app.say("[bold]not bold[/bold] \x1b[31m")
        for key in ("f4", "f2", "escape"):
            await pilot.press(key)
            await pilot.pause()
        shown = app.screen.query_one(Conversation).text
        assert "[link=https://evil.example]x[/link]" in shown and "[bold]not bold[/bold]" in screen_text(app)
        assert not any(ord(char) < 32 and char != "\n" or 127 <= ord(char) < 160 for char in shown + screen_text(app))

    run(test)


def test_a_dropped_photo_and_one_that_is_not_there(until, photo: str) -> None:
    from textual import events

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        app.screen.query_one(TaskInput).post_message(events.Paste(f"'{photo}' "))
        await until(pilot, lambda: photo in app.state.pictures)
        assert app.state.image == photo and app.screen.query_one(TaskInput).text == ""
        await say(pilot, "/image /no/such.png")
        await until(pilot, lambda: app.state.image is None)
        assert "no such file" in app.state.said

    run(test)


def test_sessions_are_resumed(until) -> None:
    async def first(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "Look at the roof")
        await until(pilot, lambda: app.state.last().status == "done")
        names.append(app.state.session)

    async def second(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        assert [t.task for t in app.state.turns] == ["Look at the roof"]
        await say(pilot, "/new")
        await until(pilot, lambda: not app.state.turns)
        await pilot.press("f6")
        await pilot.pause(0.1)
        assert "Look at the roof" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.place == "chat" and app.state.turns)
        assert app.state.session == names[0] and app.state.next_id > max(t.request for t in app.state.turns)

    names: list[str] = []
    run(first)
    run(second, resume=names[0])


def test_a_dead_worker_is_reported_and_started_again() -> None:
    engine = fakes.SilentEngine()

    async def test(pilot, app) -> None:
        engine.coming.append(fakes.READY)
        await pilot.pause(0.2)
        await say(pilot, "a task")
        engine.coming.append(p.Died(code=-9, log="x.log"))
        await pilot.pause(0.2)
        assert app.state.turns[-1].status == "failed" and engine.starts == 2 and "started again" in app.state.said
        for _ in range(5):
            engine.coming.append(p.Died(code=1, log="x.log"))
        await pilot.pause(0.2)
        assert engine.starts == 4 and app.state.status == "down"
        await pilot.press("ctrl+p", *"restart the model")
        await pilot.pause(0.8)
        await pilot.press("enter")
        await pilot.pause(0.3)
        assert engine.starts == 5 and app.state.status == "loading"

    run(test, engine=engine)


def test_the_palette_opens_the_screen_that_an_action_belongs_to(until) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        app.perform("sort", "memory")
        await until(pilot, lambda: app.screen.query(Slots) and app.screen.query_one(Slots).sort == "slot")
        app.perform("show_training", "app")
        await until(pilot, lambda: app.place == "training")
        app.perform("focus_task", "chat")
        await until(pilot, lambda: isinstance(app.focused, TaskInput))

    run(test)


def test_training_is_watched_paused_and_asked(until, tmp_path: Path) -> None:
    from bitmar_core import training_requests as requests

    folder = tmp_path / "a-run"
    folder.mkdir()
    log = folder / "events.jsonl"
    rows = [{"step": 10 * i, "total": 400, "kind": "robots", "loss": 3.0 / i, "learning_rate": 1e-4, "grad_norm": 0.8, "robot": 1.0 / i} for i in range(1, 20)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def test(pilot, app) -> None:
        await pilot.press("f5")
        await until(pilot, lambda: app.state.run is not None and app.state.run.step == 190)
        await pilot.pause(0.2)
        assert "190/400" in screen_text(app) and "running" in screen_text(app)
        await pilot.press("k")
        assert "takes no requests" in app.state.said
        requests.listen(folder)
        await pilot.press("k")
        assert requests.taken(folder) == "save"
        await pilot.press("space")
        with log.open("a") as file:
            file.write(json.dumps(rows[-1] | {"step": 200}) + "\n")
        await until(pilot, lambda: app.state.run.step == 200)
        assert app.shown_run().step == 190
        await pilot.press("space", "l", "m")
        await pilot.pause(0.1)
        assert app.shown_run().step == 200 and "robot (log)" in screen_text(app)

    run(test, run=folder)


def test_export_copy_and_help(until, tmp_path: Path) -> None:
    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "Look at the roof")
        await until(pilot, lambda: app.state.last().status == "done")
        for name in ("talk.md", "talk.json", "screen.svg"):
            await say(pilot, f"/save {tmp_path / name}")
            await until(pilot, (tmp_path / name).exists)
        assert (tmp_path / "screen.svg").read_text().startswith("<svg")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "Look at the roof" in app.clipboard)
        await pilot.press("f1")
        await pilot.pause()
        assert isinstance(app.screen, ShowText)
        await pilot.press("escape", "ctrl+o", "T")
        await until(pilot, lambda: app.place == "training")

    run(test)


def test_resizing_twenty_times_ends_well(until) -> None:
    import asyncio

    from textual import events
    from textual.geometry import Size

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        await say(pilot, "slow look at the roof")
        for i in range(20):
            size = Size(40 + (i * 37) % 180, 10 + (i * 13) % 55)
            app.post_message(events.Resize(size, size))
            await asyncio.sleep(0.01)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.state.last().status == "done", 20)
        await pilot.pause(0.2)
        assert "Drone" in screen_text(app) and app.screen.query_one(Robots).region.right <= 80

    run(test)


# --- large and busy ---


def canned_turns(count: int) -> list[Turn]:
    steps = [{"name": n, "probabilities": {"Drone": 0.7, "Humanoid": 0.3}, "value": 0.5, "attention": []} for n in ("context analysis", "environment analysis")]
    decision = {"robot": "Drone", "confidence": 0.7, "abstained": False, "probabilities": {"Drone": 0.7, "Humanoid": 0.3}, "suited": ["Drone"]}
    text = "The place is looked at again, and what is known of it is weighed with care and patience. "
    return [
        Turn(id=i, task=f"Task {i}", status="done", steps=steps, decision=decision, sections={"thinking": text * 2, "environment_analysis": text})
        for i in range(1, count + 1)
    ]


class Stalls:
    """How long a handler held the interface up: a task that wants its turn every few milliseconds, less what the system made this thread wait."""

    def __init__(self) -> None:
        self.longest = self.worked = 0.0
        gc.collect()
        gc.freeze()  # as the program does when it starts: else collections of what other tests imported are measured
        tasks = Path("/proc/thread-self/schedstat")
        self._file = tasks.resolve() if tasks.exists() else None

    def waited(self) -> float:
        """Seconds that this thread was ready and another program had the processor (Linux)."""
        return int(self._file.read_text().split()[1]) / 1e9 if self._file is not None else 0.0

    async def watch(self) -> None:
        import asyncio

        while True:
            before, waited, worked = time.perf_counter(), self.waited(), time.thread_time()
            await asyncio.sleep(0.005)
            held = time.perf_counter() - before - 0.005 - (self.waited() - waited)
            if held > self.longest:
                self.longest, self.worked = held, time.thread_time() - worked


def test_the_stall_meter_sees_a_stall() -> None:
    import asyncio

    async def go() -> float:
        stalls = Stalls()
        watching = asyncio.create_task(stalls.watch())
        await asyncio.sleep(0.02)
        time.sleep(0.3)
        await asyncio.sleep(0.02)
        watching.cancel()
        return stalls.longest

    assert asyncio.run(go()) > 0.25


LIMIT = 0.15


def test_ten_thousand_lines_scroll(until) -> None:
    import asyncio

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready")
        app.state.turns = canned_turns(900)
        chat = app.screen.query_one(Conversation)
        stalls = Stalls()
        watching = asyncio.create_task(stalls.watch())
        app.changed({"session"})
        await until(pilot, lambda: chat.count() >= 10_000, 20)
        chat.focus()
        for key in ("home", "pagedown", "end", "pageup"):
            await pilot.press(key)
            await pilot.pause(0.05)
        await pilot.press("end")
        await until(pilot, lambda: chat.at_end)
        watching.cancel()
        assert stalls.longest < LIMIT, f"held up for {stalls.longest * 1000:.0f} ms, {stalls.worked * 1000:.0f} of them at work"
        assert "Task 900" in chat.text

    run(test)


def test_ten_thousand_slots_scroll(until) -> None:
    import asyncio

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.memory is not None)
        memory = fakes.memory_of(10_000)
        await pilot.press("f2")
        stalls = Stalls()
        await pilot.pause()
        watching = asyncio.create_task(stalls.watch())
        app.state.apply(memory)
        app.changed({"memory"})
        for key in ("pagedown", "end", "pageup", "home", "s", "down"):
            await pilot.press(key)
            await pilot.pause(0.02)
        watching.cancel()
        assert app.screen.query_one(Slots).count() == 10_000
        assert stalls.longest < LIMIT, f"held up for {stalls.longest * 1000:.0f} ms, {stalls.worked * 1000:.0f} of them at work"

    run(test)


def test_a_worker_that_hogs_a_core_does_not_hold_up_the_interface(until, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import os

    from bitmar_cli.tui.engine import Engine

    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(Path(__file__).parent)]))

    async def test(pilot, app) -> None:
        await until(pilot, lambda: app.state.status == "ready", 20)
        stalls = Stalls()
        watching = asyncio.create_task(stalls.watch())
        await say(pilot, "hog slow look at the roof")
        await until(pilot, lambda: len(app.state.last().sections) >= 2, 20)
        await pilot.press("f2", "escape", "escape")
        watching.cancel()
        assert stalls.longest < LIMIT, f"held up for {stalls.longest * 1000:.0f} ms, {stalls.worked * 1000:.0f} of them at work"

    run(test, engine=Engine(p.Opening(), opener="tui_fakes:open_scripted"))
