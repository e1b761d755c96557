"""`bitmar evaluate` with the fake session: figures, forms of output, default data, refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bitmar_core import config
from bitmar_core.data.robot_tasks import held_out
from bitmar_core.evaluation import baselines

TASKS = [
    {"id": "a", "task": "look at the roof", "gold": ["Drone"]},
    {"id": "b", "task": "clean the pool", "gold": ["Underwater Robot", "Humanoid"], "site": "indoors"},
    {"id": "c", "task": "carry [bold]boxes[/bold] up the stairs", "gold": ["Robot with Legs"]},
]
CARDS = [{"name": "Drone"}, {"name": "Mole \x1b[31m".replace("\x1b", "~")}]
MEMORY = {
    "task": "fix the gate",
    "taught": "Humanoid",
    "why": "tools",
    "paraphrases": ["FIX the gate", "mend it"],
    "neighbors": [{"task": "paint the roof", "gold": ["Drone"]}],
}


@pytest.fixture
def write(home: Path) -> Callable[..., str]:
    def call(*rows, name: str = "data.jsonl") -> str:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return name

    return call


@pytest.fixture
def opened(sessions: list, monkeypatch: pytest.MonkeyPatch) -> list:
    """Fake sessions whose configuration also says what training holds out."""
    from bitmar_cli import opening

    plain, asked_for = opening.open_session, []

    def open_session(**options):
        asked_for.append(options)
        session = plain(**options)
        session.config = config.tiny()
        return session

    monkeypatch.setattr(opening, "open_session", open_session)
    return asked_for


def test_robots_as_lines(bitmar, write, opened) -> None:
    ran = bitmar("evaluate", "--data", write(*TASKS))
    lines = ran.out.splitlines()
    assert ran.code == 0 and ran.err == "" and "\x1b" not in ran.out
    assert lines[:5] == ["data: data.jsonl", "model: fake-model", "tasks: 3", "top-1: 0.667 (0.208 to 0.939)", "macro: 0.667"]
    assert "by robot, Drone: precision 1.000, recall 1.000, F1 1.000, tasks 1" in lines
    assert "by robot, Robot with Legs: precision -, recall 0.000, F1 0.000, tasks 1" in lines
    assert "confusion, Robot with Legs: Drone 0, Underwater Robot 0, Humanoid 1, Robot with Wheels 0, Robot with Legs 0, No Robot 0" in lines
    assert opened == [{"model": None, "memory": "off"}]


def test_robots_as_json(bitmar, write, sessions) -> None:
    ran = bitmar("evaluate", "robots", "--data", write(*TASKS), "--json", "--model", "m")
    result = json.loads(ran.out)
    assert ran.out.count("\n") == 1 and list(result)[:5] == ["evaluate", "data", "model", "tasks", "top1"]
    assert result["top1"] == 0.666667 and result["selective"]["accuracy"] == 1.0 and result["confusion"]["Robot with Legs"]["Humanoid"] == 1
    assert "baselines" not in result
    assert [a["site"] for a in sessions[0].asked] == [None, "indoors", None] and not any(a["reasoning"] for a in sessions[0].asked)


def test_default_data_is_what_training_does_not_see(bitmar, opened, sessions) -> None:
    from bitmar_core.evaluation import robots

    result = json.loads(bitmar("evaluate", "--json").out)
    share = config.tiny().training.holdout
    wanted = [t.task for t in robots.shipped().tasks if held_out(t.group, share)]
    assert result["data"] == "the shipped tasks that training does not see" and [a["task"] for a in sessions[0].asked] == wanted and len(wanted) > 50


def test_baselines(bitmar, write, opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_core.errors import MissingError

    def missing(*arguments):
        raise MissingError("not installed: pip install something")

    monkeypatch.setattr(baselines, "tfidf", missing)
    monkeypatch.setattr(baselines, "minilm", missing)
    data = write(*TASKS)
    ran = bitmar("evaluate", "--data", data, "--baselines")
    assert ran.code == 0 and "baselines, tfidf: top-1 not installed: pip install something, interval -, macro -" in ran.out
    result = json.loads(bitmar("evaluate", "--data", data, "--baselines", "--json").out)["baselines"]
    assert (
        list(result) == ["majority", "keywords", "tfidf", "minilm"]
        and result["keywords"]["tasks"] == 3
        and result["minilm"] == {"missing": "not installed: pip install something"}
    )
    for what in ("vision", "memory"):
        ran = bitmar("evaluate", what, "--data", data, "--baselines")
        assert ran.code == 2 and "leave it out" in ran.err


def test_fleets(bitmar, write, opened) -> None:
    data = write({"fleet_id": "[red]yard", "fleet": CARDS, "items": [{"task": "roof", "gold": ["Drone"]}, {"task": "tunnel", "gold": [CARDS[1]["name"]]}]})
    ran = bitmar("evaluate", "fleets", "--data", data)
    assert ran.code == 0 and "chance: 0.500" in ran.out and "by fleet, [red]yard: tasks 2, top-1 0.500, interval 0.095 to 0.905" in ran.out
    assert json.loads(bitmar("evaluate", "fleets", "--json").out)["tasks"] > 0


def test_vision(bitmar, write, opened, sessions) -> None:
    for name in ("one.jpg", "two.jpg"):
        Path(name).write_bytes(b"x")
    data = write(
        {"task": "roof", "image": "one.jpg", "gold": ["Drone"]},
        {"task": "pool", "image": "two.jpg", "gold": ["Drone"]},
        {"task": "roof", "image": "gone.jpg", "gold": ["Drone"]},
    )
    ran = bitmar("evaluate", "vision", "--data", data)
    assert (
        ran.code == 0
        and "by photo, with its photo: macro 0.333, top-1 0.333" in ran.out
        and "refused 1" in ran.out
        and "by photo, without a photo: macro 0.667" in ran.out
    )
    assert [a["image"] for a in sessions[0].asked[:3]] == ["one.jpg", "two.jpg", "gone.jpg"]
    ran = bitmar("evaluate", "vision")
    assert ran.code == 2 and "--data" in ran.err and len(sessions) == 1


def test_memory(bitmar, write, opened, home: Path) -> None:
    data = write(MEMORY, {**MEMORY, "task": "open the lock"})
    result = json.loads(bitmar("evaluate", "memory", "--data", data, "--json").out)
    assert result["corrections"] == 2 and result["single"]["taught"] == 1.0 and result["single"]["paraphrases"] == 0.25 and result["single"]["kept"] == 1.0
    assert result["single"]["harmonic"] == 0.5 and result["together"]["at_once"] == 2 and result["together"]["paraphrases"] == 0.5
    assert "by memory, one at a time: task 1.000, rewordings 0.250, neighbours kept 1.000" in bitmar("evaluate", "memory", "--data", data).out
    assert not list(home.rglob("*")), "a person's memory is not touched"
    assert opened[0]["memory"] == "read"


def test_memory_default_data(bitmar, opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_core.evaluation import memory

    monkeypatch.setattr(
        memory,
        "evaluate",
        lambda session, corrections, progress, fillers: {"fillers": len(fillers), "corrections": len(corrections), "single": {}, "together": {"at_once": 0}},
    )
    result = json.loads(bitmar("evaluate", "memory", "--json").out)
    assert result["corrections"] >= 5 and result["fillers"] >= 25


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 4, "no file"),
        (b"", 4, "no items"),
        (b"{", 1, "line 1"),
        (b"\xff", 1, "UTF-8"),
        (b'{"task": "x", "gold": ["Dron"]}', 1, "not in the fleet"),
        (b'{"task": 3}', 1, "`task`"),
    ],
)
def test_refusals_are_one_line(bitmar, opened, content: bytes | None, code: int, said: str) -> None:
    if content is not None:
        Path("d.jsonl").write_bytes(content)
    ran = bitmar("evaluate", "--data", "d.jsonl")
    assert ran.code == code and said in ran.err and ran.err.count("\n") == 1 and ran.out == "" and "unexpected" not in ran.err


def test_unknown_kinds_are_refused(bitmar) -> None:
    assert bitmar("evaluate", "robot").code == 2


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_tables(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    from bitmar_cli.commands.evaluate import What, draw
    from bitmar_cli.render import Screen

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False) if colour else monkeypatch.setenv("NO_COLOR", "1")
    figures = {"tasks": 2, "top1": 0.5, "interval": [0.1, 0.9]}
    result = {
        "data": "d",
        "model": "m",
        **figures,
        "macro": 0.5,
        "chance": 0.5,
        "ece": 0.1,
        "brier": 0.2,
        "selective": {"share": 0.7, "accuracy": 1.0},
        "refused": 1,
    }
    stream = Terminal()
    draw(Screen(stream), What.fleets, {**result, "fleets": {"[red]\x1b[2Jyard": figures}, "baselines": {"minilm": {"missing": "not installed"}}})
    text = stream.getvalue()
    assert "[red]\\x1b[2Jyard" in text and "\x1b[2J" not in text and "─" in text and "refused, counted as wrong" in text and "not installed" in text
    assert ("\x1b[36m" in text) is colour


def test_progress_goes_to_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import sys

    from bitmar_cli.commands.evaluate import Progress

    quiet = Progress()
    quiet(1, 1)
    quiet.close()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress()
    progress(1, 2)
    progress(2, 2)
    progress.close()
    assert sys.stderr.getvalue().startswith("\r2 of 2 measured") and sys.stderr.getvalue().endswith("\n")
