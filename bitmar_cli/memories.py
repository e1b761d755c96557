"""Memory stores as `bitmar memory` and the chat show them. Needs no model."""

from __future__ import annotations

import shutil
from typing import Any

from bitmar_cli.render import Screen, table
from bitmar_core.errors import UsageError

FIELDS = ("task", "site", "image", "robot", "because", "confidence", "source", "made", "used", "uses", "pinned")


def episode_at(store: Any, slot: int) -> Any:
    """The story in `slot`.

    Raises:
        UsageError: no such slot, or nothing in it.
    """
    if store is None:
        raise UsageError(f"slot {slot} is empty: the memory holds nothing yet; `bitmar memory teach` fills it")
    if not 0 <= slot < store.slots:
        raise UsageError(f"there is no slot {slot}; this memory has 0 to {store.slots - 1}")
    story = store.episode(slot)
    if story is None:
        raise UsageError(f"slot {slot} is empty; `bitmar memory list` shows the filled ones")
    return story


def filled(store: Any) -> list[tuple[int, Any]]:
    """Slots in use and their stories."""
    if store is None:
        return []
    return list(store.episodes())


def as_object(slot: int, story: Any) -> dict[str, Any]:
    """A slot as JSON shows it."""
    return {"slot": slot, **{name: getattr(story, name) for name in FIELDS}}


def listing(store: Any, *, screen: Screen) -> list[str]:
    """A line for each slot in use."""
    found = filled(store)
    if not found:
        return ["the memory is empty; `bitmar memory teach` or /teach fills it"]
    rows = [[slot, story.robot, story.source, story.uses, "yes" if story.pinned else "", story.made[:10], story.task] for slot, story in found]
    width = None if screen.plain else shutil.get_terminal_size().columns
    lines = table(rows, ["slot", "robot", "source", "uses", "pinned", "made", "task"], width=width)
    return [*lines, f"{len(found)} of {store.slots} slots in use"]


def without_line(slot: int, answer: dict[str, Any], again: dict[str, Any]) -> str:
    """What a rerun with the slot masked changed."""
    robot = answer["robot"]
    line = f"without slot {slot}: {robot} {answer['probabilities'][robot]:.2f} -> {again['probabilities'].get(robot, 0.0):.2f}"
    if again["robot"] != robot:
        line += f"; the choice would be {again['robot']} ({again['confidence']:.2f})"
    return line


def story_lines(slot: int, story: Any) -> list[str]:
    """All that a slot holds, a line each."""
    lines = [f"slot {slot}{' (pinned)' if story.pinned else ''}"]
    lines += [f"task: {story.task}", f"robot: {story.robot}"]
    if story.because:
        lines.append(f"because: {story.because}")
    if story.site:
        lines.append(f"site: {story.site}")
    if story.image:
        lines.append(f"image: sha256 {story.image}")
    lines += [f"source: {story.source}", f"confidence: {story.confidence:.2f}", f"made: {story.made}"]
    lines.append(f"used: {story.uses} times, last {story.used}" if story.used else "used: never")
    return lines


def rerun(session: Any, slot: int, story: Any) -> dict[str, Any]:
    """The slot's own task, asked with the slot and with the slot masked. Only its digest is kept of a photo, so it is left out.

    Raises:
        BitMarError: the model refused the task.
    """
    result = {}
    for name, answer in (
        ("with", session.answer(story.task, site=story.site, reasoning=False)),
        ("without", session.without_slot(story.task, slot, site=story.site)),
    ):
        result[name] = {key: answer[key] for key in ("robot", "confidence", "probabilities")}
    return result


def nearness(session: Any, task: str, *, image: str | None, site: str | None) -> tuple[dict[int, float], dict[int, float]]:
    """Similarity and weight of the slots for a task, as the model computes them when it is asked.

    A session with `similarities(task, image=, site=)` gives the similarity of every slot; else it is known of the slots that were read.
    """
    from bitmar_core.events import Decision, MemoryRead

    read: dict[int, Any] = {}
    for event in session.ask(task, image=image, site=site, reasoning=False):
        if isinstance(event, MemoryRead):
            read = {slot.slot: slot for slot in event.slots}
        if isinstance(event, Decision):
            break
    similar = {slot: recalled.similarity for slot, recalled in read.items()}
    if hasattr(session, "similarities"):
        similar = {slot: float(value) for slot, value in dict(session.similarities(task, image=image, site=site)).items()}
    return similar, {slot: recalled.weight for slot, recalled in read.items()}
