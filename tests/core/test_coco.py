"""COCO's captions and JSON lines, read into pairs that share no picture between splits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from coco_server import captions_json, picture

from bitmar_core.data import coco
from bitmar_core.data.coco import Looks, Pairs, Skipped, clean_caption, default_cache, look, part, plain_file_name, read_captions, read_pairs
from bitmar_core.errors import BitMarError, MissingError


def write_coco(folder: Path, **splits: dict[str, bytes]) -> Path:
    """A COCO folder with these pictures by split."""
    for split, pictures in splits.items():
        (folder / f"{split}2017").mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"captions_{split}2017.json").write_bytes(captions_json(pictures))
        for name, data in pictures.items():
            (folder / f"{split}2017" / name).write_bytes(data)
    return folder


def pictures(first: int, count: int) -> dict[str, bytes]:
    return {f"{first + i:012d}.jpg": picture(first + i) for i in range(count)}


def write_lines(folder: Path, rows: list) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return file


def own_pairs(folder: Path, count: int) -> list[dict]:
    """Pictures on disk and a line for each."""
    rows = []
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(picture(i))
        rows.append({"image": f"{i}.jpg", "caption": f"picture {i}"})
    return rows


# --- COCO ---


def test_cocos_own_splits_are_kept(tmp_path: Path) -> None:
    pairs = read_pairs(write_coco(tmp_path, train=pictures(0, 5), val=pictures(10, 3)))
    assert [pair.image.name for pair in pairs.train] == [f"{i:012d}.jpg" for i in range(5)] and len(pairs.val) == 3
    assert pairs.train[1].captions == ("Picture 1, said in way 0.", "Picture 1, said in way 1.")
    assert pairs.skipped == [] and pairs.absent == 0 and pairs.shared == 0


def test_a_picture_of_both_splits_stays_in_validation_only(tmp_path: Path) -> None:
    train = pictures(0, 4)
    copied = {"000000000777.jpg": train["000000000002.jpg"]}  # the same picture under another name
    pairs = read_pairs(write_coco(tmp_path, train=train, val={**pictures(10, 2), **copied}))
    assert len(pairs.train) == 3 and len(pairs.val) == 3 and pairs.shared == 1
    assert not {pair.digest for pair in pairs.train} & {pair.digest for pair in pairs.val}
    assert "1 left out of training because validation has the same picture" in pairs.summary()


def test_one_split_alone_is_parted(tmp_path: Path) -> None:
    pairs = read_pairs(write_coco(tmp_path, val=pictures(0, 40)), val_share=0.3)
    assert len(pairs.train) + len(pairs.val) == 40 and 4 <= len(pairs.val) <= 20


def test_bad_and_absent_pictures_are_counted_and_named(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, train=pictures(0, 6), val=pictures(10, 2)) / "train2017"
    (folder / "000000000000.jpg").write_bytes(picture(0)[:-100])
    (folder / "000000000001.jpg").write_text("<html>")
    (folder / "000000000002.jpg").write_bytes(b"")
    (folder / "000000000003.jpg").unlink()
    pairs = read_pairs(tmp_path)
    assert pairs.skipped == [
        Skipped(name="train2017/000000000000.jpg", reason="cut short"),
        Skipped(name="train2017/000000000001.jpg", reason="not a JPEG, PNG or WebP picture"),
        Skipped(name="train2017/000000000002.jpg", reason="the file is empty"),
    ]
    assert len(pairs.train) == 2 and pairs.absent == 1
    assert pairs.summary(names=1) == (
        "2 pictures to train on, 2 to validate on, 1 not downloaded, 3 skipped (train2017/000000000000.jpg: cut short; and 2 more)"
    )


def test_odd_entries_of_the_captions_file(tmp_path: Path) -> None:
    content = {
        "images": [
            {"id": 1, "file_name": "1.jpg", "width": 3, "height": "x"},
            {"id": 2, "file_name": "../2.jpg"},
            {"id": 3, "file_name": "3.jpg"},
            {"id": 1, "file_name": "1.jpg"},
            "picture",
            {"file_name": "4.gif", "id": 4},
        ],
        "annotations": [
            {"image_id": 1, "caption": "  A\n cat. "},
            {"image_id": 1, "caption": "A cat."},
            {"image_id": 3, "caption": "\u00a0"},
            {"caption": "a"},
            7,
            {"image_id": [], "caption": "a"},
        ],
    }
    file = tmp_path / "captions_val2017.json"
    file.write_text(json.dumps(content))
    entries, skipped = read_captions(file)
    assert [(e.file_name, e.width, e.height, e.captions) for e in entries] == [("1.jpg", 3, 0, ("A cat.",))]
    assert len(skipped) == 9 and {one.name for one in skipped} >= {"captions_val2017.json, annotation 4", "captions_val2017.json, image 2"}


@pytest.mark.parametrize("text", ["", "[1", "[]", "{}", '{"images": [], "annotations": {}}', "[" * 100_000, '{"images": 1, "annotations": 2}'])
def test_a_file_that_is_no_captions_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "captions_val2017.json"
    file.write_text(text)
    with pytest.raises(BitMarError, match="captions_val2017.json is not"):
        read_captions(file)


def test_nothing_there(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(MissingError, match="bitmar download-coco --out"):
            read_pairs(folder)
    write_coco(tmp_path, val=pictures(0, 1))
    (tmp_path / "val2017" / "000000000000.jpg").unlink()
    with pytest.raises(MissingError, match="no usable pair.*1 not downloaded"):
        read_pairs(tmp_path)


def test_limit(tmp_path: Path) -> None:
    pairs = read_pairs(write_coco(tmp_path, train=pictures(0, 5), val=pictures(10, 3)), limit=2)
    assert len(pairs.train) == len(pairs.val) == 2


# --- JSON lines ---


def test_json_lines(tmp_path: Path) -> None:
    rows = own_pairs(tmp_path, 60)
    rows[3] = {"image": "3.jpg", "captions": ["one", "two", "one", 5]}
    pairs = read_pairs(write_lines(tmp_path, rows), val_share=0.25)
    assert len(pairs.train) + len(pairs.val) == 60 and 5 <= len(pairs.val) <= 25 and pairs.skipped == []
    assert {pair.captions for pair in pairs.train + pairs.val if pair.image.name == "3.jpg"} == {("one", "two")}


def test_the_side_of_a_picture_depends_on_its_bytes_alone(tmp_path: Path) -> None:
    rows = own_pairs(tmp_path, 30)
    before = read_pairs(write_lines(tmp_path, rows[:20]), val_share=0.3)
    for i in range(30):
        (tmp_path / f"{i}.jpg").rename(tmp_path / f"renamed{i}.jpg")
    after = read_pairs(write_lines(tmp_path, [{**row, "image": "renamed" + row["image"]} for row in reversed(rows)]), val_share=0.3)
    assert {pair.digest for pair in before.val} <= {pair.digest for pair in after.val}
    assert {pair.digest for pair in before.train} <= {pair.digest for pair in after.train}


def test_copies_of_a_picture_are_one_pair(tmp_path: Path) -> None:
    rows = own_pairs(tmp_path, 2)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.jpg").read_bytes())
    pairs = read_pairs(write_lines(tmp_path, [*rows, {"image": "copy.png", "caption": "again"}, {"image": "0.jpg", "caption": "picture 0"}]), val_share=0.0)
    assert [(pair.image.name, pair.captions) for pair in pairs.train] == [("0.jpg", ("picture 0", "again")), ("1.jpg", ("picture 1",))]


def test_bad_lines_are_skipped_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside.jpg").write_bytes(picture(1))
    (folder / "bad.jpg").write_bytes(b"not a picture")
    rows = own_pairs(folder, 1) + [
        "{not json",
        "7",
        {"caption": "a"},
        {"image": "0.jpg"},
        {"image": "gone.jpg", "caption": "a"},
        {"image": "../outside.jpg", "caption": "a"},
        {"image": str(tmp_path / "outside.jpg"), "caption": "a"},
        {"image": "bad.jpg", "caption": "a"},
        {"image": "0.jpg", "caption": "x" * 5000},
        {"image": "a\x00b", "caption": "a"},
        {"image": "n" * 5000, "caption": "a"},
        "[" * 100_000,
    ]
    pairs = read_pairs(write_lines(folder, rows), val_share=0.0)
    assert len(pairs.train) == 1 and len(pairs.skipped) == 12
    reasons = {one.name: one.reason for one in pairs.skipped}
    assert reasons["pairs.jsonl, line 2"] == "not a JSON object" and reasons["pairs.jsonl, line 6"] == "there is no picture gone.jpg"
    assert "lies outside" in reasons["pairs.jsonl, line 7"] and "lies outside" in reasons["pairs.jsonl, line 8"]
    assert reasons["pairs.jsonl, line 9, bad.jpg"] == "not a JPEG, PNG or WebP picture"
    assert len(read_pairs(write_lines(folder, rows[6:8] + rows[:1]), images=tmp_path).train) >= 1


def test_jpg_png_and_webp(tmp_path: Path) -> None:
    rows = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        (tmp_path / f"a.{kind}").write_bytes(picture(5, kind))
        rows.append({"image": f"a.{kind}", "caption": kind})
    pairs = read_pairs(write_lines(tmp_path, rows), val_share=0.0)
    assert {pair.captions[0] for pair in pairs.train} == {"JPEG", "PNG", "WEBP"} and len(pairs.skipped) == 1


# --- pictures ---


def test_looks(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture(3))
    seen = look(file)
    assert (seen.width, seen.height, seen.problem) == (27, 18, "") and len(seen.digest) == 64
    assert "cannot be read" in look(tmp_path / "none.jpg").problem and "cannot be read" in look(tmp_path).problem


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "MAX_PIXELS", 100)
    (tmp_path / "a.png").write_bytes(picture(3, "PNG"))
    assert look(tmp_path / "a.png").problem == "27 x 18 pixels are too many"


def test_what_was_seen_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_lines(tmp_path, own_pairs(tmp_path, 3))
    cache = default_cache(file)
    told: list[tuple[int, int]] = []
    first = read_pairs(file, cache=cache, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)] and cache.is_file()
    looked: list[Path] = []
    monkeypatch.setattr(coco, "look", lambda path: looked.append(path) or look(path))
    assert read_pairs(file, cache=cache) == first and looked == []
    (tmp_path / "1.jpg").write_bytes(picture(99))
    assert read_pairs(file, cache=cache) != first and [path.name for path in looked] == ["1.jpg"]
    cache.write_text("{broken")
    assert read_pairs(file, cache=cache) != first and len(looked) == 4


def test_worker_processes_see_the_same(tmp_path: Path) -> None:
    own_pairs(tmp_path, 4)
    files = sorted(tmp_path.glob("*.jpg"))
    assert Looks(None).of(files, workers=1) == Looks(None).of(files)


def test_small_things() -> None:
    assert clean_caption(" a \n b ") == "a b" and clean_caption("") is None and clean_caption(None) is None
    for bad in ("", "../a.jpg", "a/b.jpg", "a\\b.jpg", ".a.jpg", "a.gif", "C:a.jpg", "a\n.jpg", 5, None, "x" * 300 + ".jpg"):
        assert not plain_file_name(bad)
    assert plain_file_name("000000000139.jpg") and plain_file_name("B.WEBP")
    assert part([], 0.5) == ([], []) and Pairs(train=[], val=[]).summary() == "0 pictures to train on, 0 to validate on"
    with pytest.raises(ValueError, match="val_share"):
        read_pairs(Path("x.jsonl"), val_share=1.0)


def test_reading_pairs_needs_no_torch() -> None:
    code = "import sys, bitmar_core.data.coco, bitmar_core.data.download; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=False).returncode == 0
