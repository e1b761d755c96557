"""Whole requests on a tiny checkpoint: events, answers, memory, photos, and that asking twice is asking once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import SENTENCES, build_checkpoint, set_scope
from PIL import Image

from bitmar_core import events
from bitmar_core.checkpoint.folder import VISION
from bitmar_core.data.chains import SECTION_STEP, Grammar
from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.errors import CheckpointError, FleetError, ImageError, MissingError, ModelMissingError, UsageError
from bitmar_core.inference.engine import Written
from bitmar_core.inference.sampling import pick, repeats
from bitmar_core.inference.session import Session
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.reasoning import QUALITIES
from bitmar_core.robots import load_fleet, parse_fleet

Open = Callable[..., Session]
TASK = SENTENCES[0]
KEYS = ["task", "image", "robot", "confidence", "abstained", "probabilities", "suited", "reasoning", "quality", "memory", "steps", "model", "elapsed_ms"]


def plain(answer: dict) -> dict:
    """An answer without the time that it took."""
    return {key: value for key, value in answer.items() if key != "elapsed_ms"}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of every file of a folder."""
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="session")
def believing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that takes every remembered case for the case at hand."""
    return build_checkpoint(tmp_path_factory.mktemp("models") / "believing", change=lambda model: set_scope(model, 30.0))


@pytest.fixture(scope="session")
def doubting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that takes no remembered case for the case at hand."""
    return build_checkpoint(tmp_path_factory.mktemp("models") / "doubting", change=lambda model: set_scope(model, -30.0))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.radial_gradient("L").convert("RGB").resize((48, 40)).save(path)
    return path


# --- events and answers ---


def test_events_come_in_their_order(session: Open):
    found = list(session().ask(TASK, site="a quay"))
    kinds = [type(e).__name__ for e in found]
    assert kinds[:8] == ["Started", "MemoryRead", *["Step"] * 5, "Decision"]
    assert kinds[-2:] == ["Quality", "Done"] and set(kinds[8:-2]) == {"Token", "Section"}
    assert [e.name for e in found if isinstance(e, events.Section)] == list(events.SECTIONS)
    assert [(e.index, e.name) for e in found if isinstance(e, events.Step)] == list(enumerate(events.STEP_NAMES, 1))
    started, done = found[0], found[-1]
    assert (started.task, started.site, started.fleet, started.model, started.truncated) == (TASK, "a quay", load_fleet().names, "tiny", False)
    assert done.reason == "finished" and done.tokens > 30 and done.elapsed_ms > 0


def test_tokens_add_up_to_sections(session: Open):
    """An untrained decoder writes arbitrary bytes, broken characters among them; what streams is still what stands in the section."""
    opened = session()
    for seed in range(4):
        streamed = dict.fromkeys(events.SECTIONS, "")
        for event in opened.ask(TASK, seed=seed):
            if isinstance(event, events.Token):
                streamed[event.section] += event.text
            elif isinstance(event, events.Section):
                assert streamed[event.name] == event.text


def test_the_answer_object(session: Open):
    found = list(session().ask(TASK))
    answer, decision = found[-1].answer, next(e for e in found if isinstance(e, events.Decision))
    assert list(answer) == KEYS and json.loads(json.dumps(answer)) == answer
    assert answer["probabilities"] == decision.probabilities and list(answer["probabilities"]) == list(load_fleet().names)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["robot"] == max(answer["probabilities"], key=answer["probabilities"].get) == decision.robot
    assert answer["confidence"] == pytest.approx(max(answer["probabilities"].values()), abs=1e-4)
    assert answer["reasoning"] == {e.name: e.text for e in found if isinstance(e, events.Section)}
    lines = answer["reasoning"]["robot_evaluation"].split("\n")
    heads = [line for line in lines if line.startswith(tuple(f"{name}: " for name in load_fleet().names))]
    assert len(heads) >= 6, "a line for each robot"
    assert list(answer["quality"]) == list(QUALITIES) and all(0 <= score <= 1 for score in answer["quality"].values())
    assert [step["name"] for step in answer["steps"]] == list(events.STEP_NAMES)
    assert answer["steps"][-1]["probabilities"] == pytest.approx(answer["probabilities"], abs=2e-6)


def test_without_reasoning_the_decision_is_the_same(session: Open):
    opened = session()
    quick, whole = opened.answer(TASK, reasoning=False), opened.answer(TASK)
    assert quick["reasoning"] == {} and quick["quality"] == dict.fromkeys(QUALITIES)
    for key in ("robot", "probabilities", "suited", "steps", "memory"):
        assert quick[key] == whole[key]


def test_two_calls_agree_bit_for_bit(session: Open):
    one, two = session(), session()
    first = plain(one.answer(TASK))
    assert plain(one.answer(TASK)) == first and plain(two.answer(TASK)) == first
    sampled = plain(one.answer(TASK, seed=7))
    assert plain(two.answer(TASK, seed=7)) == sampled
    assert sampled["reasoning"] != first["reasoning"] and plain(one.answer(TASK, seed=8))["reasoning"] != sampled["reasoning"]
    assert sampled["probabilities"] == first["probabilities"], "a seed samples words, not robots"


def test_what_was_asked_before_does_not_matter(session: Open):
    opened = session()
    first = plain(opened.answer(TASK))
    opened.answer(SENTENCES[1], seed=3)
    list(opened.answer_many([{"task": t} for t in SENTENCES]))
    assert plain(opened.answer(TASK)) == first


def test_the_random_state_of_the_program_is_left_alone(session: Open):
    opened = session()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    opened.answer(TASK, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_cancelling_ends_with_done(session: Open):
    cancel, found = threading.Event(), []
    for event in session().ask(TASK, cancel=cancel):
        found.append(event)
        if isinstance(event, events.Token):
            cancel.set()
    assert found[-1].reason == "cancelled" and 0 < found[-1].tokens < 60
    assert not any(isinstance(e, events.Quality) for e in found) and found[-1].answer["quality"] == dict.fromkeys(QUALITIES)
    assert found[-1].answer["robot"] in load_fleet().names


def test_a_fleet_that_fills_the_chain_ends_for_its_length(session: Open):
    fleet = parse_fleet({"name": "many", "robots": [{"name": f"Robot {i}"} for i in range(64)]}, where="f")
    done = list(session(fleet=fleet).ask(TASK))[-1]
    assert done.reason == "length" and done.tokens == 320 and len(done.answer["probabilities"]) == 64


def test_the_text_comes_from_the_decoder(session: Open):
    """With the decoder's weights at zero the choice stays and the text is another: nothing is made up from templates."""
    opened = session()
    before = opened.answer(TASK)
    with torch.no_grad():
        for module in opened.engine.model.decoder.modules():
            if isinstance(module, BitLinear):
                module.load_ternary(torch.zeros_like(module.ternary), module.scale)
        for p in opened.engine.model.decoder.parameters():
            p.zero_()
    after = opened.answer(TASK)
    assert after["probabilities"] == before["probabilities"]
    free = [name for name in events.SECTIONS if name != "robot_evaluation"]
    assert all(after["reasoning"][name] != before["reasoning"][name] for name in events.SECTIONS)
    assert len({after["reasoning"][name] for name in free}) == 1, "without weights every token is as likely as any"
    assert len({before["reasoning"][name] for name in free}) > 1


@torch.inference_mode()
def test_decoding_is_teacher_forcing_of_what_was_written(session: Open):
    """Each token sees the state of the step that training showed it with, and each free token is the best that may come."""
    opened = session()
    model, writer = opened.engine.model, opened.writer
    ids, mask = pad([opened.reader.encode([TASK])[0][0]])
    card_ids, card_mask = card_tensors(opened.fleet, opened.reader)
    fleet, written = opened.engine.fleet(card_ids, card_mask), Written()
    output = opened.engine.decide(opened.engine.read(ids, mask, None, None)[0], fleet, None)
    pieces = list(opened.engine.write(output, 2, written))
    assert written.reason == "finished" and [p.token for p in pieces] == written.ids
    order = [SECTION_STEP[writer.sections.index(i)] if i in writer.sections else None for i in written.ids]
    steps = [next(s for s in reversed([0, *order[: t + 2]]) if s is not None) for t in range(len(order) - 1)]  # the step of the next token
    forced = model(
        ids, mask, card_ids=card_ids, card_mask=card_mask, decoder_input_ids=torch.tensor([written.ids[:-1]]), decoder_sections=torch.tensor([steps]),
        chosen=torch.tensor([2]), slots=torch.tensor(writer.robots[:6]),
    )  # fmt: skip
    torch.testing.assert_close(forced.decoder_states[0], torch.stack(written.states[:-1]), rtol=0, atol=1e-4)
    grammar, held = Grammar(writer, 6, 2, limit=6, line_limit=4), []
    for t, piece in enumerate(pieces):
        assert piece.forced is (grammar.forced() is not None)
        if not piece.forced:
            best = pick(forced.logits[0, t - 1], banned=grammar.banned() + repeats(held, 2), repeated=held, penalty=1.15, temperature=1.0, generator=None)
            assert piece.token == best
        grammar.feed(piece.token)
        held = [] if piece.token in writer.special else [*held, piece.token]


def test_the_chain_depends_on_the_task(session: Open):
    opened = session()
    assert opened.answer(TASK)["reasoning"] != opened.answer(SENTENCES[4])["reasoning"]


# --- many at once ---


def test_many_equal_one_by_one(session: Open):
    opened = session()
    rows = [{"id": i, "task": text, "site": "a quay" if i % 2 else None} for i, text in enumerate(SENTENCES)]
    many = list(opened.answer_many(iter(rows), batch_size=4))
    assert [a["id"] for a in many] == list(range(len(rows))) and list(many[0]) == ["id", *KEYS]
    for row, answer in zip(rows, many, strict=True):
        alone = opened.answer(row["task"], site=row["site"], reasoning=False)
        assert answer["robot"] == alone["robot"] and answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)
        assert answer["suited"] == alone["suited"]


def test_refused_requests_keep_their_place(session: Open):
    rows = [{"id": "a", "task": ""}, {"task": TASK}, {"id": "b"}, {"id": 0, "task": 3}, {"task": TASK, "image": "none.png"}, {"id": "c", "task": TASK}]
    for options in ({}, {"reasoning": True}, {"batch_size": 1}):
        many = list(session().answer_many(rows, **options))
        assert [("error" in a, a.get("id")) for a in many] == [(True, "a"), (False, None), (True, "b"), (True, 0), (True, None), (False, "c")]
        assert all(set(a) <= {"id", "error"} and "\n" not in a["error"] for a in many if "error" in a)
    assert list(session().answer_many([])) == []


def test_many_in_constant_memory(session: Open):
    """A batch is answered before the next one is read."""
    read = 0

    def rows():
        nonlocal read
        for text in SENTENCES:
            read += 1
            yield {"task": text}

    answers = session().answer_many(rows(), batch_size=3)
    next(answers)
    assert read == 3


# --- requests that are refused ---


@pytest.mark.parametrize("task", ["", "   \n", None, 3, ["a"]])
def test_empty_tasks(session: Open, task: object):
    with pytest.raises(UsageError, match="the task is empty"):
        session().ask(task)  # type: ignore[arg-type]


def test_over_long_tasks_and_odd_sites(session: Open):
    opened = session()
    with pytest.raises(UsageError, match="20,001 characters long; 20,000 is the limit"):
        opened.ask("x" * 20_001)
    with pytest.raises(UsageError, match="20,002 characters"):
        opened.ask("x" * 2, site="y" * 20_000)
    with pytest.raises(UsageError, match="the site must be text"):
        opened.ask(TASK, site=3)  # type: ignore[arg-type]
    started = next(iter(opened.ask("word " * 3000)))
    assert started.truncated


@pytest.mark.parametrize("task", ["\ud800 half a character", "\x00\x1b[31m", "🤖" * 50, "<end> <robot_1> <pad>", "a", "\u202eabc", "ไทย العربية 中文"])
def test_odd_texts_are_answered(session: Open, task: str):
    answer = session().answer(task)
    assert answer["task"] == task and answer["robot"] in load_fleet().names


@pytest.mark.parametrize(("image", "error"), [("none.png", (ImageError, MissingError)), ("https://x/y.png", (ImageError,))])
def test_images_that_are_not_there(session: Open, image: str, error: tuple):
    with pytest.raises(error) as caught:
        session().ask(TASK, image=image)
    assert "\n" not in str(caught.value)


def test_opening_what_is_not_there(tmp_path: Path, checkpoint: Path):
    with pytest.raises(ModelMissingError, match="no model 'nothing'"):
        Session.open("nothing")
    with pytest.raises(UsageError, match="it must be off, read or write"):
        Session.open(checkpoint, memory="sometimes")  # type: ignore[arg-type]


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path: Path):
    import shutil

    from bitmar_core.tokenizer import train_bpe

    folder = Path(shutil.copytree(build_checkpoint(tmp_path / "m"), tmp_path / "copy"))
    train_bpe((f"word{i} thing{i * 7}" for i in range(4000)), 900, folder / "decoder.json")
    with pytest.raises(CheckpointError, match="more tokens than its embedding has rows"):
        Session.open(folder, memory="off")


# --- fleets ---


def test_another_fleet(session: Open):
    opened = session()
    before = plain(opened.answer(TASK))
    opened.set_fleet(parse_fleet({"name": "port", "robots": [{"name": "Crane", "capabilities": ["lift"]}, {"name": "Boat"}]}, where="f"))
    answer = opened.answer(TASK)
    assert list(answer["probabilities"]) == ["Crane", "Boat"]
    lines = answer["reasoning"]["robot_evaluation"]
    assert lines.startswith("Crane: ") and "\nBoat: " in lines
    opened.set_fleet(load_fleet())
    assert plain(opened.answer(TASK)) == before


# --- memory ---


def test_reading_changes_no_byte(session: Open, tmp_path: Path, believing: Path):
    opened = session(model=believing)
    opened.answer(TASK)
    assert not (tmp_path / "memory").exists(), "reading made a memory"
    opened.teach(TASK, "Humanoid", because="I say so")
    before = tree(tmp_path / "memory")
    first = plain(opened.answer(TASK))
    assert first["memory"] and plain(session(model=believing).answer(TASK)) == first
    list(opened.answer_many([{"task": t} for t in SENTENCES]))
    opened.without_slot(TASK, 0)
    opened.similarities(TASK)
    assert tree(tmp_path / "memory") == before


@pytest.mark.parametrize("robot", ["Drone", "humanoid", "No Robot"])
def test_a_taught_task_is_recalled_exactly(session: Open, believing: Path, robot: str):
    opened = session(model=believing)
    slot = opened.teach(TASK, robot, because="the river is high", site="a quay")
    answer = opened.answer(TASK, site="a quay")
    name = load_fleet().names[load_fleet().find(robot)]
    assert answer["robot"] == name and answer["confidence"] == 1.0
    assert answer["memory"] == [{"slot": slot, "similarity": 1.0, "weight": 1.0, "robot": name, "task": TASK}]
    read = next(e for e in opened.ask(TASK, site="a quay") if isinstance(e, events.MemoryRead))
    assert (read.slots[0].because, read.slots[0].source) == ("the river is high", "taught")
    again = session(model=believing)
    assert plain(again.answer(TASK, site="a quay")) == plain(answer), "a new session remembers the same"
    assert again.similarities(TASK, site="a quay")[slot] == pytest.approx(1.0, abs=1e-5)


def test_the_written_vectors_are_those_of_the_request(session: Open, believing: Path):
    opened = session(model=believing)
    slot = opened.teach(TASK, "Drone")
    key, value = opened.encode_episode(opened.memory.episode(slot))
    assert (opened.memory.keys[slot] == key).all() and (opened.memory.values[slot] == value).all()


def test_a_masked_slot_is_as_if_never_taught(session: Open, believing: Path):
    opened = session(model=believing)
    before = opened.answer(TASK, reasoning=False)
    other = next(name for name in load_fleet().names if name != before["robot"])
    slot = opened.teach(TASK, other)
    assert opened.answer(TASK, reasoning=False)["robot"] == other
    assert plain(opened.without_slot(TASK, slot)) == plain(before)


def test_out_of_scope_slots_change_nothing(session: Open, doubting: Path):
    opened = session(model=doubting)
    before = plain(opened.answer(TASK))
    for text in SENTENCES[:4]:
        opened.teach(text, "Humanoid")
    assert len(opened.memory) == 4
    assert plain(opened.answer(TASK)) == before and before["memory"] == []
    assert plain(session(model=doubting, memory="off").answer(TASK)) == before


def test_many_read_the_memory_too(session: Open, believing: Path):
    opened = session(model=believing)
    opened.teach(TASK, "Humanoid")
    many = list(opened.answer_many([{"task": TASK}, {"task": SENTENCES[3]}]))
    assert many[0]["robot"] == "Humanoid" and many[0]["memory"][0]["slot"] == 0


def test_write_mode_observes_answers_and_read_mode_does_not(session: Open, tmp_path: Path):
    opened = session(memory="write")
    answer = opened.answer(TASK, reasoning=False)
    list(opened.answer_many([{"task": SENTENCES[1]}]))
    assert [(e.task, e.source) for _, e in opened.memory.episodes()] == [(TASK, "observed"), (SENTENCES[1], "observed")]
    assert opened.memory.episode(0).robot == answer["robot"]
    reading = session()
    reading.answer(SENTENCES[2])
    assert len(reading.memory) == 2


def test_what_cannot_be_taught(session: Open):
    with pytest.raises(UsageError, match="the memory is off"):
        session(memory="off").teach(TASK, "Drone")
    opened = session()
    with pytest.raises(FleetError, match="did you mean 'Drone'"):
        opened.teach(TASK, "Dron")
    with pytest.raises(UsageError, match="the task is empty"):
        opened.teach(" ", "Drone")
    assert len(opened.memory) == 0


def test_a_slot_whose_robot_left_the_fleet_decides_nothing(session: Open, believing: Path):
    opened = session(model=believing)
    opened.teach(TASK, "Humanoid")
    opened.set_fleet(parse_fleet({"name": "port", "robots": [{"name": "Crane"}, {"name": "Boat"}]}, where="f"))
    answer = opened.answer(TASK, reasoning=False)
    assert answer["robot"] in ("Crane", "Boat") and sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_memory_of_another_model_is_encoded_anew(session: Open, checkpoint: Path, believing: Path):
    slot = session(model=checkpoint).teach(TASK, "Humanoid")
    opened = session(model=believing)
    answer = opened.answer(TASK, reasoning=False)
    assert answer["robot"] == "Humanoid" and answer["memory"][0]["slot"] == slot and answer["memory"][0]["similarity"] == 1.0


# --- photos ---


def test_a_photo_counts_and_is_named(session: Open, photo: Path):
    opened = session()
    without, found = opened.answer(TASK), list(opened.ask(TASK, image=photo))
    seen = found[-1].answer
    assert seen["image"] == str(photo) and without["image"] is None
    assert seen["probabilities"] != without["probabilities"] and seen["reasoning"] != without["reasoning"]
    attention = [e.attention for e in found if isinstance(e, events.Step)]
    assert all(len(a) == opened.config.vision.patches and sum(a) == pytest.approx(1, abs=1e-4) for a in attention)
    assert all(e.attention == () for e in opened.ask(TASK, reasoning=False) if isinstance(e, events.Step))
    assert plain(opened.answer(TASK, image=photo)) == plain(seen)


def test_many_with_and_without_photos(session: Open, photo: Path):
    opened = session()
    rows = [{"task": text, **({"image": str(photo)} if i % 2 else {})} for i, text in enumerate(SENTENCES)]
    for row, answer in zip(rows, opened.answer_many(rows, batch_size=5), strict=True):
        alone = opened.answer(row["task"], image=row.get("image"), reasoning=False)
        assert answer["robot"] == alone["robot"] and answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)


def test_a_taught_photo_is_remembered_by_its_digest(session: Open, photo: Path, believing: Path):
    import hashlib

    opened = session(model=believing)
    slot = opened.teach(TASK, "Humanoid", image=photo)
    assert opened.memory.episode(slot).image == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert opened.answer(TASK, image=photo, reasoning=False)["robot"] == "Humanoid"
    assert opened.teach(TASK, "Drone") != slot, "the same task without the photo is another case"


def test_a_checkpoint_without_a_vision_encoder_says_so_when_one_is_needed(session: Open, photo: Path, checkpoint: Path, tmp_path: Path):
    import shutil

    folder = Path(shutil.copytree(checkpoint, tmp_path / "blind"))
    (folder / VISION).unlink()
    opened = session(model=folder)
    assert opened.answer(TASK, reasoning=False)["robot"]
    with pytest.raises(ModelMissingError, match="vision.safetensors is missing"):
        opened.ask(TASK, image=photo)


def test_a_vision_encoder_that_does_not_fit_is_refused(session: Open, photo: Path, checkpoint: Path, tmp_path: Path):
    import shutil

    from fakes import save_vision, tiny_config

    folder, config = Path(shutil.copytree(checkpoint, tmp_path / "other")), tiny_config()
    save_vision(replace(config, vision=replace(config.vision, image_size=64)), folder)
    with pytest.raises(CheckpointError, match=r"are \(64, 4, 64\), the model reads \(32, 1, 64\)"):
        session(model=folder).ask(TASK, image=photo)


# --- choosing a token ---


def test_repeats():
    assert repeats([5, 6, 7, 5], 2) == [6]
    assert repeats([5, 6, 7, 5, 6], 3) == [7]
    assert repeats([5, 5], 1) == [5, 5]
    assert repeats([5], 2) == [] and repeats([5, 6, 5], 0) == []


def test_pick():
    logits = torch.tensor([1.0, 3.0, 2.9, -1.0])
    base = {"banned": [], "repeated": [], "penalty": 1.0, "temperature": 1.0, "generator": None}
    assert pick(logits, **base) == 1
    assert pick(logits, **base | {"banned": [1]}) == 2
    assert pick(logits, **base | {"repeated": [1], "penalty": 1.2}) == 2
    assert pick(torch.tensor([-1.0, -1.05]), **base | {"repeated": [0], "penalty": 1.2}) == 1, "a negative score is made smaller too"
    assert torch.equal(logits, torch.tensor([1.0, 3.0, 2.9, -1.0])), "the logits were changed"


def test_sampling_follows_temperature_and_seed():
    logits = torch.tensor([0.0, 1.0, 2.0])

    def draw(temperature: float, banned: list[int]) -> list[int]:
        g = torch.Generator().manual_seed(0)
        return [pick(logits, banned=banned, repeated=[], penalty=1.0, temperature=temperature, generator=g) for _ in range(2000)]

    share = [draw(1.0, []).count(i) / 2000 for i in range(3)]
    assert share == pytest.approx(logits.softmax(0).tolist(), abs=0.04)
    assert draw(0.05, []).count(2) > 1990 and draw(1.0, [2]).count(2) == 0
    assert draw(1.0, []) == draw(1.0, [])
