"""Rewards: an honest chain earns nearly all, and no cheap way to a reward pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitmar_core.data.chains import write_chain
from bitmar_core.events import SECTIONS
from bitmar_core.tokenizer import WriterTokenizer, train_bpe
from bitmar_core.training.rewards import (
    COPIED_RUN,
    QUALITY_WEIGHTS,
    REWARD_MAX,
    ChainText,
    agreement,
    denies,
    grounding,
    length,
    named,
    read_chain,
    recommended,
    reward,
    set_f1,
    variety,
    without_copies,
)  # fmt: skip

NAMES = ("Drone", "Underwater Robot", "Humanoid", "Robot with Wheels", "Robot with Legs", "No Robot")
TASK = "Count the loose slates on the church tower, 38 m up; nothing is to be touched and the air is calm."
GOLD = ("Drone",)
PROSE = {
    "thinking": "Slates high on a tower have to be counted. Looking is enough.",
    "environment_analysis": "A church tower in calm air, 38 m above the yard. The slope of the roof is unknown.",
    "selection_reasoning": "The slates lie 38 m up and only the flyer sees the tower from every side.",
    "confidence_check": "Sudden gusts around the spire could end the flight early.",
    "robot_selection": "Circles the tower and films each slate.",
}
LINES = (
    "Circles the tower and films each slate.", "Swims, while every slate here is dry.".replace("while", "but"), "Would have to climb the outside of a spire.",
    "Stays on the ground and sees no slates.", "Cannot climb a vertical wall of stone.", "A machine spares people the climb.",
)  # fmt: skip
HONEST = ChainText(names=NAMES, chosen=0, sections=PROSE, lines=LINES)


def earned(chain: ChainText, gold=GOLD, task=TASK):
    return reward(chain, task, gold)


def prose(chain: ChainText, **sections: str) -> ChainText:
    return replace(chain, sections=chain.sections | sections)


def test_an_honest_chain_earns_nearly_all():
    got = earned(HONEST)
    assert got.task_success == 1.0
    assert got.reasoning_quality > 0.95
    assert got.total == got.task_success + got.reasoning_quality <= REWARD_MAX
    assert set(got.parts) == {"chosen", "robots", *QUALITY_WEIGHTS}
    assert all(0.0 <= value <= 1.0 for value in got.parts.values())
    assert sum(QUALITY_WEIGHTS.values()) == pytest.approx(1.0)
    assert got.reasoning_quality == pytest.approx(sum(QUALITY_WEIGHTS[name] * got.parts[name] for name in QUALITY_WEIGHTS))


def test_naming_every_robot_does_not_pay():
    every = "The Drone, the Underwater Robot, the Humanoid, the Robot with Wheels, the Robot with Legs and No Robot see the slates of the tower."
    flood = prose(HONEST, selection_reasoning=every)
    assert recommended(flood) == set(range(6))
    assert earned(flood).task_success == pytest.approx(2 / 7)
    # A word of denial somewhere in the sentence does not excuse it.
    assert recommended(prose(HONEST, selection_reasoning="The Drone, the Humanoid and the Robot with Legs, not one of them less, see the tower.")) == {0, 2, 4}
    # Nor does it insure a wrong choice.
    assert earned(replace(flood, chosen=2)).task_success == 0.0
    two = prose(HONEST, selection_reasoning=PROSE["selection_reasoning"] + " The Humanoid sees the tower as well.")
    assert earned(two).task_success == pytest.approx(2 / 3)
    assert earned(replace(two, chosen=2)).task_success == 0.0
    assert max(earned(flood).total, earned(two).total) < earned(HONEST).total


def test_an_equally_suited_robot_may_be_named():
    both = prose(HONEST, selection_reasoning=PROSE["selection_reasoning"] + " The Humanoid sees the tower as well.")
    assert earned(both, gold=("Drone", "Humanoid")).task_success == 1.0
    assert earned(HONEST, gold=("Drone", "Humanoid")).task_success == pytest.approx(2 / 3)
    denied = prose(HONEST, selection_reasoning=PROSE["selection_reasoning"] + " The Humanoid cannot see the tower.")
    assert earned(denied).task_success == 1.0


def test_a_wrong_choice_earns_no_success_and_less_quality():
    wrong = earned(replace(HONEST, chosen=3))
    assert wrong.task_success == 0.0 and wrong.parts["chosen"] == 0.0
    assert wrong.parts["agreement"] < earned(HONEST).parts["agreement"]


def test_empty_praise_does_not_pay():
    praise = "This robot is truly the best and most excellent choice. It is perfect and highly suitable."
    hollow = replace(HONEST, sections=dict.fromkeys(PROSE, praise), lines=(praise,) * 6)
    assert earned(hollow).reasoning_quality < 0.2
    # Every text praising in other words is no better.
    words = ("Excellent and perfect.", "The best choice.", "Ideal, truly ideal.", "A superb robot.", "Highly suitable.", "Great, really great.")
    varied = replace(HONEST, sections=dict(zip(PROSE, words, strict=False)), lines=tuple(f"{word} Perfect fit." for word in words))
    assert earned(varied).reasoning_quality < 0.2
    # And praise that is added to an honest chain adds nothing.
    added = replace(HONEST, sections={name: f"{text} {praise}" for name, text in PROSE.items()}, lines=tuple(f"{line} {praise}" for line in LINES))
    assert earned(added).total <= earned(HONEST).total


def test_padding_does_not_pay():
    filler = " ".join(f"pebble{i} and cloud{i} beside river{i}" for i in range(30)) + "."
    padded = replace(HONEST, sections={name: f"{text} {filler}" for name, text in PROSE.items()})
    assert earned(padded).total < earned(HONEST).total
    assert earned(padded).parts["length"] < 0.6
    longer = prose(HONEST, thinking=PROSE["thinking"] + " Somebody below writes the numbers into a plan of the roof.")
    assert earned(longer).total <= earned(HONEST).total + 1e-9


def test_repetition_does_not_pay():
    same = replace(HONEST, sections=dict.fromkeys(PROSE, PROSE["thinking"]))
    assert variety(same) == pytest.approx(7 / 10)
    assert earned(same).reasoning_quality < earned(HONEST).reasoning_quality
    one_line = replace(HONEST, lines=(LINES[4],) * 6)
    assert variety(one_line) == pytest.approx(5 / 10)
    circles = prose(HONEST, thinking="slates tower " * 12 + ".")
    assert earned(circles).parts["variety"] < earned(HONEST).parts["variety"]


def test_copying_the_task_does_not_pay():
    copied = prose(HONEST, thinking=TASK, environment_analysis=TASK, selection_reasoning=TASK)
    assert without_copies(TASK, TASK) == ""
    assert grounding(copied, TASK) == pytest.approx(0.25)  # the chosen line alone
    assert earned(copied).total < earned(HONEST).total - 0.1
    few = "He said: " + " ".join(TASK.split()[: COPIED_RUN - 1])
    assert without_copies(few, TASK) == " ".join(w.strip(":,.;").lower() for w in few.split())


def test_another_tasks_chain_is_not_grounded():
    assert grounding(HONEST, TASK) > 0.9
    assert grounding(HONEST, "Bring 140 kg of clean linen from the basement to ward 5 by the goods lift.") < 0.1
    assert grounding(HONEST, "Do it.") == 1.0  # nothing to speak of


def test_empty_texts_cost():
    for section in ("thinking", "environment_analysis", "selection_reasoning", "confidence_check"):
        assert earned(prose(HONEST, **{section: ""})).reasoning_quality < earned(HONEST).reasoning_quality - 0.05
    for slot in range(6):
        gone = replace(HONEST, lines=tuple("" if i == slot else line for i, line in enumerate(LINES)))
        assert earned(gone).parts["lines"] < earned(HONEST).parts["lines"] or slot == 5
        assert earned(gone).reasoning_quality < earned(HONEST).reasoning_quality
    assert length(replace(HONEST, sections={}, lines=("",) * 6)) == 0.0


def test_agreement_of_lines_and_choice():
    assert [denies(line) for line in LINES] == [False, True, True, True, True, False]
    assert agreement(HONEST) == 1.0
    assert agreement(replace(HONEST, chosen=2)) == pytest.approx((0.0 + 0.5 * 3) / 4)
    assert agreement(replace(HONEST, lines=("Cannot see slates of a spire.", *LINES[1:]))) == 0.5  # denying all says nothing
    assert (
        agreement(
            replace(HONEST, lines=(LINES[0], "Films the whole spire.", "Looks over the slates.", "Rolls around the church.", "Walks around the yard.", ""))
        )
        == 0.5
    )
    refused = replace(HONEST, chosen=5)
    assert agreement(refused) == pytest.approx((4 + 0.5) / 5)  # one robot's line still says that it does
    assert agreement(replace(HONEST, chosen=-1)) == 0.0


def test_form():
    assert earned(HONEST).parts["form"] == 1.0
    cut = replace(HONEST, finished=False, order=SECTIONS[:4])
    assert earned(cut).parts["form"] == pytest.approx(1 / 3)
    assert earned(prose(HONEST, thinking="Slates high on a tower have to be")).parts["form"] == pytest.approx((2 + 0.75) / 3)


def test_names_in_text():
    assert named("Neither the drone nor a Robot  with Legs.", NAMES) == {0, 4}
    assert named("Drones and a droned song", NAMES) == set()
    assert named("The Drone Boat sails", ("Drone", "Drone Boat")) == {1}
    assert set_f1({0, 1}, {0}) == pytest.approx(2 / 3) and set_f1({1}, {0}) == 0.0 and set_f1(set(), {0}) == 0.0


def test_chains_of_tokens_are_read_as_they_were_written(tmp_path):
    train_bpe([*PROSE.values(), *LINES, TASK] * 3, 700, tmp_path / "t.json")
    writer = WriterTokenizer(tmp_path / "t.json")
    reasoning = "The slates need the Drone. The Humanoid cannot climb."
    written = [
        PROSE["thinking"],
        PROSE["environment_analysis"],
        dict(zip(NAMES, LINES, strict=True)),
        reasoning,
        PROSE["confidence_check"],
        PROSE["robot_selection"],
    ]
    ids = write_chain(written, NAMES, NAMES, 0, writer).ids
    got = read_chain(ids, NAMES, writer)
    assert (got.chosen, got.lines, got.order, got.finished) == (0, LINES, SECTIONS, True)
    assert {k: v.replace(" .", ".") for k, v in got.sections.items()} == PROSE | {"selection_reasoning": reasoning}
    assert recommended(got) == {0}
    # A chain that was cut reads as far as it goes; tokens in any order are no error.
    half = read_chain(ids[: len(ids) // 2], NAMES, writer)
    assert not half.finished and half.chosen == -1 and half.sections["thinking"] == PROSE["thinking"] and half.sections["robot_selection"] == ""
    scrambled = read_chain(ids[::-1], NAMES, writer)
    assert earned(scrambled).total < 1.0
    assert read_chain([], NAMES, writer).order == ()
    assert earned(read_chain([], NAMES, writer)).total == 0.0
