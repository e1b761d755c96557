"""The state, the sessions' files, runs and small pictures: everything that needs no screen."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import tui_fakes as fakes

from bitmar_cli.tui import commands, keys, sessions
from bitmar_cli.tui import protocol as p
from bitmar_cli.tui.controller import Controller
from bitmar_cli.tui.drawing import Glyphs, num, wrap
from bitmar_cli.tui.runs import Run, latest_run
from bitmar_cli.tui.state import State
from bitmar_cli.tui.turns import Turn, entropy, margin
from bitmar_cli.tui.widgets.turn_lines import turn_lines
from bitmar_core.errors import BitMarError
from bitmar_core.events import Done, Token


def talk(**ready) -> tuple[State, Controller, fakes.SilentEngine]:
    state, engine = State(session="2026-01-01-aaaa"), fakes.SilentEngine()
    state.apply(fakes.READY)
    return state, Controller(state, engine, lambda turn: None), engine


def answered(state: State, engine: fakes.SilentEngine, task: str, upto: int | None = None) -> Turn:
    """Feed the events of the scripted session for the last `Ask`."""
    ask = [m for m in engine.sent if isinstance(m, p.Ask)][-1]
    events = list(fakes.ScriptedSession(memory="off").ask(ask.question.task, image=ask.question.image, seed=ask.seed))
    for event in events[:upto]:
        state.apply(p.Said(id=ask.id, event=event))
    return state.last()


def test_an_answer_builds_up_and_ends() -> None:
    state, controller, engine = talk()
    controller.ask("Inspect the hull")
    assert state.status == "answering" and state.live() is not None
    turn = answered(state, engine, "Inspect the hull")
    assert turn.status == "done" and state.status == "ready" and len(turn.steps) == 5
    assert turn.decision["robot"] == "Underwater Robot" and turn.answer["robot"] == "Underwater Robot"
    assert turn.probabilities(0)["Underwater Robot"] < turn.probabilities(None)["Underwater Robot"]
    assert turn.changes(1)["Underwater Robot"] == pytest.approx(
        turn.steps[1]["probabilities"]["Underwater Robot"] - turn.steps[0]["probabilities"]["Underwater Robot"]
    )


def test_stopping_is_immediate_and_what_the_worker_still_says_changes_no_text() -> None:
    state, controller, engine = talk()
    controller.ask("Inspect the hull")
    turn = answered(state, engine, "Inspect the hull", upto=12)
    said = dict(turn.sections)
    assert said and controller.stop()
    assert turn.status == "stopped" and state.status == "stopping" and any(isinstance(m, p.Cancel) for m in engine.sent)
    state.apply(p.Said(id=turn.request, event=Token(section="thinking", text="too late")))
    answer = {"robot": "Drone", "reasoning": {}}
    state.apply(p.Said(id=turn.request, event=Done(reason="cancelled", answer=answer, tokens=3, elapsed_ms=1.0)))
    assert turn.sections == said and state.status == "ready" and turn.answer["reasoning"] == said
    assert not controller.stop()


def test_a_stopped_answer_goes_on_without_losing_or_doubling_text() -> None:
    state, controller, engine = talk()
    controller.ask("Inspect the hull")
    whole = {event.name: event.text for event in fakes.ScriptedSession(memory="off").ask("Inspect the hull") if type(event).__name__ == "Section"}
    turn = answered(state, engine, "Inspect the hull", upto=14)
    controller.stop()
    before = sum(map(len, turn.sections.values()))
    controller.resume()
    ask = [m for m in engine.sent if isinstance(m, p.Ask)][-1]
    for event in fakes.ScriptedSession(memory="off").ask("Inspect the hull"):
        state.apply(p.Said(id=ask.id, event=event))
        assert sum(map(len, turn.sections.values())) >= before
    assert len(state.turns) == 1 and turn.sections == whole and len(turn.steps) == 5 and turn.status == "done"


def test_refusals_leave_the_talk_going() -> None:
    state, controller, engine = talk()
    with pytest.raises(BitMarError, match="empty"):
        controller.ask("\u200b ")
    with pytest.raises(BitMarError, match="limit"):
        controller.ask("x" * 20_001)
    controller.ask("one")
    with pytest.raises(BitMarError, match="Esc"):
        controller.ask("two")
    state.apply(p.Failed(line="refused", id=state.turns[-1].request))
    assert state.status == "ready" and state.turns[-1].status == "failed"
    controller.set_image("/no/such.png")
    state.apply(p.Failed(line="there is no such file", about="/no/such.png"))
    assert state.image is None and state.level == "bad"
    state.frozen = True
    with pytest.raises(BitMarError, match="frozen"):
        controller.change("undo")


def test_a_worker_that_dies_ends_the_answer_and_keeps_it() -> None:
    state, controller, engine = talk()
    controller.ask("Inspect the hull")
    turn = answered(state, engine, "Inspect the hull", upto=12)
    state.apply(p.Died(code=-9, log="bitmar.log"))
    assert turn.status == "failed" and turn.sections and "signal 9" in state.said and state.status == "down"


@pytest.mark.parametrize("line", ["/nonsense", "/forget x", "/seed minus", "/teach Nobody"])
def test_wrong_commands_are_one_line(line: str) -> None:
    state, controller, engine = talk()
    controller.ask("a task")
    answered(state, engine, "a task")
    with pytest.raises(BitMarError) as caught:
        commands.run(controller, line)
    assert "\n" not in str(caught.value)


def test_commands_of_the_plain_chat_are_all_here() -> None:
    from bitmar_cli.talk import COMMANDS

    assert set(COMMANDS) <= set(commands.COMMANDS)


def test_teach_understands_because() -> None:
    state, controller, engine = talk()
    controller.ask("a task")
    answered(state, engine, "a task")
    assert commands.run(controller, "/teach drone because it flies") is None
    sent = engine.sent[-1]
    assert (sent.robot, sent.because, sent.question.task) == ("Drone", "it flies", "a task")


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quarry.jpg").touch()
    assert commands.complete("/im") == "/image "
    assert commands.complete("/image qu") == "/image quarry.jpg"
    assert commands.complete("look at @qua") == "look at @quarry.jpg"
    assert commands.complete("plain words") is None


# --- files ---


def test_sessions_survive_torn_lines_and_come_back(own_home) -> None:
    state, controller, engine = talk()
    controller.ask("Inspect [bold]the hull[/bold] \x1b[31m")
    turn = answered(state, engine, "x")
    name = sessions.new_name()
    saver = sessions.Saver()
    saver.keep(name, turn)
    saver.close()
    file = sessions.folder() / f"{name}.jsonl"
    with file.open("a") as stream:
        stream.write('{"v": 1, "id": 9, "task": "torn')
    sessions.append(name, sessions.line_of(Turn(id=4, task="second", status="writing")))
    loaded = sessions.load(name)
    assert [t.task for t in loaded] == [turn.task, "second"] and loaded[0].sections == turn.sections
    assert loaded[1].status == "stopped"
    (item,) = sessions.saved()
    assert item.first == turn.task
    sessions.remove(name)
    assert sessions.saved() == []


def test_a_disk_that_refuses_is_told(own_home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sessions, "append", refuse)
    saver = sessions.Saver()
    saver.keep("2026-01-01-aaaa", Turn(id=1, task="x"))
    saver.close()
    assert "No space left" in saver.trouble


def test_export_as_markdown_and_json(own_home, tmp_path: Path) -> None:
    state, controller, engine = talk()
    controller.ask("Inspect *the* hull")
    answered(state, engine, "x")
    controller.export(str(tmp_path / "talk.md"))
    controller.export(str(tmp_path / "talk.json"))
    assert r"Inspect \*the\* hull" in (tmp_path / "talk.md").read_text()
    assert json.loads((tmp_path / "talk.json").read_text())["turns"][0]["robot"] == "Underwater Robot"
    with pytest.raises(BitMarError, match="already"):
        controller.export(str(tmp_path / "talk.md"))


def run_lines(folder: Path, rows: list[dict]) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_run_is_read_as_it_grows(tmp_path: Path) -> None:
    run_lines(tmp_path, [{"step": 10, "total": 100, "kind": "grpo", "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 1.0, "reward": 0.2, "task_success": 0.1}])
    run = Run(tmp_path)
    assert run.read(now=100.0) and not run.read(now=101.0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"step": 20, "total": 100, "kind": "grpo", "loss": 1.5, ')
    run.read(now=102.0)
    assert run.step == 10
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('"reward": 0.4, "task_success": 0.3}\nnot json\n')
    run.read(now=110.0)
    assert run.step == 20 and run.bad_lines == 1 and run.rate() == pytest.approx(1.0) and run.left() == pytest.approx(80.0)
    assert run.rewards() == {"reward": 0.4, "task_success": 0.3}
    run_lines(tmp_path, [{"stage": "packed", "bytes": 32_000_000, "held_out": {"top1": 0.9}}])
    run.read()
    assert run.finished and run.figures["held out top1"] == 0.9 and run.csv().splitlines()[0] == "step,loss,reward,task_success"


def test_latest_run_and_silence(tmp_path: Path) -> None:
    assert latest_run(tmp_path) is None
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    run_lines(folder, [{"step": 1, "total": 2, "kind": "robots", "loss": 1.0}])
    assert latest_run(tmp_path) == folder
    run = Run(folder)
    run.read()
    assert run.status() == "running" and run.status(time.time() + 1000) == "silent"


def test_requests_to_a_run(tmp_path: Path) -> None:
    from bitmar_core import training_requests as requests

    assert not requests.listens(tmp_path) and requests.taken(tmp_path) is None
    requests.listen(tmp_path)
    requests.request(tmp_path, "save")
    requests.request(tmp_path, "stop")
    assert requests.listens(tmp_path)
    assert [requests.taken(tmp_path) for _ in range(3)] == ["stop", "save", None]
    requests.deaf(tmp_path)
    assert not requests.listens(tmp_path)


# --- small pictures ---


def test_text_is_broken_and_made_safe() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("\x1b[31mred", 80) == ["\\x1b[31mred"]
    assert wrap("日本語日本語", 4) == ["日本", "語日", "本語"]
    assert wrap("", 5) == [""] and all(len(row) <= 3 for row in wrap("abcdefgh ij", 3))


def test_numbers_and_bars() -> None:
    assert [num(x) for x in (0.834, 1.0, 0.0, -0.04)] == [".83", "1.0", ".00", "-.04"] and num(0.5, sign=True) == "+.50"
    glyphs = Glyphs()
    assert glyphs.bar(0.5, 4) == "██  " and Glyphs(ascii=True).bar(0.5, 4) == "##  " and glyphs.bar(7, 3) == "███"
    assert len(glyphs.heat([0.1] * 128, 1.0, 32)) == 32
    plot = glyphs.plot([(0, 0), (1, 1), (2, 4)], 10, 3)
    assert len(plot) == 3 and all(len(row) == 10 for row in plot) and any(row.strip() for row in plot)
    assert entropy({"a": 0.5, "b": 0.5}) == 1.0 and margin({"a": 0.7, "b": 0.3}) == pytest.approx(0.4)


def test_attention_lies_where_it_was_computed() -> None:
    from bitmar_cli.tui.widgets.picture import Raster, shaded

    picture = p.Looked(path="x", width=8, height=8, digest="0" * 64, side=8, pixels=bytes(8 * 8 * 3))
    grid = [0.0] * 49
    grid[1 * 7 + 5] = 1.0
    raster = Raster(picture, grid, 28, 14)
    assert raster.peak() == (5, 1)
    rows = [shaded(raster, Glyphs(), row, overlay=True) for row in range(14)]
    full = [(x, y) for y, row in enumerate(rows) for x, char in enumerate(row) if char in "▓█"]
    assert full and all(20 <= x < 24 and 2 <= y < 4 for x, y in full)


def test_hostile_texts_stay_text() -> None:
    texts = json.loads((Path(__file__).parents[1] / "hostile_texts.json").read_text())
    for text in texts:
        for line in turn_lines(Turn(id=1, task=text, status="done"), 40, Glyphs()):
            shown = "".join(part for part, _ in line)
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)


# --- the registry ---


def test_every_action_is_there_and_keys_do_not_clash() -> None:
    from bitmar_cli.tui.app import SCREENS, BitMarApp
    from bitmar_cli.tui.screens.chat import ChatScreen
    from bitmar_cli.tui.widgets.task_input import TaskInput

    owners = {"app": BitMarApp, "input": TaskInput, "chat": ChatScreen, **SCREENS}
    for action in keys.ACTIONS:
        assert hasattr(owners[action.place], f"action_{action.name}") or hasattr(BitMarApp, f"action_{action.name}"), action
    for place in keys.PLACES:
        used = [key for action in keys.of(place) for key in action.keys.split(",") if key]
        assert len(used) == len(set(used)), place
    refused = {"ctrl+h", "ctrl+m", "ctrl+i", "ctrl+left_square_bracket"}
    assert not refused & {key for action in keys.ACTIONS for key in action.keys.split(",")}


@pytest.mark.parametrize("place", list(keys.PLACES))
@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_the_footer_never_cuts(place: str, width: int) -> None:
    shown = keys.footer(place, width)
    assert sum(len(a.shown) + len(a.label) + 3 for a in shown) <= width
    if width >= 60:
        assert {"palette", "help", "quit"} <= {a.name for a in shown}


def test_the_keys_page_is_fresh() -> None:
    page = Path(__file__).parents[3] / "docs" / "keys.md"
    assert page.read_text(encoding="utf-8") == keys.page(), "run: python -m bitmar_cli.tui.keys > docs/keys.md"
