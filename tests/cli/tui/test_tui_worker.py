"""The worker as a real process, with the scripted session: protocol, stopping, dying, and no torch where none is needed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitmar_cli.tui import protocol as p
from bitmar_cli.tui.engine import Engine
from bitmar_core import events as ev

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
    made = []

    def make(**opening) -> Engine:
        made.append(Engine(p.Opening(**opening), opener="tui_fakes:open_scripted"))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


def take(engine: Engine, wanted: type, seconds: float = 20.0) -> list:
    """Replies up to and with the first of a kind."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        for reply in engine.poll(limit=1):
            found.append(reply)
            if isinstance(reply, wanted):
                return found
            break
        else:
            time.sleep(0.005)
    raise AssertionError(f"no {wanted.__name__} among {[type(r).__name__ for r in found]}")


def until_done(engine: Engine) -> list[ev.Event]:
    events = []
    while True:
        last = take(engine, p.Said)[-1]
        events.append(last.event)
        if isinstance(last.event, ev.Done):
            return events


def test_ask_cancel_teach_and_ask_again(engine, own_home) -> None:
    worker = engine()
    ready = take(worker, p.Ready)[-1]
    assert ready.model == "scripted" and ready.limit == 20_000
    take(worker, p.MemoryNow)
    worker.send(p.Ask(id=1, question=p.Question(task="slow look at the roof")))
    while not isinstance(take(worker, p.Said)[-1].event, ev.Token):
        pass
    began = time.monotonic()
    worker.send(p.Cancel(id=1))
    events = until_done(worker)
    assert events[-1].reason == "cancelled" and time.monotonic() - began < 2.0
    worker.send(p.Teach(question=p.Question(task="look at the roof"), robot="Humanoid"))
    assert "slot 0" in take(worker, p.Note)[-1].text
    worker.send(p.Ask(id=2, question=p.Question(task="look at the roof")))
    assert until_done(worker)[-1].answer["robot"] == "Humanoid"
    worker.send(p.Without(slot=0, question=p.Question(task="look at the roof")))
    rerun = take(worker, p.Rerun)[-1]
    assert (rerun.present["robot"], rerun.masked["robot"]) == ("Humanoid", "Drone")
    worker.send(p.Change(what="undo"))
    assert take(worker, p.MemoryNow)[-1].rows == ()


def test_what_is_refused_is_one_line_and_the_worker_goes_on(engine, own_home) -> None:
    worker = engine()
    take(worker, p.Ready)
    for request in (
        p.Ask(id=1, question=p.Question(task="refuse")), p.Ask(id=2, question=p.Question(task="explode")), p.Look(path="/no/such.png"),
        p.Change(what="forget", slot=3), p.Change(what="import", path="/no/such"), p.SetFleet(path="/no/such.yaml"), p.Without(slot=9),
    ):  # fmt: skip
        worker.send(request)
        failed = take(worker, p.Failed)[-1]
        assert "\n" not in failed.line and "\x1b" not in failed.line and not failed.fatal
    worker.send(p.Ask(id=3, question=p.Question(task="fine")))
    assert until_done(worker)[-1].reason == "finished"


def test_a_model_that_is_missing_is_told(engine, own_home) -> None:
    assert "no model missing" in take(engine(model="missing"), p.Failed)[-1].line


def test_a_worker_that_dies_is_reported_and_can_start_again(engine, own_home) -> None:
    worker = engine()
    take(worker, p.Ready)
    worker.send(p.Ask(id=1, question=p.Question(task="die")))
    assert take(worker, p.Died)[-1].code == 3
    worker.start()
    take(worker, p.Ready)
    pid = worker.pid
    os.kill(pid, 9)
    assert take(worker, p.Died)[-1].code == -9


def test_the_worker_ends_when_nobody_listens(engine, own_home) -> None:
    worker = engine()
    take(worker, p.Ready)
    process = worker._process
    process.stdin.close()
    assert process.wait(10) == 0


def test_the_interface_imports_neither_torch_nor_numpy_nor_pillow() -> None:
    code = "import sys, bitmar_cli.tui.app, bitmar_cli.tui.launch, bitmar_cli.tui.engine; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


@pytest.mark.parametrize("arguments", [["tui"], ["chat", "--tui"]])
def test_without_a_terminal_one_line_and_no_escape_codes(arguments: list[str], own_home) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bitmar_cli", *arguments],
        capture_output=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 2 and ran.stdout == b"" and b"\x1b" not in ran.stderr
    assert ran.stderr.startswith(b"bitmar: the full-screen program needs a terminal") and ran.stderr.count(b"\n") == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_whatever_a_message_holds_arrives_as_it_was_sent(value: object):
    pipe = io.BytesIO()
    sent = p.Rerun(slot=1, task="x", own=True, present={"answer": value}, masked={})
    p.write(pipe, sent)
    pipe.seek(0)
    assert p.read(pipe) == sent and p.read(pipe) is None


def test_a_message_of_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        p.restored(["Popen", "ls"])
