"""`bitmar chat` from a pipe, and its commands."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from bitmar_cli.talk import COMMANDS


def chat(bitmar, *lines: str, options: tuple[str, ...] = ()):
    return bitmar("chat", *options, stdin="\n".join(lines) + "\n")


def test_the_registry_feeds_help(bitmar) -> None:
    ran = chat(bitmar, "/help")
    assert set(COMMANDS) == {"image", "teach", "forget", "memory", "why", "fleet", "site", "seed", "save", "help", "quit"}
    assert ran.code == 0 and all(f"/{name}" in ran.out and entry.help in ran.out for name, entry in COMMANDS.items())


def test_a_follow_up_keeps_photo_place_and_seed(bitmar, sessions, tmp_path: Path) -> None:
    photo = tmp_path / "a photo.jpg"
    photo.write_bytes(b"x")
    ran = chat(
        bitmar,
        f"/image '{photo}'",
        "/site a wet yard",
        "/seed 3",
        "inspect the roof",
        "",
        "and the pool?",
        "/image off",
        "/seed off",
        "/site off",
        "stairs",
        "/quit",
        "never asked",
    )
    asked = sessions[0].asked
    assert ran.code == 0 and "\x1b" not in ran.out and ran.err == ""
    assert [entry["task"] for entry in asked] == ["inspect the roof", "and the pool?", "stairs"]
    assert [(entry["image"], entry["site"], entry["seed"]) for entry in asked] == [(str(photo), "a wet yard", 3)] * 2 + [(None, None, None)]
    assert "> inspect the roof\nstep 1:" in ran.out and "answer: Underwater Robot (confidence 0.75)" in ran.out


def test_options_set_the_start(bitmar, sessions, tmp_path: Path) -> None:
    photo = tmp_path / "p.jpg"
    photo.write_bytes(b"x")
    chat(bitmar, "roof", options=("--image", str(photo), "--site", "yard", "--seed", "1", "--plain"))
    assert sessions[0].asked == [{"task": "roof", "image": str(photo), "site": "yard", "reasoning": True, "seed": 1}]


def test_teach_why_forget(bitmar) -> None:
    ran = chat(bitmar, "fix the gate", "/teach humanoid because it needs [bold]tools[/bold]", "fix the gate", "/why", "/memory", "/forget 0", "/memory")
    assert ran.code == 0 and ran.err == ""
    assert 'remembered in slot 0: Humanoid for "fix the gate"' in ran.out
    assert "answer: Humanoid" in ran.out
    assert "without slot 0: Humanoid 0.75 -> 0.05; the choice would be Drone (0.75)" in ran.out
    assert "step 5: confidence check: Humanoid 0.75" in ran.out and "quality: coherence 0.50" in ran.out
    assert "1 of 4 slots in use" in ran.out and "forgot slot 0" in ran.out and ran.out.rstrip().endswith("fills it")


def test_why_after_the_slot_is_gone(bitmar) -> None:
    ran = chat(bitmar, "fix the gate", "/teach humanoid", "fix the gate", "/forget 0", "/why")
    assert ran.code == 0 and "slot 0 has changed since" in ran.out


def test_because_splits_robot_and_reason(bitmar, sessions) -> None:
    chat(bitmar, "fix the gate", "/teach Robot with Legs Because, mud because rain")
    story = sessions[0].memory.episode(0)
    assert (story.robot, story.because) == ("Robot with Legs", "mud because rain")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("/teach Drone", 2, "nothing was asked yet"),
        ("/why", 2, "nothing was asked yet"),
        ("/forget x", 2, "must be a number"),
        ("/forget", 2, "is missing"),
        ("/forget 99", 2, "0 to 3"),
        ("/forget 1", 2, "slot 1 is empty"),
        ("/seed -1", 2, "must be a number"),
        ("/image nowhere.jpg", 4, "no photo nowhere.jpg"),
        ("/fleet nowhere.yaml", 4, "nowhere.yaml"),
        ("/save talk.txt", 2, ".md or .json"),
        ("/mem", 2, "did you mean /memory?"),
        ("/\x1b[31m", 2, "no command /\\x1b[31m"),
        ("\u200b", 2, "the task is empty"),
        ("explode", 1, "unexpected"),
    ],
)
def test_a_mistake_is_one_line_and_the_talk_goes_on(bitmar, line, code, said) -> None:
    ran = chat(bitmar, line, "roof")
    assert ran.code == code and said in ran.err and ran.err.count("\n") == 1 and "\x1b" not in ran.out + ran.err
    assert "answer: Drone" in ran.out or line == "explode"


def test_teach_an_unknown_robot_offers_the_nearest(bitmar) -> None:
    ran = chat(bitmar, "roof", "/teach dron")
    assert "did you mean 'Drone'?" in ran.err and ran.code == 1


def test_fleet(bitmar) -> None:
    Path("f.yaml").write_text("name: mine\nrobots: [{name: Tug}, {name: Crane}]")
    ran = chat(bitmar, "/fleet", "/fleet f.yaml", "lift", "/fleet default")
    assert "fleet default: Drone, Underwater Robot" in ran.out and "fleet mine: Tug, Crane" in ran.out and "answer: Tug" in ran.out


def test_save(bitmar) -> None:
    ran = chat(bitmar, "inspect the *roof* <b>", "/site yard", "pool", "/save talk.md", "/save talk.json", "/save talk.json")
    assert ran.err == "" and "saved 2 turns to talk.md" in ran.out
    text = Path("talk.md").read_text(encoding="utf-8")
    assert "## inspect the \\*roof\\* \\<b\\>" in text and "| **Drone** | 0.75 |" in text and "### Selection reasoning" in text and "Site: yard" in text
    saved = json.loads(Path("talk.json").read_text())
    assert [turn["robot"] for turn in saved["turns"]] == ["Drone", "Underwater Robot"] and saved["turns"][1]["site"] == "yard"
    again = chat(bitmar, "roof", "/save talk.json")
    assert again.code == 2 and "already there" in again.err and json.loads(Path("talk.json").read_text()) == saved


def test_memory_off(bitmar) -> None:
    assert "memory is off" in chat(bitmar, "/memory", options=("--memory", "off")).err


def test_ctrl_c_stops_the_answer_and_keeps_the_talk(bitmar, sessions) -> None:
    ran = chat(bitmar, "interrupt me", "pool", "/save t.json")
    turns = json.loads(Path("t.json").read_text())["turns"]
    assert "the part so far is kept" in ran.err and [turn["robot"] for turn in turns] == ["Drone", "Underwater Robot"]
    assert len(turns[0]["reasoning"]) == 3 and len(turns[1]["reasoning"]) == 6


def test_invalid_bytes_on_stdin(bitmar, sessions) -> None:
    assert bitmar("chat", stdin=b"roof \xff\xfe\n").code == 0
    assert sessions[0].asked[0]["task"] == "roof \ufffd\ufffd"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_at_a_terminal(home) -> None:
    import pty
    import select
    import subprocess
    import sys
    import time

    fake = Path(__file__).with_name("cli_fakes.py")
    env = {**os.environ, "PYTHONPATH": f"{fake.parents[2]}{os.pathsep}{fake.parent}", "TERM": "xterm", "COLUMNS": "80"}
    env.pop("NO_COLOR", None)
    leader, follower = pty.openpty()
    chat = subprocess.Popen([sys.executable, str(fake), "chat"], stdin=follower, stdout=follower, stderr=follower, env=env, start_new_session=True)
    os.close(follower)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 10
        while text not in seen and time.monotonic() < end:
            if select.select([leader], [], [], 0.05)[0]:
                seen += os.read(leader, 65536)
        assert text in seen, seen.decode()
        seen = seen[seen.index(text) + len(text) :]

    try:
        until(b"> ")
        os.write(leader, b"go slow on the roof\n")
        until(b"Thinking")
        os.kill(chat.pid, signal.SIGINT)
        until(b"the part so far is kept")
        until(b"> ")
        os.write(leader, b"clean the pool\n")
        until(b"Underwater Robot (confidence")
        until(b"> ")
        for _ in range(40):  # readline misses a signal that comes just before it waits
            os.kill(chat.pid, signal.SIGINT)
            if select.select([leader], [], [], 0.25)[0]:
                break
        until(b"press Ctrl-C again")
        until(b"> ")
        for _ in range(40):
            os.kill(chat.pid, signal.SIGINT)
            try:
                chat.wait(0.25)
                break
            except subprocess.TimeoutExpired:
                pass
        assert chat.wait(1) == 0
    finally:
        chat.kill()
        chat.wait()
        os.close(leader)
