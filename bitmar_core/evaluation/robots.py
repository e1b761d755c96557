"""How well a session chooses robots: tasks with their acceptable answers go in, one mapping of figures comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitmar_core import paths
from bitmar_core.data.robot_tasks import Corpus, RobotTask, held_out, read_corpus
from bitmar_core.errors import BitMarError, MissingError
from bitmar_core.evaluation.asking import Progress, ask, figures, gold_of, no_progress, objects, request
from bitmar_core.robots import Fleet


def evaluate(session: Any, tasks: Sequence[RobotTask], progress: Progress = no_progress) -> dict[str, Any]:
    """Figures over tasks for the session's fleet: see `figures`."""
    answers = ask(session, [request(task) for task in tasks], progress)
    return figures([task.gold for task in tasks], answers, session.fleet.names)


def read(path: Path, fleet: Fleet) -> list[RobotTask]:
    """Tasks `{id?, task, site?, gold}` for one fleet.

    Raises:
        MissingError, BitMarError: no such file, or an item is refused; names file and item.
    """
    tasks = []
    for where, row in objects(path, task=str, gold=list):
        site = row.get("site")
        if not (site is None or isinstance(site, str)):
            raise BitMarError(f"{where}: `site` must be text")
        tasks.append(RobotTask(id=str(row.get("id", where)), task=row["task"], site=site, gold=gold_of(row, fleet.names, where), fleet=fleet))
    return tasks


def shipped() -> Corpus:
    """The tasks that BitMar ships in `assets/data`."""
    return read_corpus(paths.assets() / "data")


def kept_back(tasks: Sequence[RobotTask], holdout: float) -> list[RobotTask]:
    """The tasks that training does not see.

    Raises:
        MissingError: there are none at this share.
    """
    found = [task for task in tasks if held_out(task.group, holdout)]
    if not found:
        raise MissingError(f"no shipped data is held out at training.holdout {holdout}; name a file with --data")
    return found
