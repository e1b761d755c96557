"""Downloading against a server that drops connections, lies, ignores ranges and asks for patience."""

from __future__ import annotations

import email.utils
import hashlib
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from coco_server import QUICK, answer, cut_after, damaged, lying_length, picture, redirect, release_of, serving, snapshot, tiny_coco, zipped

from bitmar_core.data import coco_plan, fetch_many
from bitmar_core.data import download as core
from bitmar_core.data.archives import BrokenArchiveError, members, open_archive, safe_name, unpack
from bitmar_core.data.coco_plan import COCO_2017, Wish, chosen, plan
from bitmar_core.data.fetch import Cancelled, Pace, Part, Remote, Retries, check_url, fetch, retry_after, shown_url
from bitmar_core.data.fetch_many import LeftOut, Meter, Progress, Retrying
from bitmar_core.errors import BitMarError, MissingError, TryAgainError, UsageError

BODY = bytes(range(256)) * 40
FILE = "/big.bin"
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with serving({FILE: BODY, **tiny_coco()}) as running:
        yield running


def get(server, path: Path, *, retries: Retries = QUICK, cancel: threading.Event | None = None, **known) -> list[tuple[str, float]]:
    """Fetch FILE to `path`; gives the retries that were told."""
    told: list[tuple[str, float]] = []
    remote = Remote(url=server.base + FILE, path=path, **known)
    fetch(remote, cancel=cancel or threading.Event(), retries=retries, retrying=lambda reason, seconds: told.append((reason, seconds)))
    return told


# --- one file ---


def test_a_file_comes_whole_and_leaves_no_part(server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "x", size=len(BODY), sha256=SHA) == []
    assert snapshot(tmp_path) == {"x": BODY}


def test_dropped_connections_are_resumed_where_they_broke(server, tmp_path: Path) -> None:
    server.faults[FILE] = [cut_after(4000), cut_after(3000)]
    told = get(server, tmp_path / "x", size=len(BODY), sha256=SHA)
    assert server.asked_for(FILE) == [None, "bytes=4000-", "bytes=7000-"]
    assert [reason for reason, _ in told] == [f"the connection was cut after {at} of {len(BODY)} bytes" for at in (4000, 7000)]
    assert snapshot(tmp_path) == {"x": BODY}


def test_a_stopped_run_is_resumed_by_the_next(server, tmp_path: Path) -> None:
    server.faults[FILE] = [cut_after(5000)] + [answer(503)] * 3
    with pytest.raises(TryAgainError, match="503"):
        get(server, tmp_path / "x")
    assert (tmp_path / "x.part").read_bytes() == BODY[:5000] and not (tmp_path / "x").exists()
    server.asked.clear()
    get(server, tmp_path / "x")
    assert server.asked_for(FILE) == ["bytes=5000-"] and snapshot(tmp_path) == {"x": BODY}


def test_a_changed_file_is_fetched_from_its_beginning(server, tmp_path: Path) -> None:
    server.faults[FILE] = [cut_after(5000)] + [answer(503)] * 3
    with pytest.raises(TryAgainError):
        get(server, tmp_path / "x")
    server.served[FILE] = BODY[::-1]
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY[::-1]


def test_a_server_that_ignores_ranges_sends_everything_again(server, tmp_path: Path) -> None:
    server.ranges = False
    server.faults[FILE] = [cut_after(5000)]
    get(server, tmp_path / "x", sha256=SHA)
    assert server.asked_for(FILE) == [None, "bytes=5000-"] and snapshot(tmp_path) == {"x": BODY}


def test_another_part_than_the_one_asked_for_is_not_appended(server, tmp_path: Path) -> None:
    def other_part(handler, data: bytes) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 10-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[10:])
        return True

    server.faults[FILE] = [cut_after(5000), other_part]
    told = get(server, tmp_path / "x")
    assert told[1][0] == "the server sent another part than the one that was asked for"
    assert server.asked_for(FILE) == [None, "bytes=5000-", None] and snapshot(tmp_path) == {"x": BODY}


def test_a_part_that_nothing_vouches_for_is_not_continued(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"of something else")
    get(server, tmp_path / "x")
    assert server.asked_for(FILE) == [None] and snapshot(tmp_path) == {"x": BODY}


def test_a_spoiled_part_is_found_by_its_digest(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"?" * 100)
    assert get(server, tmp_path / "x", sha256=SHA) == [("another sha256", 0.0)]
    assert server.asked_for(FILE) == ["bytes=100-", None] and snapshot(tmp_path) == {"x": BODY}


def test_a_part_that_is_complete_is_only_checked(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(BODY)
    get(server, tmp_path / "x", size=len(BODY), sha256=SHA)
    assert server.asked == [] and snapshot(tmp_path) == {"x": BODY}


def test_a_complete_part_of_unknown_size_ends_with_416(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(BODY)
    get(server, tmp_path / "x", sha256=SHA)
    assert server.asked_for(FILE) == [f"bytes={len(BODY)}-"] and snapshot(tmp_path) == {"x": BODY}


def test_a_part_that_is_too_long_is_dropped(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(BODY + b"more")
    get(server, tmp_path / "x", sha256=SHA)
    assert snapshot(tmp_path) == {"x": BODY}


@pytest.mark.parametrize("more", [500, -500])
def test_a_length_that_is_not_true_never_passes(server, tmp_path: Path, more: int) -> None:
    server.faults[FILE] = [lying_length(more)] * 9
    with pytest.raises(BitMarError, match=f"has {len(BODY) + more} bytes where {len(BODY)} are expected"):
        get(server, tmp_path / "x", size=len(BODY))
    server.faults[FILE] = [lying_length(more)] * 9
    with pytest.raises(BitMarError, match="expected file|cut after"):  # the size is not known, the digest is
        get(server, tmp_path / "y", sha256=SHA)
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()


def test_another_file_of_the_same_size_is_refused(server, tmp_path: Path) -> None:
    server.served[FILE] = BODY[::-1]
    with pytest.raises(BitMarError, match="is not the expected file .another sha256.; use another mirror"):
        get(server, tmp_path / "x", size=len(BODY), sha256=SHA)
    assert snapshot(tmp_path) == {}


def test_retry_after_is_honoured(server, tmp_path: Path) -> None:
    soon = email.utils.formatdate(time.time() - 5, usegmt=True)
    server.faults[FILE] = [answer(429, retry_after="1"), answer(503, retry_after=soon), answer(503)]
    started = time.monotonic()
    told = get(server, tmp_path / "x")
    assert time.monotonic() - started >= 1.0
    assert [reason for reason, _ in told] == ["the server answers 429 Too Many Requests"] + ["the server answers 503 Service Unavailable"] * 2
    assert told[0][1] == 1.0 and told[1][1] == 0.0 and 0 < told[2][1] <= 0.01
    assert snapshot(tmp_path) == {"x": BODY}


def test_a_wait_that_is_too_long_is_left_to_the_person(server, tmp_path: Path) -> None:
    server.faults[FILE] = [answer(429, retry_after="86400")]
    with pytest.raises(TryAgainError, match="asks to wait 86400 s"):
        get(server, tmp_path / "x")
    assert len(server.asked) == 1


def test_retry_after_in_both_forms() -> None:
    assert retry_after("7") == 7.0 and retry_after(None) is None and retry_after("soon") is None
    assert 50 < retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60


def test_a_pause_holds_for_every_worker() -> None:
    pace, cancel = Pace(), threading.Event()
    pace.pause(0.05)
    started = time.monotonic()
    pace.wait(cancel)
    assert time.monotonic() - started >= 0.05
    pace.pause(60)
    threading.Timer(0.02, cancel.set).start()
    with pytest.raises(Cancelled):
        pace.wait(cancel)


@pytest.mark.parametrize(("code", "kind"), [(404, MissingError), (403, MissingError), (418, BitMarError)])
def test_answers_that_no_retry_mends(server, tmp_path: Path, code: int, kind: type) -> None:
    server.faults[FILE] = [answer(code)]
    with pytest.raises(kind, match=f"answers {code}"):
        get(server, tmp_path / "x")
    assert len(server.asked) == 1 and snapshot(tmp_path) == {}


def test_nobody_listens(tmp_path: Path) -> None:
    with serving({}) as server:
        pass
    with pytest.raises(TryAgainError, match=r"refused \(4 tries\); run the same command again"):
        get(server, tmp_path / "x")


def test_a_silent_server_is_given_up(server, tmp_path: Path) -> None:
    def silence(handler, data) -> bool:
        time.sleep(1.0)
        return True

    server.faults[FILE] = [silence]
    told = get(server, tmp_path / "x", retries=Retries(attempts=9, first_wait=0.001, timeout=0.3))
    assert told[0][0] == "no answer in time" and snapshot(tmp_path) == {"x": BODY}


def test_redirects_are_followed_to_the_web_only(server, tmp_path: Path) -> None:
    server.faults["/val2017/none.jpg"] = [redirect(server.base + FILE)]
    fetch(Remote(url=server.base + "/val2017/none.jpg", path=tmp_path / "x"), cancel=threading.Event(), retries=QUICK)
    assert (tmp_path / "x").read_bytes() == BODY
    server.faults[FILE] = [redirect((tmp_path / "x").as_uri())] * 9
    with pytest.raises(BitMarError, match="302"):
        get(server, tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_cancelling_keeps_the_part(server, tmp_path: Path) -> None:
    cancel = threading.Event()
    remote = Remote(url=server.base + FILE, path=tmp_path / "x")
    with pytest.raises(Cancelled):
        fetch(remote, cancel=cancel, retries=QUICK, received=lambda count: cancel.set())
    assert BODY.startswith((tmp_path / "x.part").read_bytes()) and not (tmp_path / "x").exists()


def test_a_full_disk_is_one_line_and_keeps_what_is_there(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self, data: bytes) -> None:
        from bitmar_core.data.fetch import disk_error

        raise disk_error(self.path, OSError(28, "No space left on device"))

    monkeypatch.setattr(Part, "write", full)
    with pytest.raises(BitMarError, match="cannot write .*x.part: No space left on device; free space"):
        get(server, tmp_path / "x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_disk(server, tmp_path: Path) -> None:
    (tmp_path / "x.part").symlink_to("/dev/full")
    with pytest.raises(BitMarError, match="No space left on device"):
        get(server, tmp_path / "x")


def test_addresses() -> None:
    assert check_url("https://host:81/coco/") == "https://host:81/coco"
    for bad in ("ftp://host", "file:///etc/passwd", "host/x", "http://", "http://a b", "http://h/\n", "http://h:x/", "http://u:p@h/", "http://h/?key=1"):
        with pytest.raises(UsageError):
            check_url(bad)
    assert shown_url("https://me:secret@host:1/a?token=x#y") == "https://host:1/a"


# --- archives ---


def archive_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(files))
    return path


@pytest.mark.parametrize("name", ["../out.jpg", "val2017/../../out.jpg", "/etc/x.jpg", "C:/x.jpg", "a\\..\\..\\x.jpg", "a\nb.jpg", "C:x"])
def test_an_archive_with_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert safe_name(name) is not None
    with pytest.raises(BitMarError, match="is not used"):
        open_archive(archive_of(tmp_path, {"val2017/1.jpg": b"x", name: b"x"}))


def test_links_in_archives_and_on_disk_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("val2017/1.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BitMarError, match="a link"):
        open_archive(path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "val2017").symlink_to(tmp_path)
    with open_archive(archive_of(tmp_path, {"val2017/1.jpg": b"x"})) as archive, pytest.raises(BitMarError, match="outside"):
        members(archive, tmp_path / "out", lambda name: name)


def test_damaged_members_are_named_and_not_written(tmp_path: Path) -> None:
    files = {f"val2017/{i}.jpg": picture(i) for i in range(3)}
    path = tmp_path / "a.zip"
    path.write_bytes(damaged(zipped(files), files["val2017/1.jpg"]))
    with open_archive(path) as archive:
        found = members(archive, tmp_path / "out", lambda name: name)
        result = unpack(archive, found, cancel=threading.Event())
        assert result.damaged == ["val2017/1.jpg"] and result.files == 2 and result.already == 0
        assert snapshot(tmp_path / "out") == {name: data for name, data in files.items() if "1.jpg" not in name}
        (tmp_path / "out" / "val2017" / "0.jpg").write_bytes(b"?" * len(files["val2017/0.jpg"]))  # right size, wrong content
        assert unpack(archive, found, cancel=threading.Event()).already == 1
    assert (tmp_path / "out" / "val2017" / "0.jpg").read_bytes() == files["val2017/0.jpg"]


def test_half_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a.jpg": BODY})[:-30])
    with pytest.raises(BrokenArchiveError, match="not a whole zip"):
        open_archive(path)


# --- COCO ---


def bring(server, out: Path, *, official: bool = True, **wish) -> list:
    release = release_of(server.base, dict(server.served) if official is True else official)
    return list(core.download(Wish(out=out, **wish), release=release, retries=QUICK))


def kinds(events: list, kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def whole(served: dict[str, bytes], splits: tuple[str, ...] = ("train", "val")) -> dict[str, bytes]:
    """What a complete download leaves, without captions."""
    return {path[1:]: data for path, data in served.items() if path.startswith(tuple(f"/{split}2017/" for split in splits))}


def pictures(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in snapshot(out).items() if not name.startswith("annotations/")}


def test_everything_comes_and_nothing_twice(server, tmp_path: Path) -> None:
    events = bring(server, tmp_path / "coco")
    assert [(e.split, e.pictures, e.captions, e.missing) for e in kinds(events, core.Ready)] == [("train", 6, 12, 0), ("val", 4, 8, 0)]
    assert pictures(tmp_path / "coco") == whole(server.served)
    assert sorted(path.name for path in (tmp_path / "coco" / "annotations").iterdir()) == ["captions_train2017.json", "captions_val2017.json"]
    assert events[-1].reason == "finished" and isinstance(events[0], coco_plan.Planned)
    server.asked.clear()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "coco").rglob("*.j*")}
    again = bring(server, tmp_path / "coco")
    assert server.asked == [] and [e.pictures for e in kinds(again, core.Ready)] == [6, 4]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_archives_are_kept_where_asked(server, tmp_path: Path) -> None:
    bring(server, tmp_path, splits=("val",), keep_archives=True)
    assert sorted(path.name for path in (tmp_path / "archives").iterdir()) == ["annotations_trainval2017.zip", "val2017.zip"]
    assert not (tmp_path / "train2017").exists() and not (tmp_path / "annotations" / "captions_train2017.json").exists()


def test_a_run_that_is_cut_off_goes_on(server, tmp_path: Path) -> None:
    path = "/zips/train2017.zip"
    server.faults[path] = [cut_after(900)] + [answer(503)] * 3
    with pytest.raises(TryAgainError):
        bring(server, tmp_path)
    server.asked.clear()
    bring(server, tmp_path)
    assert server.asked_for(path) == ["bytes=900-"] and pictures(tmp_path) == whole(server.served)


def test_a_run_that_is_cancelled_goes_on(server, tmp_path: Path) -> None:
    cancel = threading.Event()
    release = release_of(server.base, server.served)
    seen = []
    for event in core.download(Wish(out=tmp_path, splits=("val",)), release=release, retries=QUICK, cancel=cancel):
        seen.append(event)
        if isinstance(event, Progress) and event.stage == "unpack":
            cancel.set()
    assert seen[-1].reason == "cancelled" and kinds(seen, core.Ready) == []
    assert [e.pictures for e in kinds(bring(server, tmp_path, splits=("val",)), core.Ready)] == [4]


def test_a_run_that_is_killed_while_it_unpacks_goes_on_from_its_archive(server, tmp_path: Path) -> None:
    bring(server, tmp_path, splits=("val",), keep_archives=True)
    kept = sorted((tmp_path / "val2017").iterdir())
    kept[0].rename(kept[0].with_name(kept[0].name + ".part"))
    kept[1].unlink()
    server.asked.clear()
    bring(server, tmp_path, splits=("val",))
    assert server.asked == [] and [path.name for path in (tmp_path / "archives").iterdir()] == ["annotations_trainval2017.zip"]
    assert {name: data for name, data in pictures(tmp_path).items() if name.startswith("val2017/")} == whole(server.served, ("val",))


def test_limit_brings_pictures_one_by_one_and_grows(server, tmp_path: Path) -> None:
    events = bring(server, tmp_path, splits=("val",), limit=2)
    assert [(e.pictures, e.captions) for e in kinds(events, core.Ready)] == [(2, 4)]
    assert not any(path.startswith("/zips") for path, _ in server.asked)
    first = set(pictures(tmp_path))
    assert len(first) == 2
    server.asked.clear()
    bring(server, tmp_path, splits=("val",), limit=3)
    assert len(server.asked) == 1 and first < set(pictures(tmp_path)) and len(pictures(tmp_path)) == 3


def test_single_pictures_survive_a_bad_server(server, tmp_path: Path) -> None:
    names = sorted(path for path in server.served if path.startswith("/val2017/"))
    server.faults[names[0]] = [cut_after(50), answer(429, retry_after="0"), lying_length(99)]
    server.faults[names[1]] = [answer(200, body=b"<html>a portal</html>")]
    events = bring(server, tmp_path, splits=("val",), limit=4)
    assert pictures(tmp_path) == whole(server.served, ("val",)) and kinds(events, LeftOut) == []
    assert "not a JPEG, PNG or WebP picture" in [event.reason for event in kinds(events, Retrying)]


def test_bad_pictures_are_left_out_and_named(server, tmp_path: Path) -> None:
    names = sorted(path for path in server.served if path.startswith("/val2017/"))
    server.served[names[0]] = server.served[names[0]][:-100]
    del server.served[names[1]]
    events = bring(server, tmp_path, splits=("val",), limit=4)
    left = {event.name: event.reason for event in kinds(events, LeftOut)}
    assert set(left) == {name.rpartition("/")[2] for name in names[:2]} and events[-1].left_out == tuple(kinds(events, LeftOut))
    assert "cut short" in left[names[0].rpartition("/")[2]] and "404" in left[names[1].rpartition("/")[2]]
    assert [(e.pictures, e.missing) for e in kinds(events, core.Ready)] == [(2, 2)]


def test_when_no_picture_comes_the_run_ends(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_many, "GIVE_UP", 3)
    for path in [path for path in server.served if path.startswith("/val2017/")]:
        server.faults[path] = [answer(503)] * 9
    with pytest.raises(TryAgainError, match="3 pictures in a row did not come; the last: .*503"):
        bring(server, tmp_path, splits=("val",), limit=4)


def test_lost_pictures_are_brought_back_one_by_one(server, tmp_path: Path) -> None:
    bring(server, tmp_path, splits=("val",))
    lost = next((tmp_path / "val2017").iterdir())
    lost.unlink()
    server.asked.clear()
    bring(server, tmp_path, splits=("val",))
    assert [path for path, _ in server.asked] == [f"/val2017/{lost.name}"] and pictures(tmp_path) == whole(server.served, ("val",))


def test_a_mirror_must_have_cocos_own_files(server, tmp_path: Path) -> None:
    true = dict(server.served)
    server.served["/zips/val2017.zip"] = damaged(true["/zips/val2017.zip"], next(d for p, d in true.items() if p.startswith("/val2017/")))
    with pytest.raises(BitMarError, match="val2017.zip is not the expected file .another sha256."):
        bring(server, tmp_path, splits=("val",), mirror=server.base + "/", official=true)
    assert not (tmp_path / "val2017").exists()


def test_a_server_with_a_damaged_member_gives_that_picture_by_itself(server, tmp_path: Path) -> None:
    true = dict(server.served)
    name, data = next((path, data) for path, data in true.items() if path.startswith("/val2017/"))
    server.served["/zips/val2017.zip"] = damaged(true["/zips/val2017.zip"], data)
    bring(server, tmp_path, splits=("val",), source=server.base, official=true)
    assert pictures(tmp_path) == whole(true, ("val",)) and len(server.asked_for(name)) == 1


def test_a_server_with_a_hostile_archive(server, tmp_path: Path) -> None:
    true = dict(server.served)
    server.served["/zips/val2017.zip"] = zipped({"val2017/1.jpg": picture(1), "../../escaped.jpg": picture(2)})
    with pytest.raises(BitMarError, match="a path out of the folder"):
        bring(server, tmp_path / "deep" / "coco", splits=("val",), source=server.base, official=true)
    assert list(tmp_path.rglob("escaped.jpg")) == [] and len(server.asked_for("/zips/val2017.zip")) == 1


def test_an_error_page_instead_of_an_archive(server, tmp_path: Path) -> None:
    true = dict(server.served)
    server.served["/zips/val2017.zip"] = b"<html>log in first</html>"
    with pytest.raises(BitMarError, match="no whole zip archive"):
        bring(server, tmp_path, splits=("val",), source=server.base, official=true)
    assert not any((tmp_path / "archives").glob("val2017.zip*"))


def test_a_small_disk_is_refused_before_anything_is_written(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_plan, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(BitMarError, match="of free space are needed and 1.0 MB are there; free space, use --limit"):
        bring(server, tmp_path / "coco")
    assert server.asked == [] and list(tmp_path.iterdir()) == []


def test_two_at_once_are_refused(server, tmp_path: Path) -> None:
    events = core.download(Wish(out=tmp_path, splits=("val",)), release=release_of(server.base, server.served), retries=QUICK)
    next(events)
    next(events)
    with pytest.raises(TryAgainError, match="another download"):
        bring(server, tmp_path, splits=("val",))
    events.close()
    assert kinds(bring(server, tmp_path, splits=("val",)), core.Ready)


def test_pictures_in_png_and_webp(tmp_path: Path) -> None:
    from coco_server import captions_json

    found = {"1.png": picture(1, "PNG"), "2.webp": picture(2, "WEBP"), "3.jpg": picture(3)}
    served = {f"/val2017/{name}": data for name, data in found.items()}
    served["/annotations/annotations_trainval2017.zip"] = zipped({"annotations/captions_val2017.json": captions_json(found)})
    served["/zips/val2017.zip"] = served["/zips/train2017.zip"] = zipped({f"val2017/{name}": data for name, data in found.items()})
    with serving(served) as server:
        assert [e.pictures for e in kinds(bring(server, tmp_path / "a", splits=("val",)), core.Ready)] == [3]
        assert [e.pictures for e in kinds(bring(server, tmp_path / "b", splits=("val",), limit=3), core.Ready)] == [3]


@pytest.mark.parametrize("form", ["folder", "archives", "zip"])
def test_from_disk(server, tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    bring(server, source)
    expected = pictures(source)
    if form == "archives":
        source = tmp_path / "kept"
        for path in ("zips/val2017.zip", "zips/train2017.zip", "annotations/annotations_trainval2017.zip"):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(server.served[f"/{path}"])
    elif form == "zip":
        kept = snapshot(source)
        source = tmp_path / "all.zip"
        source.write_bytes(zipped({f"coco2017/{name}": data for name, data in kept.items()}))
    server.asked.clear()
    events = bring(server, tmp_path / "out", source=str(source))
    assert pictures(tmp_path / "out") == expected and server.asked == [] and source.exists()
    assert [e.missing for e in kinds(events, core.Ready)] == [0, 0]
    assert len(pictures(tmp_path / "few")) == 0 and bring(server, tmp_path / "few", source=str(source), splits=("val",), limit=2)
    assert len(pictures(tmp_path / "few")) == 2


def test_bad_pictures_of_a_folder_are_left_out(server, tmp_path: Path) -> None:
    bring(server, tmp_path / "source", splits=("val",))
    bad = sorted((tmp_path / "source" / "val2017").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:150])
    events = bring(server, tmp_path / "out", source=str(tmp_path / "source"), splits=("val",))
    assert [event.name for event in kinds(events, LeftOut)] == [bad.name] and len(pictures(tmp_path / "out")) == 3


def test_a_source_that_is_not_there(server, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no "):
        bring(server, tmp_path / "out", source=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="has no whole captions_train2017.json"):
        bring(server, tmp_path / "out", source=str(tmp_path / "empty"))


def test_wishes_are_checked(tmp_path: Path) -> None:
    for wish in (
        {"splits": ()},
        {"splits": ("test",)},
        {"limit": 0},
        {"jobs": 0},
        {"mirror": "x"},
        {"kaggle": "--version"},
        {"mirror": "http://a", "source": "b"},
    ):
        with pytest.raises(UsageError):
            Wish(out=tmp_path, **wish)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        plan(Wish(out=tmp_path / "file"))


def test_the_official_release() -> None:
    planned = plan(Wish(out=Path("/nowhere/coco")))
    assert "fetch http://images.cocodataset.org/zips/train2017.zip, 19.3 GB" in planned.lines
    assert planned.fetched == 252_907_541 + 19_336_861_798 + 815_585_330 and planned.room > planned.fetched
    assert all(len(archive.sha256) == 64 for archive in (COCO_2017.captions, *COCO_2017.pictures.values()))
    small = plan(Wish(out=Path("/nowhere/coco"), splits=("val",), limit=10))
    assert not any("zips/" in line for line in small.lines) and small.fetched < 260_000_000


def test_a_larger_limit_contains_a_smaller_one() -> None:
    from bitmar_core.data.coco import Entry

    entries = [Entry(file_name=f"{i:012d}.jpg", width=1, height=1, captions=("a",)) for i in range(50)]
    names = [[entry.file_name for entry in chosen(entries, limit)] for limit in (10, 20, None)]
    assert names[0] == names[1][:10] and names[0] != sorted(names[0]) and len(names[2]) == 50


# --- Kaggle ---


def fake_kaggle(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "kaggle"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the client")
def test_kaggle_through_its_client(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(server, tmp_path / "source")
    (tmp_path / "all.zip").write_bytes(zipped({f"coco2017/{name}": data for name, data in snapshot(tmp_path / "source").items()}))
    (tmp_path / "bin").mkdir()
    # called as: kaggle datasets download -d someone/coco-2017 -p FOLDER
    fake_kaggle(tmp_path / "bin", f'echo "$@" >> {tmp_path}/called; cp {tmp_path}/all.zip "$6/coco-2017.zip"; echo done', monkeypatch)
    server.asked.clear()
    events = bring(server, tmp_path / "out", kaggle="someone/coco-2017", limit=3)
    assert [(e.pictures, e.missing) for e in kinds(events, core.Ready)] == [(3, 0), (3, 0)] and server.asked == []
    assert not (tmp_path / "out" / "archives").exists()
    assert events[0].lines[0] == "fetch the data set someone/coco-2017 through Kaggle's client" and events[0].room > events[0].fetched > 0
    bring(server, tmp_path / "out", kaggle="someone/coco-2017", limit=3)
    assert (tmp_path / "called").read_text() == f"datasets download -d someone/coco-2017 -p {tmp_path}/out/archives\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the client")
def test_kaggle_that_fails_says_why(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kaggle(tmp_path, "echo 403 - Forbidden; exit 1", monkeypatch)
    with pytest.raises(BitMarError, match="did not bring a/b: 403 - Forbidden; see"):
        bring(server, tmp_path / "out", kaggle="a/b")


def test_kaggle_without_its_client(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitmar_core.data import kaggle

    monkeypatch.setattr(kaggle.shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingError, match="client is not installed; `pip install kaggle`"):
        bring(server, tmp_path / "out", kaggle="a/b")
    assert not (tmp_path / "out").exists()


# --- progress ---


def test_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(fetch_many.time, "monotonic", lambda: now[0])
    meter = Meter("fetch", files=2, total=1000)
    meter.start_from(200)  # an earlier run's bytes are no speed
    now[0] = 2.0
    meter.add(400)
    progress = meter.progress()
    assert (progress.bytes_done, progress.rate, progress.seconds_left) == (600, 200.0, 2.0)
    unknown = Meter("fetch", files=4, total=None)
    now[0] = 5.0
    unknown.file()
    assert unknown.progress().seconds_left == 9.0 and unknown.progress().bytes_total is None
