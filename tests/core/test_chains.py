"""The chain of thought: written for training, held to its form when decoded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fakes import SENTENCES, readers, sample_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitmar_core.data.chains import SECTION_STEP, Chain, Grammar, section_texts, write_chain
from bitmar_core.data.collate import chain_tensors
from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.events import SECTIONS
from bitmar_core.robots import load_fleet
from bitmar_core.tokenizer import WriterTokenizer

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="session")
def writer(checkpoint: Path) -> WriterTokenizer:
    return readers(checkpoint)[1]


def decode(
    writer: WriterTokenizer, robots: int, chosen: int, limit: int, line_limit: int | None, rng: random.Random, *, ends: float
) -> tuple[list[int], list[int], int]:
    """Feed the grammar random tokens that it allows; `ends` is how often the closing token is taken where it may be. Tokens, steps, forced ones."""
    grammar, ids, steps, forced_count = Grammar(writer, robots, chosen, limit, line_limit), [], [], 0
    while not grammar.finished:
        steps.append(grammar.step)
        token = grammar.forced()
        forced_count += token is not None
        if token is None:
            banned = set(grammar.banned())
            assert banned <= writer.special, "a word is banned"
            named = [i for i in writer.robots if i not in banned]
            if grammar.closing not in banned and rng.random() < ends:
                token = grammar.closing
            elif named and rng.random() < 0.3:
                token = rng.choice(named)
            else:
                token = rng.choice([i for i in range(writer.size) if i not in banned and i != grammar.closing])
        grammar.feed(token)
        ids.append(token)
        assert len(ids) <= (robots + 5) * (max(limit, line_limit or 0) + 2) + 9, "the grammar does not end"
    return ids, steps, forced_count


@SHARED
@given(
    robots=st.integers(2, 64),
    data=st.data(),
    limit=st.integers(1, 12),
    line_limit=st.none() | st.integers(1, 12),
    seed=st.integers(0, 2**32),
    ends=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_random_tokens_always_give_a_whole_chain(
    writer: WriterTokenizer, robots: int, data: st.DataObject, limit: int, line_limit: int | None, seed: int, ends: float
):
    chosen = data.draw(st.integers(0, robots - 1))
    ids, steps, _ = decode(writer, robots, chosen, limit, line_limit, random.Random(seed), ends=ends)
    assert ids[0] == writer.begin and ids[-1] == writer.end
    assert [i for i in ids if i in writer.sections] == writer.sections, "each section once and in order"
    assert steps == sorted(steps) and set(steps) == {0, 1, 2, 3, 4}
    starts = [ids.index(section) for section in writer.sections] + [len(ids)]
    parts = {name: ids[a + 1 : b] for name, a, b in zip(SECTIONS, starts, starts[1:], strict=False)}
    assert all(part[-1] == writer.end and part.count(writer.end) == 1 for part in parts.values())
    # A line for every robot, in order, each with words of its own.
    evaluation = parts.pop("robot_evaluation")
    assert [i for i in evaluation if i in writer.robots] == writer.robots[:robots]
    lines = " ".join("/" if i == writer.line else "R" if i in writer.robots else "." if i == writer.end else "w" for i in evaluation)
    assert (
        all(line.split()[0] == "R" and 1 <= line.split().count("w") <= (line_limit or limit) for line in lines.split("/")[:-1])
        and lines.split("/")[-1].strip() == "."
    )
    # The last section opens with the policy's choice and names nobody else.
    assert parts["robot_selection"][0] == writer.robots[chosen]
    assert not set(parts["robot_selection"][1:]) & set(writer.robots)
    for name, part in parts.items():
        words = part[:-1] if name != "robot_selection" else part[1:-1]
        assert 1 <= len(words) <= limit and words[0] not in writer.special, name
        assert not set(words) & (writer.special - set(writer.robots[:robots])), "a robot that is not in the fleet, or structure"


@SHARED
@given(robots=st.integers(2, 64), data=st.data())
def test_what_is_written_for_training_is_what_the_grammar_allows(writer: WriterTokenizer, robots: int, data: st.DataObject):
    """Same tokens and same step for each next token, so decoding meets what training showed."""
    chosen = data.draw(st.integers(0, robots - 1))
    chain = sample_chain(writer, tuple(f"Robot {i}" for i in range(robots)), chosen)
    grammar, steps = Grammar(writer, robots, chosen, 64), []
    for token, target in zip(chain.ids, chain.targets, strict=True):
        steps.append(grammar.step)
        forced = grammar.forced()
        assert token == forced if forced is not None else token not in grammar.banned()
        assert target is (forced is None), "a forced token is no target, a free one is"
        grammar.feed(token)
    assert grammar.finished and chain.sections == steps


def test_grammar_refuses_another_token_than_the_forced_one(writer: WriterTokenizer):
    with pytest.raises(AssertionError):
        Grammar(writer, 2, 0, 8).feed(writer.end)


def test_the_longest_section_is_cut(writer: WriterTokenizer):
    ids, _, forced = decode(writer, 3, 1, 4, 2, random.Random(0), ends=0.0)
    assert len(ids) == 1 + 6 + 5 * (4 + 1) + 3 * (1 + 2 + 1) + 1 + 1  # begin, sections, words and end, lines, end of lines, choice
    assert forced == len(ids) - 5 * 4 - 3 * 2


def task(**fields) -> RobotTask:
    return RobotTask(**{
        "id": "t", "task": SENTENCES[0], "gold": ("Drone",), "fleet": load_fleet(), "thinking": "Think.", "environment": "Look.",
        "verdicts": {"Drone": "It flies.", "Humanoid": "It walks."}, "reasoning": "The Drone is best. It is fast.", "doubt": "Wind.",
    } | fields)  # fmt: skip


def test_section_texts():
    texts = section_texts(task(), "Drone", "Somebody must go.")
    assert texts[:2] == ["Think.", "Look."] and texts[3:] == ["The Drone is best. It is fast.", "Wind.", "It flies."]
    assert texts[2] == {"Drone": "It flies.", "Humanoid": "It walks.", "No Robot": "Somebody must go."}
    assert section_texts(task(), "No Robot", "x")[5] == "The Drone is best."
    assert section_texts(task(reasoning=""), "No Robot", "x")[5] == ""
    assert task().has_chain and not task(doubt="").has_chain


def test_unwritten_parts_are_no_targets(writer: WriterTokenizer):
    texts: list[str | dict[str, str]] = ["", "Look.", {"A": "", "B": "good"}, "", "", ""]
    chain = write_chain(texts, ("A", "B"), ("A", "B"), 1, writer)
    free = [i for i, target in zip(chain.ids, chain.targets, strict=True) if target]
    assert free == [*writer.encode("Look."), writer.end, *writer.encode("good"), writer.line]
    assert len(chain.ids) == len(chain.sections) == len(chain.targets)


def test_sections_belong_to_steps():
    assert SECTION_STEP == (0, 1, 2, 3, 4, 4) and len(SECTIONS) == len(SECTION_STEP)


def test_chain_tensors_shift_by_one(writer: WriterTokenizer):
    """Position t reads token t with the step of token t+1, and its target is token t+1."""
    chain = Chain(ids=[5, 6, 7, 8], sections=[0, 0, 1, 1], targets=[False, True, False, True])
    short = Chain(ids=[5, 9], sections=[0, 2], targets=[False, True])
    inputs, sections, targets, mask = chain_tensors([chain, short], padding=3, limit=10)
    assert inputs.tolist() == [[5, 6, 7], [5, 3, 3]] and sections.tolist() == [[0, 1, 1], [2, 0, 0]]
    assert targets.tolist() == [[6, -100, 8], [9, -100, -100]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert chain_tensors([chain], padding=3, limit=2)[0].tolist() == [[5, 6]]
