"""What one correction changes: it must hold for the task and its rewordings, and leave near neighbours alone.

Each correction is taught into a fresh memory in a temporary folder; a person's own memory is neither read nor written.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_core.data.robot_tasks import held_out, rows
from bitmar_core.errors import BitMarError, MissingError, UsageError
from bitmar_core.evaluation import selection
from bitmar_core.evaluation.asking import Progress, ask, check, gold_of, no_progress, objects
from bitmar_core.memory.store import MemoryStore

AT_ONCE = 25
"""Corrections in the memory together when interference is measured."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One thing taught, and what it should and should not change."""

    task: str
    taught: str
    why: str
    paraphrases: tuple[str, ...]
    neighbors: tuple[tuple[str, tuple[str, ...]], ...]
    """(task, gold) of each neighbour"""

    @property
    def texts(self) -> list[str]:
        """Everything that is asked: the task, its rewordings, its neighbours."""
        return [self.task, *self.paraphrases, *(task for task, _ in self.neighbors)]


@dataclass
class _Count:
    hits: int = 0
    total: int = 0

    def add(self, hit: bool) -> None:
        self.hits += hit
        self.total += 1

    @property
    def share(self) -> float:
        return self.hits / max(1, self.total)


@contextmanager
def fresh_memory(session: Any) -> Iterator[None]:
    """Inside, the session has an empty memory of its own; afterwards it has its former one back.

    Raises:
        UsageError: the session was opened with its memory off.
    """
    before = session.memory
    if before is None:
        raise UsageError('the memory is off; open the session with memory "read" to evaluate it')
    with tempfile.TemporaryDirectory(prefix="bitmar-evaluate-") as folder:
        session.memory = MemoryStore.open(Path(folder) / "memory", slots=before.slots, width=before.width, model=before.model)
        try:
            yield
        finally:
            session.memory = before


def evaluate(session: Any, corrections: Sequence[Correction], progress: Progress = no_progress, *, fillers: Sequence[Correction] = ()) -> dict[str, Any]:
    """Figures of corrections taught alone (`single`) and many at once (`together`).

    Each holds `taught`, `paraphrases` (shares that now give what was taught), `kept` (share of neighbours that are answered as with an
    empty memory), `neighbors_right` (share in gold), and `harmonic`, the harmonic mean of the first three. `together` also holds
    `at_once`: how many were in the memory, which is fewer than 25 where there are fewer corrections and fillers, or fewer slots.

    Args:
        fillers: are taught beside the corrections where those are fewer than 25; nothing is asked about them.
    """
    before = _before(session, corrections)
    total = 2 * len(corrections)
    single = []
    for done, correction in enumerate(corrections, 1):
        single.append(_after(session, [correction], [correction])[0])
        progress(done, total)
    at_once = min(AT_ONCE, len(corrections) + len(fillers), session.memory.slots)
    together: list[list[str | None]] = []
    for start in range(0, len(corrections), at_once):
        group = list(corrections[start : start + at_once])
        # A last, smaller group is filled up, so that every correction is asked among as many.
        others = [*corrections[:start], *fillers][: at_once - len(group)]
        together += _after(session, [*others, *group], group)
        progress(len(corrections) + len(together), total)
    return {
        "corrections": len(corrections),
        "single": _figures(corrections, before, single),
        "together": {"at_once": at_once, **_figures(corrections, before, together)},
    }


def _before(session: Any, corrections: Sequence[Correction]) -> list[list[str | None]]:
    """Choices with an empty memory, for each correction's texts."""
    with fresh_memory(session):
        chosen = iter(ask(session, [{"task": text} for c in corrections for text in c.texts]).robots)
    return [[next(chosen) for _ in c.texts] for c in corrections]


def _after(session: Any, taught: Sequence[Correction], asked: Sequence[Correction]) -> list[list[str | None]]:
    """Choices for the texts of `asked`, once all of `taught` are in a fresh memory."""
    with fresh_memory(session):
        for correction in taught:
            session.teach(correction.task, correction.taught, because=correction.why)
        chosen = iter(ask(session, [{"task": text} for c in asked for text in c.texts]).robots)
    return [[next(chosen) for _ in c.texts] for c in asked]


def _figures(corrections: Sequence[Correction], before: Sequence[Sequence[str | None]], after: Sequence[Sequence[str | None]]) -> dict[str, Any]:
    taught, paraphrases, kept, right = _Count(), _Count(), _Count(), _Count()
    for correction, old, new in zip(corrections, before, after, strict=True):
        same = len(correction.paraphrases) + 1
        taught.add(new[0] == correction.taught)
        for robot in new[1:same]:
            paraphrases.add(robot == correction.taught)
        for (_, gold), was, robot in zip(correction.neighbors, old[same:], new[same:], strict=True):
            kept.add(robot is not None and robot == was)
            right.add(robot in gold)
    shares = [taught.share, paraphrases.share, kept.share]
    return {"taught": shares[0], "paraphrases": shares[1], "kept": shares[2], "neighbors_right": right.share, "harmonic": selection.harmonic(shares)}


def read(path: Path, names: Sequence[str]) -> list[Correction]:
    """Corrections `{task, taught, why?, paraphrases: [...], neighbors: [{task, gold}]}`.

    Raises:
        MissingError, BitMarError: no such file, or an item is refused; names file and item.
    """
    found = []
    for where, row in objects(path, task=str, taught=str, paraphrases=list, neighbors=list):
        gold_of({"gold": [row["taught"]]}, names, where)
        if not all(isinstance(text, str) and text for text in row["paraphrases"]):
            raise BitMarError(f"{where}: every item of `paraphrases` must be text")
        neighbors = []
        for number, item in enumerate(row["neighbors"], 1):
            spot = f"{where}, neighbor {number}"
            check(item, spot, task=str, gold=list)
            neighbors.append((item["task"], gold_of(item, names, spot)))
        found.append(
            Correction(task=row["task"], taught=row["taught"], why=str(row.get("why", "")), paraphrases=tuple(row["paraphrases"]), neighbors=tuple(neighbors))
        )
    return found


def from_families(folder: Path, names: Sequence[str], holdout: float) -> tuple[list[Correction], list[Correction]]:
    """Corrections from the families of a data folder: those that training does not see, and the others, for fillers.

    A family that names no `taught` robot gets one that is not acceptable, chosen by its id, so that there is something to correct.

    Raises:
        MissingError: none is held out at this share.
    """
    unseen: list[Correction] = []
    seen: list[Correction] = []
    for path in sorted(folder.glob("*_families.jsonl")):
        for row in rows(path):
            wrong = [name for name in names if name not in row["gold"]]
            drawn = int.from_bytes(hashlib.sha256(row["id"].encode()).digest()[:8], "big") % len(wrong)
            neighbors = tuple((n["task"], tuple(n["gold"])) for n in row["near"])
            correction = Correction(
                task=row["task"], taught=row.get("taught") or wrong[drawn], why=row.get("why", ""), paraphrases=tuple(row["same"]), neighbors=neighbors
            )
            (unseen if held_out(row["id"], holdout) else seen).append(correction)
    if not unseen:
        raise MissingError(f"no shipped family is held out at training.holdout {holdout}; name a file with --data")
    return unseen, seen
