"""How well a session chooses among robots that it never saw: custom fleets, each with its own tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.evaluation.asking import Answers, Progress, ask, check, figures, gold_of, no_progress, objects, part_of, request, share
from bitmar_core.robots import parse_fleet


def evaluate(session: Any, tasks: Sequence[RobotTask], progress: Progress = no_progress) -> dict[str, Any]:
    """Figures over all tasks, `chance`, and the share of hits in each fleet. The session gets its own fleet back.

    `macro`, over first acceptable answers, would compare robots of different fleets by name; here it is the mean over fleets.
    """
    by_fleet: dict[str, list[RobotTask]] = {}
    for task in tasks:
        by_fleet.setdefault(task.group, []).append(task)
    before, done = session.fleet, 0
    everything, gold, per_fleet = Answers(), [], {}
    try:
        for name, group in by_fleet.items():
            session.set_fleet(group[0].fleet)
            answers = ask(session, [request(task) for task in group], part_of(progress, done, len(tasks)))
            hits = sum(robot in task.gold for robot, task in zip(answers.robots, group, strict=True))
            per_fleet[name] = {"tasks": len(group), **share(hits, len(group))}
            done += len(group)
            gold += [task.gold for task in group]
            for whole, part in zip(vars(everything).values(), vars(answers).values(), strict=True):
                whole.extend(part)
    finally:
        session.set_fleet(before)
    result = figures(gold, everything)
    result["macro"] = sum(f["top1"] for f in per_fleet.values()) / len(per_fleet)
    result["chance"] = sum(len(task.gold) / len(task.fleet.names) for task in tasks) / len(tasks)
    result["fleets"] = per_fleet
    return result


def read(path: Path) -> list[RobotTask]:
    """Tasks of a file of `{fleet_id, fleet: [cards], items: [{id?, task, gold}]}`; the group of a task is its fleet.

    Raises:
        MissingError, BitMarError, FleetError: no such file, or an item or a fleet is refused; names file and item.
    """
    tasks = []
    for number, (where, row) in enumerate(objects(path, fleet=list, items=list), 1):
        name = str(row.get("fleet_id", f"fleet {number}"))
        fleet = parse_fleet({"name": name[:80], "robots": row["fleet"]}, where=where)
        for index, item in enumerate(row["items"], 1):
            spot = f"{where}, task {index}"
            check(item, spot, task=str, gold=list)
            tasks.append(RobotTask(id=str(item.get("id", spot)), task=item["task"], gold=gold_of(item, fleet.names, spot), fleet=fleet, group=name))
    return tasks
