"""A scripted session for the full-screen program, the same engine in a thread, and canned states: what tests feed the real application."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bitmar_cli.render import cells  # noqa: F401 - layouts are measured with it
from bitmar_cli.tui import protocol as p
from bitmar_cli.tui.worker import serve
from bitmar_core import events as ev
from bitmar_core import paths
from bitmar_core.errors import ImageError, MissingError
from bitmar_core.memory.store import Episode, MemoryStore
from bitmar_core.robots import load_fleet

WIDTH, SLOTS, MODEL, SIDE = 128, 32, "b" * 64, 7
WORDS = {"hull": "Underwater Robot", "pool": "Underwater Robot", "stairs": "Humanoid", "roof": "Drone"}
TEXTS = {
    "thinking": "The job is looked at first: {task}",
    "environment_analysis": "What is known of the place is weighed here, with its water, its height and its ground.",
    "robot_evaluation": "{robot}: fits what is asked.\nThe others: lack something that is needed here.",
    "selection_reasoning": "{robot} has what the job needs.",
    "confidence_check": "A second photo would make it surer.",
    "robot_selection": "Send {robot}.",
}


def key_of(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.casefold().encode("utf-8", "replace")).digest()[:4], "big")
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


class ScriptedSession:
    """Answers by rule. Words in the task steer it: `slow`, `crawl`, `explode`, `die`, `hog`."""

    def __init__(self, memory: str = "read", folder: Path | None = None, slots: int = SLOTS) -> None:
        self.fleet = load_fleet()
        self.model_name = "scripted"
        self.config = SimpleNamespace(inference=SimpleNamespace(confidence_floor=0.3, max_task_chars=20_000))
        self.memory = None if memory == "off" else MemoryStore.open(folder or paths.default_memory(), slots=slots, width=WIDTH, model=MODEL)

    def about(self) -> dict:
        return {"temperature": 1.9, "ece": 0.02}

    def set_fleet(self, fleet: Any) -> None:
        self.fleet = fleet

    def encode_episode(self, episode: Episode):
        return key_of(episode.task), key_of(episode.robot)

    def preview(self, image: str, side: int) -> dict:
        from PIL import Image

        if not Path(image).is_file():
            raise ImageError(f"{image}: there is no such file; check the path")
        picture = Image.open(image).convert("RGB")
        digest = hashlib.sha256(Path(image).read_bytes()).hexdigest()
        return {"width": picture.width, "height": picture.height, "digest": digest, "pixels": picture.resize((side, side)).tobytes()}

    def similarities(self, task: str, *, image=None, site=None) -> dict[int, float]:
        self.memory.reload_if_changed()
        return {slot: float(key_of(task) @ self.memory.keys[slot]) for slot, _ in self.memory.episodes()}

    def ask(self, task, *, image=None, site=None, reasoning=True, seed=None, cancel=None, masked=None):
        if "refuse" in task:
            raise MissingError("the scripted engine refuses this")
        if image is not None and not Path(image).is_file():
            raise ImageError(f"{image}: there is no such file; check the path")
        return self._events(task, image, site, reasoning, seed, cancel, masked)

    def _events(self, task, image, site, reasoning, seed, cancel, masked):
        names = self.fleet.names
        yield ev.Started(task=task, site=site, image=image, fleet=names, model=self.model_name, truncated=False)
        if "explode" in task:
            raise RuntimeError("the script \x1b[31mbroke")
        if "die" in task:
            os._exit(3)
        robot = next((name for word, name in WORDS.items() if word in task.casefold() and name in names), names[0])
        recalled = []
        if self.memory is not None:
            self.memory.reload_if_changed()
            for slot, story in self.memory.episodes():
                near = float(key_of(task) @ self.memory.keys[slot])
                if near > 0.9 and slot != masked:
                    recalled.append(ev.Recalled(slot=slot, similarity=min(near, 1.0), weight=0.8, robot=story.robot, task=story.task))
                    robot = story.robot
        yield ev.MemoryRead(slots=tuple(recalled))
        top = [0.3, 0.45, 0.55, 0.7, 0.25 if "unsure" in task else 0.8]
        if image is None:
            top = [value * 0.9 for value in top]

        def spread(best: float) -> dict[str, float]:
            rest = [1.0 / (2 + i) for i in range(len(names) - 1)]
            others = iter(value / sum(rest) * (1 - best) for value in rest)
            return {name: best if name == robot else next(others) for name in names}

        steps = []
        for index, name in enumerate(ev.STEP_NAMES):
            looked = ()
            if image is not None:
                grid = np.array([[1 / (1 + (x - index) ** 2 + (y - 3) ** 2) for x in range(SIDE)] for y in range(SIDE)])
                looked = tuple((grid / grid.sum()).ravel().tolist())
            steps.append(ev.Step(index=index + 1, name=name, probabilities=spread(top[index]), value=0.5 + 0.08 * index, attention=looked))
        yield from steps
        final = steps[-1].probabilities
        chosen = max(final, key=final.get)
        unsure = final[chosen] < 0.3
        yield ev.Decision(robot=chosen, confidence=final[chosen], abstained=unsure, probabilities=final, suited=(chosen,))
        told, reason, tokens = {}, "finished", 0
        pause = 0.05 if "slow" in task else 0.3 if "crawl" in task else 0.0
        for section in ev.SECTIONS if reasoning else ():
            text = TEXTS[section].format(task=task[:200], robot=chosen) + (f" (seed {seed})" if seed is not None else "")
            said = ""
            for piece in (text[i : i + 6] for i in range(0, len(text), 6)):
                if cancel is not None and cancel.is_set():
                    reason = "cancelled"
                    break
                until = time.perf_counter() + pause
                while "hog" in task and time.perf_counter() < until:
                    sum(range(2000))
                if pause and "hog" not in task:
                    time.sleep(pause)
                said += piece
                tokens += 1
                yield ev.Token(section=section, text=piece)
            told[section] = said
            if reason == "cancelled":
                break
            yield ev.Section(name=section, text=said)
        quality = {"coherence": 0.71, "relevance": 0.82, "completeness": 0.9, "accuracy": 0.64} if reasoning and reason == "finished" else {}
        if quality:
            yield ev.Quality(**quality)
        answer = {
            "task": task, "image": image, "robot": chosen, "confidence": final[chosen], "abstained": unsure, "probabilities": final, "suited": [chosen],
            "reasoning": told, "quality": quality or dict.fromkeys(("coherence", "relevance", "completeness", "accuracy")),
            "memory": [{"slot": r.slot, "similarity": r.similarity, "weight": r.weight, "robot": r.robot, "task": r.task} for r in recalled],
            "steps": [{"name": s.name, "probabilities": s.probabilities, "value": s.value} for s in steps], "model": self.model_name, "elapsed_ms": 1.5,
        }  # fmt: skip
        yield ev.Done(reason=reason, answer=answer, tokens=tokens, elapsed_ms=1.5)

    def answer(self, task, **options):
        return list(self.ask(task, **options))[-1].answer

    def without_slot(self, task, slot, *, image=None, site=None):
        return list(self.ask(task, image=image, site=site, reasoning=False, masked=slot))[-1].answer

    def teach(self, task, robot, *, because="", image=None, site=None):
        return self.memory.write(key_of(task), key_of(robot), episode(task, self.fleet.names[self.fleet.find(robot)], because=because, site=site))


def episode(task: str, robot: str, **more: Any) -> Episode:
    return Episode(task=task, robot=robot, made="2026-01-31T08:00:00Z", **more)


def open_scripted(*, model=None, fleet=None, memory="read", store=None) -> ScriptedSession:
    if model == "missing":
        raise MissingError("no model missing; `bitmar model list` shows those that are there")
    return ScriptedSession(memory)


class ThreadEngine:
    """The worker's loop in a thread of this process: what the application needs of an engine."""

    def __init__(self, session: Any = None, *, opener=None) -> None:
        self.opener = opener or (lambda **options: session or open_scripted(**options))
        self.sent: list[Any] = []
        self._in: deque = deque()
        self._out: queue.SimpleQueue = queue.SimpleQueue()
        self.pid = None
        self.starts = 0

    def start(self) -> None:
        self.stop()
        self.starts += 1
        out = self._out = queue.SimpleQueue()
        out.put(p.Opening())
        threading.Thread(target=serve, args=(out.get, self._in.append, self.opener), daemon=True).start()

    def send(self, message: Any) -> None:
        self.sent.append(message)
        self._out.put(message)

    def poll(self, limit: int = 2000) -> list[Any]:
        return [self._in.popleft() for _ in range(min(limit, len(self._in)))]

    def stop(self) -> None:
        self._out.put(None)


class SilentEngine:
    """Nobody at the other end: the test says what comes."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.coming: deque = deque()
        self.starts = 0
        self.pid = None

    def start(self) -> None:
        self.starts += 1

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def poll(self, limit: int = 2000) -> list[Any]:
        return [self.coming.popleft() for _ in range(min(limit, len(self.coming)))]

    def stop(self) -> None:
        pass


READY = p.Ready(
    model="scripted", fleet_name="default", fleet=load_fleet().names, memory=True, limit=20_000, floor=0.3, temperature=1.9, ece=0.02,
)  # fmt: skip


def memory_of(count: int, slots: int | None = None) -> p.MemoryNow:
    """A memory with `count` slots in use."""
    rng = np.random.default_rng(0)
    fleet = load_fleet().names
    rows = tuple(
        p.SlotRow(
            slot=i, task=f"Task number {i} of a long list", site=None, image=None, robot=fleet[i % len(fleet)], because="", confidence=0.8, source="taught",
            made=f"2026-01-{1 + i % 28:02}T08:00:00Z", used=None, uses=i % 7, pinned=i % 11 == 0,
        )
        for i in range(count)
    )  # fmt: skip
    values = rng.normal(size=(count, WIDTH)).astype("<f4")
    return p.MemoryNow(
        slots=slots or count, width=WIDTH, rows=rows, values=values.tobytes(), scale=float(abs(values).max(initial=0.0)), undo=(), folder="memory",
        next_slot=count if (slots or count) > count else 1, replaces=(slots or count) <= count,
    )  # fmt: skip
