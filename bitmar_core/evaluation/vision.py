"""What the photo adds: vague tasks whose answer only the photo tells, asked with their photo, without one, and with another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_core.evaluation import selection
from bitmar_core.evaluation.asking import Progress, ask, choice_figures, gold_of, no_progress, objects, part_of


@dataclass(frozen=True, kw_only=True)
class PhotoQuestion:
    """One task with its photo."""

    task: str
    image: str
    gold: tuple[str, ...]


def evaluate(session: Any, items: Sequence[PhotoQuestion], progress: Progress = no_progress, *, seed: int = 0) -> dict[str, Any]:
    """Figures `photo`, `none` and `shuffled`, each with `macro` over the first acceptable answer and `refused`.

    Shuffled, every task gets the photo of another one, so what is left there is what the text alone and the photos at large tell.
    """
    gold = [item.gold for item in items]
    order = selection.shift(len(items), seed)
    photos: dict[str, list[str | None]] = {
        "photo": [item.image for item in items],
        "none": [None] * len(items),
        "shuffled": [items[i].image for i in order],
    }
    result: dict[str, Any] = {"tasks": len(items)}
    for number, (name, images) in enumerate(photos.items()):
        requests = [{"task": item.task} | ({} if image is None else {"image": image}) for item, image in zip(items, images, strict=True)]
        answers = ask(session, requests, part_of(progress, number * len(items), len(photos) * len(items)))
        result[name] = {**choice_figures(gold, answers.robots), "refused": len(answers.refused)}
    return result


def read(path: Path, names: Sequence[str]) -> list[PhotoQuestion]:
    """Items `{task, image, gold}`; image paths are relative to the file.

    Raises:
        MissingError, BitMarError: no such file, or an item is refused; names file and item.
    """
    return [
        PhotoQuestion(task=row["task"], image=str(path.parent / row["image"]), gold=gold_of(row, names, where))
        for where, row in objects(path, task=str, image=str, gold=list)
    ]  # fmt: skip
