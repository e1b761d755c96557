"""`bitmar download-coco`: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coco_server import QUICK, Server, answer, release_of, serving, snapshot, tiny_coco

from bitmar_core.data import coco_plan, download, fetch


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A small COCO at what the program takes for the official address."""
    with serving(tiny_coco()) as running:
        release = release_of(running.base, running.served)
        monkeypatch.setattr(coco_plan, "COCO_2017", release)
        monkeypatch.setattr(download, "COCO_2017", release)
        monkeypatch.setattr(fetch, "Retries", lambda: QUICK)
        yield running


def test_a_download_and_its_repetition(bitmar, server: Server, tmp_path: Path) -> None:
    ran = bitmar("download-coco", "--out", "coco", "--jobs", "2")
    assert ran.code == 0 and ran.out.splitlines() == [
        "train: 6 pictures with 12 captions in coco/train2017",
        "val: 4 pictures with 8 captions in coco/val2017",
    ]
    assert "fetch 100 %" in ran.err and "unpack 100 %" in ran.err and "/s" in ran.err
    server.asked.clear()
    again = bitmar("download-coco", "--dir", "coco")
    assert (again.code, again.out) == (0, ran.out) and server.asked == []


def test_a_dry_run_writes_nothing_and_asks_nobody(bitmar, server: Server) -> None:
    ran = bitmar("download-coco", "--out", "coco", "--dry-run", "--split", "val")
    assert ran.code == 0 and ran.err == "" and not Path("coco").exists() and server.asked == []
    assert ran.out.splitlines()[0].startswith(f"fetch {server.base}/annotations/annotations_trainval2017.zip, ")
    assert "zips/train2017.zip" not in ran.out and " are free" in ran.out.splitlines()[-1]


def test_limit_and_mirror(bitmar, server: Server) -> None:
    ran = bitmar("download-coco", "--out", "coco", "--split", "val", "--limit", "2", "--mirror", server.base + "/")
    assert ran.code == 0 and ran.out == "val: 2 pictures with 4 captions in coco/val2017\n"
    assert not any("/zips/" in path for path, _ in server.asked)


def test_pictures_that_do_not_come_are_named_and_counted(bitmar, server: Server) -> None:
    gone = next(path for path in server.served if path.startswith("/val2017/"))
    del server.served[gone]
    ran = bitmar("download-coco", "--out", "coco", "--split", "val", "--limit", "4")
    assert ran.code == 0 and ran.out == "val: 3 pictures with 6 captions in coco/val2017, 1 missing\n"
    assert f"left out {gone.rpartition('/')[2]}: " in ran.err and "1 pictures were left out" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--out"),
        (["--out", "x", "--limit", "0"], 2, "--limit"),
        (["--out", "x", "--split", "test"], 2, "--split"),
        (["--out", "x", "--mirror", "file:///etc"], 2, "no web address"),
        (["--out", "x", "--mirror", "http://a", "--kaggle", "a/b"], 2, "exclude each other"),
        (["--out", "x", "--kaggle", "--version"], 2, "OWNER/NAME"),
        (["--out", "x", "--source", "nowhere"], 4, "there is no nowhere"),
        (["--out", "file"], 2, "not a folder"),
    ],
)
def test_mistakes_are_one_line(bitmar, server: Server, arguments: list[str], code: int, said: str) -> None:
    Path("file").write_text("x")
    ran = bitmar("download-coco", *arguments)
    assert ran.code == code and said in ran.err and ran.out == "" and ran.err.count("\n") == 1 and not Path("x").exists()


def test_a_small_disk(bitmar, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_plan, "free_bytes", lambda folder: 1000)
    for extra in ([], ["--dry-run"]):
        ran = bitmar("download-coco", "--out", "coco", *extra)
        assert ran.code == 1 and "of free space are needed" in ran.err and not Path("coco").exists()


def test_no_server(bitmar, server: Server) -> None:
    server.faults["*"] = [answer(503)] * 99
    ran = bitmar("download-coco", "--out", "coco", "--split", "val")
    assert ran.code == 3 and "run the same command again" in ran.err.splitlines()[-1] and "trying again" in ran.err


def test_kaggle_without_its_client(bitmar, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_core.data import kaggle

    monkeypatch.setattr(kaggle.shutil, "which", lambda *_, **__: None)
    ran = bitmar("download-coco", "--out", "coco", "--kaggle", "someone/coco")
    assert ran.code == 4 and ran.err.startswith("bitmar: Kaggle's client is not installed; ") and ran.err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_stops_and_the_same_command_goes_on(bitmar, server: Server) -> None:
    def slow(handler, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100])
        handler.wfile.flush()
        time.sleep(3)
        return True

    server.faults["/annotations/annotations_trainval2017.zip"] = [slow]
    arguments = ["download-coco", "--out", "coco", "--split", "val", "--source", server.base, "--limit", "2"]
    code = "import sys; from bitmar_cli.main import run; sys.exit(int(run(sys.argv[1:])))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    running = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    part = Path("coco/archives/annotations_trainval2017.zip.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and out == "" and "stopped; what was fetched is kept" in err and "Traceback" not in err
    assert bitmar(*arguments).code == 0 and len([name for name in snapshot(Path("coco")) if name.startswith("val2017/")]) == 2
