"""Asking a session many tasks, the figures of its answers, and reading data files of strangers. What every evaluation shares.

Every figure is computed by a pure function of `selection.py`. Figures are plain numbers, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitmar_core.data.robot_tasks import RobotTask, rows
from bitmar_core.errors import BitMarError, MissingError
from bitmar_core.evaluation import selection

Progress = Callable[[int, int], None]
"""Called with the number of answers so far and the number wanted."""


def no_progress(done: int, total: int) -> None:
    """For callers who do not watch."""


def part_of(progress: Progress, start: int, total: int) -> Progress:
    """The progress of one part of a longer run: `start` answers came before it, `total` are wanted in all."""

    def report(done: int, _: int) -> None:
        progress(start + done, total)

    return report


@dataclass
class Answers:
    """What a session said to a list of requests, in their order."""

    robots: list[str | None] = field(default_factory=list)
    """None where the request was refused."""
    confidence: list[float] = field(default_factory=list)
    probabilities: list[dict[str, float]] = field(default_factory=list)
    """Empty where the request was refused."""
    refused: list[str] = field(default_factory=list)
    """The reasons, one for each refused request."""


def ask(session: Any, requests: Sequence[dict[str, Any]], progress: Progress = no_progress) -> Answers:
    """Ask without reasoning text. A refused request has no robot, which counts as wrong.

    Args:
        session: anything with `answer_many`.
        requests: `{"task", "image"?, "site"?}`, image paths resolved.
    """
    answers = Answers()
    for done, answer in enumerate(session.answer_many(iter(requests), reasoning=False), 1):
        if "error" in answer:
            answers.refused.append(answer["error"])
        answers.robots.append(answer.get("robot"))
        answers.confidence.append(float(answer.get("confidence", 0.0)))
        answers.probabilities.append(answer.get("probabilities", {}))
        progress(done, len(requests))
    assert len(answers.robots) == len(requests), "a session answers every request"
    return answers


def request(task: RobotTask) -> dict[str, Any]:
    """A task as a session is asked it."""
    return {"task": task.task, "site": task.site} if task.site else {"task": task.task}


def share(hits: int, total: int) -> dict[str, Any]:
    """A share with its Wilson interval (95 %)."""
    return {"top1": hits / max(1, total), "interval": list(selection.wilson(hits, total))}


def choice_figures(gold: Sequence[Sequence[str]], chosen: Sequence[str | None]) -> dict[str, Any]:
    """Figures that need the choices alone: `tasks`, `top1`, `interval`, `macro`."""
    hits = sum(c in g for g, c in zip(gold, chosen, strict=True))
    return {"tasks": len(chosen), **share(hits, len(chosen)), "macro": selection.macro(gold, chosen)}


def figures(gold: Sequence[Sequence[str]], answers: Answers, names: Sequence[str] | None = None) -> dict[str, Any]:
    """All figures of a set of answers. With `names`, those of one fleet, also the figures of each robot and the confusion table."""
    hit = [c in g for g, c in zip(gold, answers.robots, strict=True)]
    result = {
        **choice_figures(gold, answers.robots),
        "ece": selection.expected_calibration_error(answers.confidence, hit),
        "brier": selection.brier(gold, answers.probabilities),
        "selective": {"share": 0.7, "accuracy": selection.selective_accuracy(answers.confidence, hit, 0.7)},
        "refused": len(answers.refused),
    }
    if names is not None:
        target = selection.targets(gold, answers.robots)
        result["robots"] = selection.precision_recall(target, answers.robots, names)
        result["confusion"] = selection.confusion(target, answers.robots, names)
    return result


def need(path: Path, items: Sequence[Any]) -> None:
    """Refuse an empty data file.

    Raises:
        MissingError: there is nothing in it.
    """
    if not items:
        raise MissingError(f"{path} holds no items; write one JSON object a line")


def objects(path: Path, **fields: type | tuple[type, ...]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Objects of a JSON-lines file with where they stand, for messages. Each must have `fields`, of those types and not empty.

    Raises:
        MissingError: no such file. BitMarError: not text, not JSON, or a field is missing; names file and item.
    """
    try:
        found = rows(path)
    except UnicodeDecodeError as error:
        raise BitMarError(f"{path} is not UTF-8 text (byte {error.start}); name a file of JSON lines") from error
    need(path, found)
    for number, row in enumerate(found, 1):
        where = f"{path}, item {number}"
        check(row, where, **fields)
        yield where, row


def check(row: Any, where: str, **fields: type | tuple[type, ...]) -> None:
    """Check one object of a data file.

    Raises:
        BitMarError: not an object, or a field is missing, empty or of another type.
    """
    if not isinstance(row, dict):
        raise BitMarError(f"{where}: must be an object with {', '.join(fields)}")
    for name, kind in fields.items():
        if not isinstance(row.get(name), kind) or not row[name]:
            raise BitMarError(f"{where}: `{name}` must be {'text' if kind is str else 'a list'} and not empty")


def gold_of(row: dict[str, Any], names: Sequence[str], where: str) -> tuple[str, ...]:
    """The acceptable robots of an item, which must belong to the fleet.

    Raises:
        BitMarError: one does not.
    """
    for name in row["gold"]:
        if name not in names:
            raise BitMarError(f"{where}: gold {str(name)[:60]!r} is not in the fleet ({', '.join(names)})")
    return tuple(row["gold"])
