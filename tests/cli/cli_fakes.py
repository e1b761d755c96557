"""A session without a model: it yields the real events, from rules that a test can foresee, and keeps a real memory store."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bitmar_core import events as ev
from bitmar_core import paths
from bitmar_core.errors import ImageError
from bitmar_core.memory.store import Episode, MemoryStore
from bitmar_core.robots import Fleet, load_fleet

WIDTH, SLOTS, MODEL = 16, 4, "a" * 64
WORDS = {"underwater": "Underwater Robot", "pool": "Underwater Robot", "stairs": "Humanoid", "roof": "Drone"}


def key_of(task: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(task.casefold().encode()).digest()[:4], "big")
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


class FakeSession:
    """What the commands may rely on (see the contract in session.py)."""

    def __init__(self, fleet: Fleet | None = None, memory: str = "read", folder: Path | None = None) -> None:
        self.fleet = fleet or load_fleet()
        self.model_name = "fake-model"
        self.config = SimpleNamespace(inference=SimpleNamespace(confidence_floor=0.3))
        self.memory = None if memory == "off" else MemoryStore.open(folder or paths.default_memory(), slots=SLOTS, width=WIDTH, model=MODEL)
        self.asked: list[dict] = []

    def set_fleet(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def encode_episode(self, episode: Episode):
        return key_of(episode.task), key_of(episode.robot)

    def _recalled(self, task: str, masked: int | None) -> list[ev.Recalled]:
        if self.memory is None:
            return []
        self.memory.reload_if_changed()
        found = []
        for slot, story in self.memory.episodes():
            similarity = float(key_of(task) @ self.memory.keys[slot])
            if similarity > 0.9 and slot != masked:
                found.append(ev.Recalled(slot=slot, similarity=similarity, weight=0.8, robot=story.robot, task=story.task, because=story.because))
        return found

    def _choose(self, task: str, masked: int | None = None):
        names = self.fleet.names
        recalled = self._recalled(task, masked)
        unsure = "?!" in task
        robot = next((name for word, name in WORDS.items() if word in task.casefold() and name in names), names[0])
        if recalled and recalled[0].robot in names:
            robot = recalled[0].robot
        top = 0.25 if unsure else 0.75
        rest = (1 - top) / (len(names) - 1)
        return robot, top, {name: top if name == robot else rest for name in names}, recalled, unsure

    def ask(self, task, *, image=None, site=None, reasoning=True, seed=None, cancel=None):
        return self._events(task, image, site, reasoning, seed, cancel, masked=None)

    def _events(self, task, image, site, reasoning, seed, cancel, masked):
        self.asked.append({"task": task, "image": image, "site": site, "reasoning": reasoning, "seed": seed})
        if "explode" in task:
            raise RuntimeError("the fake \x1b[31mbroke")
        if image is not None and not Path(image).is_file():
            raise ImageError(f"{image}: there is no such file; check the path")
        robot, top, probabilities, recalled, unsure = self._choose(task, masked)
        yield ev.Started(task=task, site=site, image=image, fleet=self.fleet.names, model=self.model_name, truncated=len(task) > 2000)
        yield ev.MemoryRead(slots=tuple(recalled))
        steps = [ev.Step(index=i, name=name, probabilities=probabilities, value=0.1 * i) for i, name in enumerate(ev.STEP_NAMES, 1)]
        yield from steps
        yield ev.Decision(robot=robot, confidence=top, abstained=unsure, probabilities=probabilities, suited=(robot,))
        told, reason, tokens = {}, "finished", 0
        for section in ev.SECTIONS if reasoning else ():
            text = f"On {section}: send {robot}.\nIt fits [bold]{task[:40]}[/bold]."
            said = ""
            for piece in (text[i : i + 7] for i in range(0, len(text), 7)):
                if cancel is not None and cancel.is_set():
                    reason = "cancelled"
                    break
                said += piece
                tokens += 1
                yield ev.Token(section=section, text=piece)
                if "interrupt me" in task and section == "robot_evaluation":
                    import os
                    import signal

                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)
                if "slow" in task:
                    time.sleep(0.02)
            told[section] = said
            if reason == "cancelled":
                break
            yield ev.Section(name=section, text=said)
        quality = dict.fromkeys(("coherence", "relevance", "completeness", "accuracy"), 0.5 if reasoning else None)
        if reasoning and reason == "finished":
            yield ev.Quality(**quality)
        answer = {
            "task": task, "image": image, "robot": robot, "confidence": top, "abstained": unsure, "probabilities": probabilities, "suited": [robot],
            "reasoning": told, "quality": quality,
            "memory": [{"slot": r.slot, "similarity": r.similarity, "weight": r.weight, "robot": r.robot, "task": r.task} for r in recalled],
            "steps": [{"name": s.name, "probabilities": s.probabilities, "value": s.value} for s in steps], "model": self.model_name, "elapsed_ms": 1.5,
        }  # fmt: skip
        yield ev.Done(reason=reason, answer=answer, tokens=tokens, elapsed_ms=1.5)

    def answer(self, task, **kwargs):
        return list(self.ask(task, **kwargs))[-1].answer

    def without_slot(self, task, slot, image=None, site=None):
        return list(self._events(task, image, site, False, None, None, masked=slot))[-1].answer

    def answer_many(self, requests, *, reasoning=False, batch_size=32):
        def batches():
            batch = []
            for request in requests:
                batch.append(request)
                if len(batch) == batch_size:
                    yield batch
                    batch = []
            yield batch

        for batch in batches():
            for request in batch:
                head = {"id": request["id"]} if "id" in request else {}
                try:
                    yield {**head, **self.answer(request["task"], image=request.get("image"), site=request.get("site"), reasoning=reasoning)}
                except ImageError as error:
                    yield {**head, "error": str(error)}

    def teach(self, task, robot_name, *, because="", image=None, site=None):
        name = self.fleet.names[self.fleet.find(robot_name)]
        digest = None if image is None else hashlib.sha256(Path(image).read_bytes()).hexdigest()
        story = Episode(
            task=task,
            site=site,
            image=digest,
            robot=name,
            because=because,
            confidence=1.0,
            source="taught",
            made="2026-01-31T08:00:00Z",
            used=None,
            uses=0,
            pinned=False,
        )
        return self.memory.write(key_of(task), key_of(name), story)


def open_fake(*, model=None, fleet=None, memory="read", store=None) -> FakeSession:
    from bitmar_cli.opening import memory_folder

    return FakeSession(None if fleet is None else load_fleet(fleet), memory, memory_folder(store))


if __name__ == "__main__":  # `python cli_fakes.py ask ...` is bitmar with the fake session, for tests that need a process
    from bitmar_cli import main, opening

    opening.open_session = open_fake
    sys.modules["torch"] = None  # a command that needs torch here is a mistake
    main.main()
