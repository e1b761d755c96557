"""Reading hand-written tasks, and parting them without leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.data.robot_tasks import compose, held_out, read_corpus, read_families, read_fleets, read_photo_tasks, read_tasks, rows
from bitmar_core.errors import BitMarError, FleetError, MissingError
from bitmar_core.paths import assets
from bitmar_core.robots import NO_ROBOT, load_fleet


def write(path: Path, *items: object) -> Path:
    path.write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in items), encoding="utf-8")
    return path


def test_tasks_with_and_without_chains(tmp_path: Path):
    path = write(
        tmp_path / "a.jsonl",
        {"task": "Fly", "gold": ["Drone"], "site": "a roof", "pair": 3},
        {
            "id": "x",
            "task": "Größe",
            "gold": ["Drone", "No Robot"],
            "thinking": "t",
            "environment": "e",
            "verdicts": {"Drone": "v"},
            "reasoning": "r",
            "doubt": "d",
        },
    )
    one, two = read_tasks(path)
    assert (one.id, one.group, one.text, one.has_chain) == ("a-1", "a/3", "Fly Site: a roof", False)
    assert (two.id, two.group, two.text, two.has_chain) == ("x", "x", "Größe", True)
    assert two.gold == ("Drone", "No Robot") and one.fleet == load_fleet()
    assert compose("Fly", None) == compose("Fly", "") == "Fly"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: not JSON"), ("[1]", "line 1: not a JSON object"), ('{"gold": ["Drone"]}', "item 1: `task` and a non-empty `gold`"),
        ('{"task": "a", "gold": []}', "non-empty `gold`"), ('{"task": "a", "gold": "Drone"}', "non-empty `gold` list"), ('{"task": 3, "gold": ["Drone"]}', "`task`"),
        ('{"task": "a", "gold": ["Dron"]}', "gold 'Dron' is not in the fleet (Drone, "),
    ],
)  # fmt: skip
def test_refused_lines_name_file_and_place(tmp_path: Path, line: str, words: str):
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    with pytest.raises(BitMarError) as caught:
        read_tasks(path)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_rows_skip_empty_lines_and_need_a_file(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}\n')
    assert rows(path) == [{"a": 1}, {"a": 2}]
    with pytest.raises(MissingError):
        rows(tmp_path / "none.jsonl")


def test_fleet_files(tmp_path: Path):
    fleet = [{"name": "Crane", "capabilities": ["lift"]}, {"name": "Boat"}]
    path = write(
        tmp_path / "x_fleets.jsonl", {"fleet_id": "port", "fleet": fleet, "items": [{"id": "1", "task": "Lift it", "gold": ["Crane"], "why": "It lifts."}]}
    )
    (task,) = read_fleets(path)
    assert task.fleet.names == ("Crane", "Boat") and task.group == "port" and task.reasoning == "It lifts." and not task.has_chain
    write(path, {"fleet_id": "port", "fleet": fleet, "items": [{"id": "1", "task": "Lift it", "gold": ["Drone"]}]})
    with pytest.raises(BitMarError, match="1: gold 'Drone' is not in the fleet"):
        read_fleets(path)
    write(path, {"fleet_id": "port", "fleet": fleet[:1], "items": []})
    with pytest.raises(FleetError, match="port: 1 robots are listed"):
        read_fleets(path)


def test_families_and_photo_tasks(tmp_path: Path):
    path = write(tmp_path / "x_families.jsonl", {"id": "f", "task": "A", "gold": ["Drone"], "same": ["A'"], "near": [{"task": "B", "gold": ["Humanoid"]}]})
    (family,) = read_families(path)
    assert family.same == ("A'",) and family.near == (("B", ("Humanoid",)),)
    path = write(tmp_path / "x_photo_tasks.jsonl", {"id": "p", "task": "Go there", "by_place": {"road": ["Robot with Wheels"], "home": []}})
    assert read_photo_tasks(path)[0].by_place == {"road": ("Robot with Wheels",)}


def test_a_corpus_is_sorted_by_kind(tmp_path: Path):
    with pytest.raises(MissingError, match="no tasks in"):
        read_corpus(tmp_path)
    write(tmp_path / "a.jsonl", {"task": "Fly", "gold": ["Drone"]})
    write(tmp_path / "b_families.jsonl", {"id": "f", "task": "A", "gold": ["Drone"], "same": [], "near": []})
    write(tmp_path / "c_photo_tasks.jsonl", {"id": "p", "task": "Go", "by_place": {}})
    corpus = read_corpus(tmp_path)
    assert (len(corpus.tasks), len(corpus.families), len(corpus.photos), len(corpus.fleets)) == (1, 1, 1, 0)


def test_holding_out_follows_the_name_alone():
    groups = [f"group {i}" for i in range(4000)]
    kept = {g for g in groups if held_out(g, 0.1)}
    assert 0.08 < len(kept) / len(groups) < 0.12
    assert kept <= {g for g in groups if held_out(g, 0.2)}, "a larger share keeps what a smaller one kept"
    assert not any(held_out(g, 0.0) for g in groups) and all(held_out(g, 1.0) for g in groups)
    assert kept != {g for g in groups if held_out(g, 0.1, salt="other")}
    assert [g for g in groups[:60] if held_out(g, 0.1)] == sorted(kept & set(groups[:60]), key=groups.index)


def test_the_shipped_tasks():
    """Readable, enough of each answer, no task twice with two answers, no name twice."""
    corpus = read_corpus(assets() / "data")
    tasks = corpus.tasks
    assert len(tasks) > 500 and corpus.families and corpus.fleets and corpus.photos
    assert len({t.id for t in tasks}) == len(tasks)
    answers: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        assert answers.setdefault(" ".join(task.text.split()).casefold(), task.gold) == task.gold, task.text
    for name in load_fleet().names:
        assert sum(name in t.gold for t in tasks) > 0.03 * len(tasks), name
    for task in tasks:
        assert set(task.verdicts) <= set(task.fleet.names) - {NO_ROBOT}, task.id
    for family in corpus.families:
        assert family.same and family.near and set(family.gold) < set(load_fleet().names), family.id


def test_pairs_stay_on_one_side():
    """Tasks of one minimal pair share a group, so that no split parts them."""
    for path in sorted((assets() / "data").glob("*.jsonl")):
        if path.stem.endswith(("_families", "_fleets", "_photo_tasks")):
            continue
        groups: dict[str, set[str]] = {}
        for row, task in zip(rows(path), read_tasks(path), strict=True):
            if row.get("pair"):
                groups.setdefault(str(row["pair"]), set()).add(task.group)
        assert all(len(found) == 1 for found in groups.values()), path.name


def test_pad_and_cards(checkpoint: Path):
    from fakes import readers

    ids, mask = pad([[1, 2, 3], [4]], value=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = card_tensors(load_fleet(), readers(checkpoint)[0])
    assert ids.shape == mask.shape and len(ids) == 6 and (mask.sum(1) > 5).all()
