"""Robot tasks as they are written by hand: reading, checking, and parting them without leaks.

Files are JSON lines in `assets/data`: tasks, families of rewordings with near neighbours, custom fleets, photo tasks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitmar_core.errors import BitMarError, MissingError
from bitmar_core.robots import Fleet, load_fleet, parse_fleet


@dataclass(frozen=True, kw_only=True)
class RobotTask:
    """One task with its answer and, where it was written, the chain that leads there."""

    id: str
    task: str
    gold: tuple[str, ...]
    fleet: Fleet
    site: str | None = None
    group: str = ""
    """Tasks of a group (a minimal pair, a family, a fleet) stay on one side of every split."""
    thinking: str = ""
    environment: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    reasoning: str = ""
    doubt: str = ""

    @property
    def text(self) -> str:
        """What the encoder reads."""
        return compose(self.task, self.site)

    @property
    def has_chain(self) -> bool:
        """True where all five sections were written."""
        return bool(self.thinking and self.environment and self.verdicts and self.reasoning and self.doubt)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A task, its rewordings, its near neighbours."""

    id: str
    task: str
    gold: tuple[str, ...]
    same: tuple[str, ...]
    near: tuple[tuple[str, tuple[str, ...]], ...]
    """(task, gold) of each neighbour"""


@dataclass(frozen=True, kw_only=True)
class PhotoTask:
    """A vague task whose answer the photo decides."""

    id: str
    task: str
    by_place: dict[str, tuple[str, ...]]


def compose(task: str, site: str | None) -> str:
    """Task and site as one text, the form that is read everywhere."""
    return f"{task} Site: {site}" if site else task


def rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file.

    Raises:
        MissingError: no such file.
        BitMarError: a line is not a JSON object; names file and line.
    """
    if not path.is_file():
        raise MissingError(f"no file {path}; check the path")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BitMarError(f"{path}, line {number}: not JSON ({error}); one object a line is needed") from error
            if not isinstance(row, dict):
                raise BitMarError(f"{path}, line {number}: not a JSON object; one object a line is needed")
            found.append(row)
    return found


def read_tasks(path: Path, fleet: Fleet | None = None) -> list[RobotTask]:
    """Tasks for one fleet: `{id, task, gold, site?, pair?, thinking?, environment?, verdicts?, reasoning?, doubt?}`.

    Raises:
        BitMarError: a field is missing, or gold names a robot that the fleet has not.
    """
    fleet = fleet or load_fleet()
    tasks = []
    for number, row in enumerate(rows(path), 1):
        gold = row.get("gold")
        if not isinstance(row.get("task"), str) or not isinstance(gold, list) or not gold:
            raise BitMarError(f"{path}, item {number}: `task` and a non-empty `gold` list are needed")
        unknown = [g for g in gold if g not in fleet.names]
        if unknown:
            raise BitMarError(f"{path}, item {number}: gold {unknown[0]!r} is not in the fleet ({', '.join(fleet.names)})")
        name = str(row.get("id", f"{path.stem}-{number}"))
        texts = {key: str(row.get(key, "")) for key in ("thinking", "environment", "reasoning", "doubt")}
        group = f"{path.stem}/{row['pair']}" if row.get("pair") else name
        tasks.append(
            RobotTask(
                id=name, task=row["task"], site=row.get("site"), gold=tuple(gold), fleet=fleet, group=group, verdicts=dict(row.get("verdicts", {})), **texts
            )
        )
    return tasks


def read_fleets(path: Path) -> list[RobotTask]:
    """Tasks of custom fleets: `{fleet_id, fleet: [...], items: [{id, task, gold, why?}]}`. `why` becomes the reasoning."""
    tasks = []
    for row in rows(path):
        name = str(row.get("fleet_id", path.stem))
        fleet = parse_fleet({"name": name, "robots": row["fleet"]}, where=f"{path}, {name}")
        for item in row["items"]:
            unknown = [g for g in item["gold"] if g not in fleet.names]
            if unknown:
                raise BitMarError(f"{path}, {item.get('id')}: gold {unknown[0]!r} is not in the fleet")
            tasks.append(RobotTask(id=str(item["id"]), task=item["task"], gold=tuple(item["gold"]), fleet=fleet, group=name, reasoning=item.get("why", "")))
    return tasks


def read_families(path: Path) -> list[Family]:
    """Families: `{id, task, gold, same: [...], near: [{task, gold}]}`."""
    return [
        Family(id=row["id"], task=row["task"], gold=tuple(row["gold"]), same=tuple(row["same"]), near=tuple((n["task"], tuple(n["gold"])) for n in row["near"]))
        for row in rows(path)
    ]


def read_photo_tasks(path: Path) -> list[PhotoTask]:
    """Photo tasks: `{id, task, by_place: {place: [robots]}}`; places without an answer are left out."""
    return [PhotoTask(id=row["id"], task=row["task"], by_place={k: tuple(v) for k, v in row["by_place"].items() if v}) for row in rows(path)]


def held_out(group: str, share: float, salt: str = "bitmar") -> bool:
    """Whether a group is kept back: decided by its name alone, so that it stays so when data is added."""
    digest = hashlib.sha256(f"{salt}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything in a data folder, by kind."""

    tasks: list[RobotTask]
    fleets: list[RobotTask]
    families: list[Family]
    photos: list[PhotoTask]


def read_corpus(folder: Path) -> Corpus:
    """Read every file of a data folder; the kind follows from the name (`*_families`, `*_fleets`, `*_photo_tasks`, else tasks)."""
    tasks: list[RobotTask] = []
    fleets: list[RobotTask] = []
    families: list[Family] = []
    photos: list[PhotoTask] = []
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem.endswith("_families"):
            families += read_families(path)
        elif path.stem.endswith("_fleets"):
            fleets += read_fleets(path)
        elif path.stem.endswith("_photo_tasks"):
            photos += read_photo_tasks(path)
        else:
            tasks += read_tasks(path)
    if not tasks:
        raise MissingError(f"no tasks in {folder}; name a folder with JSON-lines files of tasks")
    return Corpus(tasks=tasks, fleets=fleets, families=families, photos=photos)
