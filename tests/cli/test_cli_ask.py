"""`bitmar ask`: text, JSON, events, batches, and hostile input."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from bitmar_core import events as ev

KEYS = ["task", "image", "robot", "confidence", "abstained", "probabilities", "suited", "reasoning", "quality", "memory", "steps", "model", "elapsed_ms"]
HOSTILE = json.loads(Path(__file__).with_name("hostile_texts.json").read_text(encoding="utf-8"))


def test_plain_text(bitmar) -> None:
    ran = bitmar("ask", "inspect the [bold]roof[/bold]")
    lines = ran.out.splitlines()
    assert ran.code == 0 and ran.err == "" and "\x1b" not in ran.out
    assert lines[0].startswith("step 1: context analysis: Drone 0.75")
    assert "robots: *Drone 0.75, Underwater Robot 0.05" in ran.out
    assert "thinking: On thinking: send Drone." in ran.out and "[bold]inspect" in ran.out
    assert lines[-1] == "answer: Drone (confidence 0.75)"


def test_top_and_no_reasoning(bitmar, sessions) -> None:
    ran = bitmar("ask", "roof", "--top", "2", "--no-reasoning")
    assert ran.out.splitlines() == ["robots: *Drone 0.75, Underwater Robot 0.05", "answer: Drone (confidence 0.75)"]
    assert sessions[0].asked[0]["reasoning"] is False


def test_json(bitmar) -> None:
    ran = bitmar("ask", "clean the pool \x1b[2J", "--json")
    answer = json.loads(ran.out)
    assert list(answer) == KEYS and answer["robot"] == "Underwater Robot" and list(answer["reasoning"]) == list(ev.SECTIONS)
    assert ran.out.count("\n") == 1 and ran.out.isascii() and "\x1b" not in ran.out
    assert list(json.loads(bitmar("ask", "pool", "--json", "--top", "1").out)["probabilities"]) == ["Underwater Robot"]


def test_jsonl(bitmar) -> None:
    ran = bitmar("ask", "roof ?!", "--jsonl", "--strict")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["t"] for line in lines if line["t"] not in ("token", "section")] == ["started", "memory", *["step"] * 5, "decision", "quality", "done"]
    assert all(line["v"] == 1 for line in lines) and lines[-1]["rc"] == 5 == ran.code and list(lines[-1]["answer"]) == KEYS


def test_options_reach_the_session(bitmar, sessions, tmp_path: Path) -> None:
    photo = tmp_path / "p.jpg"
    photo.write_bytes(b"x")
    fleet = tmp_path / "f.yaml"
    fleet.write_text("robots: [{name: A}, {name: '[red]B[/red]'}]")
    ran = bitmar("ask", "roof", "--image", str(photo), "--site", "a \ud800 yard", "--seed", "7", "--fleet", str(fleet), "--memory", "off")
    assert sessions[0].asked == [{"task": "roof", "image": str(photo), "site": "a \ufffd yard", "reasoning": True, "seed": 7}]
    assert sessions[0].memory is None and "robots: *A 0.75, [red]B[/red] 0.25" in ran.out


def test_strict_and_not_sure(bitmar) -> None:
    ran = bitmar("ask", "what ?!", "--strict")
    assert ran.code == 5 and ran.out.splitlines()[-1] == "answer: not sure; the best guess is Drone (confidence 0.25)"
    assert bitmar("ask", "what ?!").code == 0 and bitmar("ask", "roof", "--strict").code == 0


def test_memory_read_is_shown(bitmar) -> None:
    assert bitmar("memory", "teach", "fix the gate", "--robot", "humanoid", "--because", "tools").code == 0
    ran = bitmar("ask", "fix the gate", "--no-reasoning")
    assert ran.out.splitlines()[0] == 'memory: read slot 0 (similarity 1.00, weight 0.80): Humanoid for "fix the gate"'
    assert ran.out.splitlines()[-1] == "answer: Humanoid (confidence 0.75)"


@pytest.mark.parametrize("stdin", [b"clean the pool\n", b"\xef\xbb\xbfclean the pool", b"clean\0the pool", b"clean \xff\xed\xa0\x80 pool"])
def test_stdin(bitmar, stdin) -> None:
    for arguments in (["ask", "-", "--json"], ["ask", "--json"]):
        ran = bitmar(*arguments, stdin=stdin)
        assert ran.code == 0 and json.loads(ran.out)["robot"] == "Underwater Robot"
        json.loads(ran.out)["task"].encode()


@pytest.mark.parametrize("task", ["", "  \n ", "\u200b\u2060\ufeff", "\0", "\u3164"])
def test_empty(bitmar, sessions, task) -> None:
    for ran in (bitmar("ask", task), bitmar("ask", "-", stdin=task)):
        assert ran.code == 2 and ran.out == "" and ran.err.startswith("bitmar: the task is empty") and ran.err.count("\n") == 1
    assert not sessions, "the model need not be loaded for this"


def test_a_long_stdin_ends(bitmar, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli import tasks

    monkeypatch.setattr(tasks, "MAX_STDIN", 100)
    ran = bitmar("ask", "-", stdin="y" * 200)
    assert ran.code == 2 and "shorten it" in ran.err


def test_a_bad_image_is_one_line(bitmar) -> None:
    ran = bitmar("ask", "roof", "--image", "no\x1b[31m.jpg")
    assert ran.code == 1 and ran.err == "bitmar: no\\x1b[31m.jpg: there is no such file; check the path\n"


def test_ctrl_c_keeps_the_part(bitmar) -> None:
    ran = bitmar("ask", "interrupt me", "--jsonl")
    done = json.loads(ran.out.splitlines()[-1])
    assert ran.code == 130 and done["reason"] == "cancelled" and list(done["answer"]["reasoning"]) == list(ev.SECTIONS[:3])
    ran = bitmar("ask", "interrupt me")
    assert ran.code == 130 and "the part so far is kept" in ran.err and ran.out.endswith("answer: Drone (confidence 0.75)\n")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_hostile_text(bitmar, text) -> None:
    for extra in ([], ["--json"], ["--jsonl"]):
        ran = bitmar("ask", "-", *extra, stdin=text)
        assert ran.code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ran.out + ran.err)


# ---- batches


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_batch_in_order_with_bad_lines_in_place(bitmar, tmp_path: Path, sessions) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "p.jpg").write_bytes(b"x")
    (folder / "in.jsonl").write_bytes(
        b'\xef\xbb\xbf{"id": "a", "task": "roof", "image": "p.jpg", "site": "yard", "gold": ["x"]}\n'
        b"\n"
        b"{not json\n"
        b'{"id": 7, "task": "   "}\n'
        b'{"id": "c", "task": "pool"}\n'
        b'{"id": "d", "task": "pool", "image": "missing.jpg"}\n'
        b'{"id": "e", "task": 5}\n'
        b'["a list"]\n'
        b'{"id": "f"}\n'
        b'\xff\xfe\n'
        + b"[" * 100_000
        + b"\n"
        b'{"task": "stairs \\ud800 \\u001b[2J"}\n'
        b'{"id": {"a": 1}, "task": "roof"}'
    )  # fmt: skip
    ran = bitmar("ask", "--input", str(folder / "in.jsonl"), "--output", "out.jsonl", "--no-reasoning")
    got = lines_of(Path("out.jsonl").read_text())
    assert ran.code == 1 and ran.out == "" and ran.err == 'bitmar: 9 of 12 lines could not be answered; each holds an "error" in the output\n'
    assert [row.get("id") for row in got] == ["a", None, 7, "c", "d", "e", None, "f", None, None, None, None]
    assert ["error" in row for row in got] == [False, True, True, False, True, True, True, True, True, True, False, True]
    assert list(got[0]) == ["id", *KEYS] and "id" not in got[10] and got[3]["robot"] == "Underwater Robot"
    assert all(list(row) == ["id", "error"] and "\n" not in row["error"] for row in got if "error" in row)
    assert got[1]["error"].startswith("line 3: not valid JSON") and got[4]["error"].startswith("line 6: ") and got[0]["reasoning"] == {}
    assert sessions[0].asked[0]["image"] == str(folder / "p.jpg") and sessions[0].asked[0]["site"] == "yard"
    assert os.listdir(".") == ["out.jsonl"]


def test_batch_to_stdout_with_reasoning(bitmar) -> None:
    Path("in.jsonl").write_text('{"task": "roof"}\n{"task": "pool ?!"}\n')
    ran = bitmar("ask", "--input", "in.jsonl", "--strict", "--site", "a yard")
    assert ran.code == 5 and [row["robot"] for row in lines_of(ran.out)] == ["Drone", "Underwater Robot"]
    assert lines_of(ran.out)[0]["reasoning"]["thinking"].startswith("On thinking")
    assert bitmar("ask", "--input", "-", "--output", "-", stdin='{"task": "roof"}').code == 0


def test_batch_of_bad_lines_only_and_of_none(bitmar) -> None:
    Path("in.jsonl").write_text("x\ny\n")
    assert [row["error"][:7] for row in lines_of(bitmar("ask", "--input", "in.jsonl").out)] == ["line 1:", "line 2:"]
    Path("in.jsonl").write_text("")
    ran = bitmar("ask", "--input", "in.jsonl", "--output", "out.jsonl")
    assert ran.code == 0 and Path("out.jsonl").read_text() == ""


def test_batch_reads_only_as_far_as_it_answers(home) -> None:
    from bitmar_cli import batch

    source = batch.Source(path=None, folder=Path(), file=None, size=0)  # type: ignore[arg-type]
    read, written = [], []

    def endless():
        for number in range(1, 10_001):
            read.append(number)
            yield number, b"bad" if number % 2 else b'{"task": "roof"}'

    source.lines = endless  # type: ignore[method-assign]

    class Session:
        def answer_many(self, requests, *, reasoning):
            for request in requests:
                assert len(read) - len(written) <= 2
                yield {"task": request["task"]}

    class Out(list):
        def write(self, text):
            written.append(text)

        def flush(self):
            pass

    class Target(batch.Target):
        def opened(self):
            import contextlib

            return contextlib.nullcontext(Out())

    assert batch.run(Session(), source, Target(None), site=None, reasoning=False, top=None, strict=False) == 1
    assert len(written) == 10_000


def test_a_line_too_long_is_not_held(bitmar, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_cli import batch

    monkeypatch.setattr(batch, "MAX_LINE", 64)
    Path("in.jsonl").write_text('{"task": "' + "x" * 500 + '"}\n{"task": "roof"}\n')
    got = lines_of(bitmar("ask", "--input", "in.jsonl").out)
    assert "longer than" in got[0]["error"] and got[1]["robot"] == "Drone"


def test_a_failed_batch_leaves_the_old_output(bitmar) -> None:
    Path("out.jsonl").write_text("old")
    Path("in.jsonl").write_text('{"task": "roof"}\n{"task": "explode"}\n')
    assert bitmar("ask", "--input", "in.jsonl", "--output", "out.jsonl").code == 1
    assert Path("out.jsonl").read_text() == "old" and sorted(os.listdir(".")) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["x", "--input", "in.jsonl"], 2),
        (["--input", "in.jsonl", "--image", "p"], 2),
        (["--input", "in.jsonl", "--jsonl"], 2),
        (["--input", "in.jsonl", "--output", "in.jsonl"], 2),
        (["--input", "in.jsonl", "--output", "."], 2),
        (["--input", "in.jsonl", "--output", "no/such/out"], 2),
        (["--input", "."], 2),
        (["--input", "missing"], 4),
        (["roof", "--output", "out"], 2),
    ],
)
def test_batch_options_that_clash(bitmar, sessions, arguments, code) -> None:
    Path("in.jsonl").write_text('{"task": "roof"}\n')
    ran = bitmar("ask", *arguments)
    assert ran.code == code and ran.err.count("\n") == 1 and not sessions
    assert Path("in.jsonl").read_text() == '{"task": "roof"}\n'


@pytest.mark.skipif(os.name == "nt", reason="no /dev/null")
def test_output_to_a_device_keeps_the_device(bitmar) -> None:
    Path("in.jsonl").write_text('{"task": "roof"}\n')
    assert bitmar("ask", "--input", "in.jsonl", "--output", "/dev/null").code == 0
    assert not Path("/dev/null").is_file()


def test_a_terminal_gets_bars_and_streamed_text(home, sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    from bitmar_cli.main import run

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for colour in (True, False):
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        if not colour:
            monkeypatch.setenv("NO_COLOR", "1")
        assert run(["ask", "roof \x1b]0;owned\x07"]) == 0
        shown = screen.getvalue()
        assert ("\x1b[" in shown) == colour and "\x1b]" not in shown and "\x07" not in shown
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert "*Drone             ██████████████████       0.75" in shown
        assert "Thinking\nOn thinking: send Drone.\nIt fits [bold]roof \\x1b]0;owned\\x07[/bold].\n" in shown
