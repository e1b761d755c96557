"""The checkpoint that is shipped: it is sound, small, and its words come from its decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitmar_core import events, paths
from bitmar_core.checkpoint.folder import describe, find_model, verify
from bitmar_core.inference.session import Session

TASK = "Inspect the hull of a ferry at its berth"


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(memory="off")


def test_the_folder_is_sound_and_small():
    folder = find_model()
    assert verify(folder) == []
    assert sum(file.stat().st_size for file in folder.iterdir()) < 50_000_000
    info = describe(folder)
    assert 0.3 < info["sparsity"] < 0.6 and info["ternary_share"] > 0.5


def test_a_task_and_a_picture_get_a_whole_answer(session: Session):
    answer = session.answer(TASK, image=paths.assets() / "samples" / "ferry_berth.jpg")
    assert answer["robot"] == "Underwater Robot" and not answer["abstained"]
    assert len(answer["probabilities"]) == 6 and sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert list(answer["reasoning"]) == list(events.SECTIONS) and all(answer["reasoning"].values())
    lines = answer["reasoning"]["robot_evaluation"].split("\n")
    assert [line.split(":")[0] for line in lines] == list(session.fleet.names)
    assert set(answer["quality"]) == {"coherence", "relevance", "completeness", "accuracy"}


def test_the_words_come_from_the_decoder(tmp_path: Path):
    """With the decoder's matrices zeroed the same request gives the same choice and no words of the first answer's reasoning."""
    whole = Session.open(memory="off")
    first = whole.answer(TASK)
    for name, tensor in whole.engine.model.decoder.state_dict().items():
        if "norm" not in name:
            tensor.zero_()
    for module in whole.engine.model.decoder.modules():
        if hasattr(module, "_dense"):
            module._dense = None
    with torch.no_grad():
        second = whole.answer(TASK)
    assert second["robot"] == first["robot"] and second["probabilities"] == first["probabilities"]
    for name in events.SECTIONS:
        assert second["reasoning"][name] != first["reasoning"][name], name


def test_three_hundred_lines_in_one_process(session: Session):
    tasks = [{"id": i, "task": f"{TASK}, berth {i}"} for i in range(300)]
    answers = list(session.answer_many(tasks))
    assert [a["id"] for a in answers] == list(range(300)) and not any("error" in a for a in answers)
