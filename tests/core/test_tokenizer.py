"""The two tokenizers: what a person types is never a control token."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import SENTENCES, readers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitmar_core.errors import CheckpointError
from bitmar_core.robots import MAX_ROBOTS, load_fleet
from bitmar_core.tokenizer import SPECIAL, ReaderTokenizer, WriterTokenizer, robot_token, section_token

NAMES = load_fleet().names
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="session")
def reader(checkpoint: Path) -> ReaderTokenizer:
    return readers(checkpoint)[0]


@pytest.fixture(scope="session")
def writer(checkpoint: Path) -> WriterTokenizer:
    return readers(checkpoint)[1]


def test_special_tokens(writer: WriterTokenizer):
    assert len(SPECIAL) == len(set(SPECIAL)) == len(writer.special) == 4 + 6 + MAX_ROBOTS
    assert len(writer.sections) == 6 and len(writer.robots) == MAX_ROBOTS
    assert robot_token(0) == "<robot_1>" and section_token("thinking") == "<thinking>"
    assert writer.size <= 600


def test_specials_in_a_task_are_plain_text(reader: ReaderTokenizer, writer: WriterTokenizer):
    for token in SPECIAL:
        assert not set(writer.encode(f"go {token} now")) & writer.special
        assert not set(reader.encode([f"go {token} now"])[0][0]) & {reader.tokenizer.token_to_id(t) for t in SPECIAL}
        assert writer.decode(writer.encode(f"go {token} now"), ()) == f"go {token} now"


@SHARED
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_prose_round_trip(writer: WriterTokenizer, text: str):
    assert writer.decode(writer.encode(text), NAMES) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "The Drone flies, the Humanoid walks.", "Drone", "Drone, then Humanoid.", "Send the Drone.", "Robot with Wheels and Robot with Legs",
        "No Robot should go; the Underwater Robot dives: it is sealed.", "Drone Drone Drone", "A Drone's wings",
    ],
)  # fmt: skip
def test_names_become_slots_and_come_back(writer: WriterTokenizer, text: str):
    ids = writer.encode(text, NAMES)
    assert sum(i in writer.robots for i in ids) == sum(text.count(name) for name in NAMES)
    assert writer.decode(ids, NAMES) == text


def test_slots_follow_the_fleet(writer: WriterTokenizer):
    ids = writer.encode("The Drone sees it.", NAMES)
    assert writer.robots[0] in ids
    assert writer.decode(ids, ("Kite", "Mole")) == "The Kite sees it."


def test_a_name_inside_a_longer_word_or_name_is_no_slot(writer: WriterTokenizer):
    assert not set(writer.encode("Drones hum in the Army.", ("Drone", "Arm"))) & set(writer.robots)
    ids = writer.encode("the Long Arm lifts", ("Arm", "Long Arm"))
    assert [i for i in ids if i in writer.robots] == [writer.robots[1]]
    assert writer.encode("a drone", ("Drone", "Arm")) == writer.encode("a drone")


def test_names_with_signs_are_taken_as_they_are(writer: WriterTokenizer):
    names = ("R2 (old)", "C++", "a.b")
    for name in names:
        text = f"the {name} goes"
        assert writer.robots[names.index(name)] in writer.encode(text, names) and writer.decode(writer.encode(text, names), names) == text
    assert not set(writer.encode("the axb goes", names)) & set(writer.robots)


def test_slots_beyond_the_fleet_and_other_specials_are_silent(writer: WriterTokenizer):
    words = writer.encode("all is well")
    assert writer.decode([writer.begin, *writer.sections[:1], *words, writer.robots[40], writer.end], NAMES) == "all is well"


def test_reader_gives_at_least_one_id_and_tells_of_cuts(reader: ReaderTokenizer):
    rows, cut = reader.encode(["", SENTENCES[0], "word " * 500])
    assert all(rows) and cut == [False, False, True] and len(rows[2]) == reader.max_tokens == 128
    assert max(map(max, rows)) < reader.size


def test_files_that_are_no_tokenizers(tmp_path: Path, checkpoint: Path):
    path = tmp_path / "t.json"
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        ReaderTokenizer(path, 8)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="fetch the checkpoint again") as caught:
        WriterTokenizer(path)
    assert "\n" not in str(caught.value)
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(path))
    with pytest.raises(CheckpointError, match="lacks the token <pad>"):
        WriterTokenizer(path)
