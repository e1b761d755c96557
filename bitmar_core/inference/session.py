"""A session: a loaded model, a fleet, a memory. Text and files come in, typed events go out.

    for event in Session.open().ask("Inspect the hull of a ferry at its berth"):
        ...

A request is a function of its input: the same task, photo, fleet, memory and seed give the same answer, and reading the
memory changes nothing. It is written by `teach`, and after an answer only where the session was opened with memory "write".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from bitmar_core import events, paths
from bitmar_core.checkpoint.folder import VISION, find_model, load_checkpoint, model_digest
from bitmar_core.data.collate import card_tensors, pad
from bitmar_core.data.robot_tasks import compose
from bitmar_core.errors import BitMarError, CheckpointError, UsageError
from bitmar_core.inference.engine import Engine, Written
from bitmar_core.memory.episodic import Candidates
from bitmar_core.memory.store import MemoryStore
from bitmar_core.model.bitmar import BitMarOutput, recall
from bitmar_core.model.reasoning import QUALITIES
from bitmar_core.robots import Fleet, load_fleet
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer

if TYPE_CHECKING:
    import threading

    from bitmar_core.config import BitMarConfig
    from bitmar_core.memory.episode import Episode

MemoryMode = Literal["off", "read", "write"]


@dataclass
class Request:
    """A checked request."""

    task: str
    site: str | None
    image: str | None
    ids: list[int]
    truncated: bool
    features: Tensor | None
    """(P, W)"""


@dataclass
class Recalled:
    """The slots that each sample of a batch looked at."""

    candidates: Candidates
    slots: list[list[int]]


class Session:
    """See the module's first lines. Not for use by several threads at once."""

    def __init__(self, model_folder: Path, fleet: Fleet | None, memory: MemoryMode, memory_path: Path | None) -> None:
        model, config, manifest = load_checkpoint(model_folder)
        self.config: BitMarConfig = config
        self.model_name: str = str(manifest.get("name", model_folder.name))
        self.folder = model_folder
        self._measured: dict[str, Any] = manifest.get("measured", {})
        self.reader = ReaderTokenizer(model_folder / config.text.tokenizer, config.text.max_tokens)
        self.writer = WriterTokenizer(model_folder / config.decoder.tokenizer)
        if self.reader.size > config.text.vocab_size or self.writer.size > config.decoder.vocab_size:
            raise CheckpointError(f"{model_folder}: a tokenizer has more tokens than its embedding has rows; install the checkpoint again")
        self.engine = Engine(model, self.writer)
        self._vision: Any = None
        self._stories: dict[tuple[str, str | None], Tensor] = {}
        self.set_fleet(fleet or load_fleet())
        self._mode = "write" if memory == "read" and config.memory.write else memory
        self.memory: MemoryStore | None = None
        if memory != "off":
            place = memory_path or paths.default_memory()
            self.memory = MemoryStore.open(
                place, slots=config.memory.slots, width=config.memory.width, model=model_digest(manifest), encode=self.encode_episode
            )

    @classmethod
    def open(cls, model: str | Path | None = None, fleet: Fleet | None = None, memory: MemoryMode = "read", memory_path: Path | None = None) -> Session:
        """Load a checkpoint (None: the shipped one) and open the memory.

        Raises:
            ModelMissingError, CheckpointError, MemoryStoreError, TryAgainError: one line with cause and mend.
        """
        if memory not in ("off", "read", "write"):
            raise UsageError(f"memory is {memory!r}; it must be off, read or write")
        return cls(find_model(model), fleet, memory, memory_path)

    def set_fleet(self, fleet: Fleet) -> None:
        """Choose from another fleet from now on."""
        self.fleet = fleet
        self._fleet_states = self.engine.fleet(*card_tensors(fleet, self.reader))

    def about(self) -> dict[str, Any]:
        """What a front end shows of the model beside its answers.

        "temperature": what the probabilities are calibrated with, None where they are raw; "ece": the calibration error that training
        measured on held-out tasks, None where it is not recorded.
        """
        calibration = self.engine.model.calibration
        temperature = float(calibration) if calibration.numel() == 1 and float(calibration) != 1.0 else None
        return {"temperature": temperature, "ece": self._measured.get("held_out_tasks", {}).get("ece")}

    def preview(self, image: str | Path, side: int = 112) -> dict[str, Any]:
        """A photo as the model sees it, cut to its square: "width" and "height" of the file's picture, "digest" (sha256 of the file) and
        "pixels", RGB bytes, side * side * 3.

        Raises:
            ImageError, MissingError: one line with cause and mend.
        """
        from bitmar_core.data.images import image_digest, load_image, to_square

        picture = load_image(image)
        return {"width": picture.width, "height": picture.height, "digest": image_digest(image), "pixels": to_square(picture, side).tobytes()}

    # --- asking ---

    def ask(
        self, task: str, *, image: str | Path | None = None, site: str | None = None, reasoning: bool = True, seed: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[events.Event]:  # fmt: skip
        """Answer a request as events (see `bitmar_core.events`). What is wrong with the request is raised here, before the first event.

        Raises:
            UsageError: an empty or over-long task. ImageError, MissingError: the image.
        """
        return self._events(self._request(task, image, site), reasoning, seed, cancel, without=())

    def answer(self, task: str, **options: Any) -> dict:
        """Like `ask`, drained: the object that `bitmar ask --json` prints."""
        return _last(self.ask(task, **options))

    def without_slot(self, task: str, slot: int, *, image: str | Path | None = None, site: str | None = None) -> dict:
        """The answer that the task gets while one memory slot is masked: a rerun, without reasoning text."""
        return _last(self._events(self._request(task, image, site), False, None, None, without=(slot,)))

    def answer_many(self, requests: Iterable[dict], *, reasoning: bool = False, batch_size: int = 32) -> Iterator[dict]:
        """Answers in order, in constant memory. A request that is refused gives `{"id"?, "error"}` in its place."""
        if reasoning:
            for row in requests:
                yield self._one(row)
            return
        batch: list[tuple[dict, Request | BitMarError]] = []
        for row in requests:
            try:
                batch.append((row, self._request(row.get("task"), row.get("image"), row.get("site"))))
            except BitMarError as error:
                batch.append((row, error))
            if len(batch) >= batch_size:
                yield from self._batch(batch)
                batch = []
        if batch:
            yield from self._batch(batch)

    def _one(self, row: dict) -> dict:
        head = {"id": row["id"]} if "id" in row else {}
        try:
            return head | self.answer(str(row["task"]) if isinstance(row.get("task"), str) else "", image=row.get("image"), site=row.get("site"))
        except BitMarError as error:
            return head | {"error": str(error)}

    def _batch(self, batch: list[tuple[dict, Request | BitMarError]]) -> Iterator[dict]:
        began = time.perf_counter()
        good = [r for _, r in batch if isinstance(r, Request)]
        # Of like length together: padding is work.
        order = sorted(range(len(good)), key=lambda i: len(good[i].ids))
        answers: dict[int, dict] = {}
        half = max(1, -(-len(order) // 2))
        for part in (order[:half], order[half:]):
            if part:
                output, recalled = self._decide([good[i] for i in part], without=())
                for at, i in enumerate(part):
                    answers[i] = self._answer(good[i], output, recalled, at)
        elapsed = (time.perf_counter() - began) * 1000 / max(1, len(batch))
        count = 0
        for row, request in batch:
            head = {"id": row["id"]} if "id" in row else {}
            if isinstance(request, Request):
                answers[count]["elapsed_ms"] = round(elapsed, 2)
                if self._mode == "write":
                    self._observe(request, answers[count])
                yield head | answers[count]
                count += 1
            else:
                yield head | {"error": str(request)}

    def _request(self, task: Any, image: str | Path | None, site: str | None) -> Request:
        if not isinstance(task, str) or not task.strip():
            raise UsageError('the task is empty; say what is to be done, as in `bitmar ask "Inspect the roof"`')
        if site is not None and not isinstance(site, str):
            raise UsageError("the site must be text")
        limit = self.config.inference.max_task_chars
        if len(task) + len(site or "") > limit:
            raise UsageError(f"the task is {len(task) + len(site or ''):,} characters long; {limit:,} is the limit: shorten it")
        # A lone surrogate is no character; tokenizers refuse it.
        clean = compose(task, site or None).encode("utf-8", "replace").decode("utf-8")
        rows, cut = self.reader.encode([clean])
        return Request(
            task=task, site=site or None, image=None if image is None else str(image), ids=rows[0], truncated=cut[0],
            features=None if image is None else self.look(image),
        )  # fmt: skip

    @torch.inference_mode()
    def look(self, image: str | Path) -> Tensor:
        """Vision features (P, W) of a photo.

        Raises:
            ImageError, MissingError: one line with cause and mend.
        """
        from bitmar_core.data.images import load_image, to_pixels

        picture = load_image(image)
        encoder = self._vision_encoder()
        pixels = to_pixels(picture, size=encoder.image_size, mean=encoder.mean, std=encoder.std)
        return encoder(pixels.unsqueeze(0)).patches[0]

    def _vision_encoder(self) -> Any:
        if self._vision is None:
            from bitmar_core.model.vision_encoder import DinoV2VisionEncoder, load_vision_file

            vision = self.config.vision
            if vision.encoder == "dinov2":
                self._vision = DinoV2VisionEncoder(vision.name, frozen=vision.freeze, image_size=vision.image_size).eval()
            else:
                self._vision = load_vision_file(self.folder / VISION)
            given = (self._vision.image_size, self._vision.num_patches, self._vision.width)
            if given != (vision.image_size, vision.patches, vision.width):
                raise CheckpointError(
                    f"the vision encoder's image size, patches and width are {given}, the model reads {(vision.image_size, vision.patches, vision.width)};"
                    " set vision.name, vision.image_size, vision.patches and vision.width to fit"
                )
        return self._vision

    def _decide(self, requests: list[Request], without: tuple[int, ...]) -> tuple[BitMarOutput, Recalled | None]:
        ids, mask = pad([r.ids for r in requests])
        features = has_image = None
        shapes = [r.features for r in requests if r.features is not None]
        if shapes:
            blank = torch.zeros_like(shapes[0])
            features = torch.stack([blank if r.features is None else r.features for r in requests])
            has_image = torch.tensor([r.features is not None for r in requests])
        reading, keys = self.engine.read(ids, mask, features, has_image)
        recalled = self._candidates(keys, without)
        return self.engine.decide(reading, self._fleet_states, None if recalled is None else recalled.candidates), recalled

    # --- memory ---

    def _candidates(self, keys: Tensor, without: tuple[int, ...]) -> Recalled | None:
        """The nearest slots of each request. keys (B, E)."""
        if self.memory is None:
            return None
        self.memory.reload_if_changed()
        occupied = [i for i in range(len(self.memory.occupied)) if self.memory.occupied[i] and i not in without]
        if not occupied:
            return None
        table = torch.from_numpy(self.memory.keys[occupied].copy())
        nearest = (keys @ table.T).topk(min(self.config.memory.candidates, len(occupied)), dim=-1).indices.tolist()
        slots = [[occupied[i] for i in row] for row in nearest]
        used = sorted({slot for row in slots for slot in row})
        stories = {slot: self._story(self.memory.episode(slot)) for slot in used}  # type: ignore[arg-type]
        longest = max(len(s) for s in stories.values())
        width = next(iter(stories.values())).shape[1]
        tokens, token_mask = torch.zeros(len(used), longest, width), torch.zeros(len(used), longest, dtype=torch.long)
        robots = torch.zeros(len(used), len(self.fleet.names))
        names = [name.casefold() for name in self.fleet.names]
        for row, slot in enumerate(used):
            tokens[row, : len(stories[slot])] = stories[slot]
            token_mask[row, : len(stories[slot])] = 1
            name = self.memory.episode(slot).robot.casefold()  # type: ignore[union-attr]
            if name in names:
                robots[row, names.index(name)] = 1.0
        pick = torch.tensor([[used.index(slot) for slot in row] for row in slots])
        values = torch.from_numpy(self.memory.values[used].copy())
        own = torch.from_numpy(self.memory.keys[used].copy())
        candidates = Candidates(
            keys=own[pick], values=values[pick], tokens=tokens[pick], token_mask=token_mask[pick], robots=robots[pick],
            present=torch.ones_like(pick, dtype=torch.bool),
        )  # fmt: skip
        return Recalled(candidates=candidates, slots=slots)

    def _story(self, episode: Episode) -> Tensor:
        """Encoder states (L, D) of an episode's text; kept, since many requests read the same stories."""
        key = (episode.task, episode.site)
        if key not in self._stories:
            if len(self._stories) >= 4096:
                self._stories.clear()
            ids, mask = pad(self.reader.encode([compose(*key)])[0])
            self._stories[key] = self.engine.encode(ids, mask)[0]
        return self._stories[key]

    def similarities(self, task: str, *, image: str | Path | None = None, site: str | None = None) -> dict[int, float]:
        """Cosine of the request's key with every occupied slot's."""
        if self.memory is None:
            return {}
        self.memory.reload_if_changed()
        request = self._request(task, image, site)
        ids, mask = pad([request.ids])
        _, keys = self.engine.read(ids, mask, None if request.features is None else request.features.unsqueeze(0), None)
        scores = torch.from_numpy(self.memory.keys.copy()) @ keys[0]
        return {i: float(scores[i]) for i in range(len(scores)) if self.memory.occupied[i]}

    def teach(self, task: str, robot: str, *, because: str = "", image: str | Path | None = None, site: str | None = None) -> int:
        """Remember that this task is for this robot; returns the slot. It holds for rewordings from the next request on.

        Raises:
            FleetError: no such robot in the fleet. UsageError: the session was opened with memory off.
        """
        if self.memory is None:
            raise UsageError("the memory is off; open it with `--memory read` to teach")
        index = self.fleet.find(robot)
        request = self._request(task, image, site)
        output, _ = self._decide([request], without=())
        return self._write(request, output, index, because=because, source="taught")

    def _observe(self, request: Request, answer: dict) -> None:
        output, _ = self._decide([request], without=())
        self._write(request, output, self.fleet.find(answer["robot"]), because="", source="observed")

    def _write(self, request: Request, output: BitMarOutput, robot: int, *, because: str, source: str) -> int:
        from datetime import UTC, datetime

        from bitmar_core.memory.episode import Episode

        assert self.memory is not None
        digest = None
        if request.image is not None:
            from bitmar_core.data.images import image_digest

            digest = image_digest(request.image)
        key, value = self._vectors(output, robot)
        episode = Episode(
            task=request.task, site=request.site, image=digest, robot=self.fleet.names[robot], because=because,
            confidence=float(output.probabilities[0, robot]), source=source, made=datetime.now(UTC).isoformat(timespec="seconds"), used=None, uses=0, pinned=False,
        )  # fmt: skip
        return self.memory.write(key, value, episode)

    @torch.inference_mode()
    def _vectors(self, output: BitMarOutput, robot: int) -> tuple[Any, Any]:
        assert output.memory_key is not None and output.card_keys is not None
        value = self.engine.model.memory.make_value(output.reading.context[0], output.card_keys[0, robot])
        return output.memory_key[0].numpy(), value.numpy()

    def encode_episode(self, episode: Episode) -> tuple[Any, Any]:
        """Key and value of a story as this model sees it; a photo is left out, since only its digest is kept.

        Raises:
            UsageError: its text is refused.
        """
        request = self._request(episode.task, None, episode.site)
        reading, _ = self.engine.read(*pad([request.ids]), None, None)
        output = self.engine.decide(reading, self._fleet_states, None)
        names = [name.casefold() for name in self.fleet.names]
        robot = names.index(episode.robot.casefold()) if episode.robot.casefold() in names else int(output.probabilities[0].argmax())
        return self._vectors(output, robot)

    # --- events and answers ---

    def _events(self, request: Request, reasoning: bool, seed: int | None, cancel: threading.Event | None, without: tuple[int, ...]) -> Iterator[events.Event]:
        began = time.perf_counter()
        yield events.Started(
            task=request.task, site=request.site, image=request.image, fleet=self.fleet.names, model=self.model_name, truncated=request.truncated
        )
        output, recalled = self._decide([request], without)
        answer = self._answer(request, output, recalled, 0)
        yield events.MemoryRead(slots=self._recalled(output, recalled, 0))
        attention = output.trace.patch_attention[0] if request.features is not None else None
        for index, step in enumerate(answer["steps"]):
            looked = () if attention is None else tuple(attention[index].tolist())
            yield events.Step(index=index + 1, name=step["name"], probabilities=step["probabilities"], value=step["value"], attention=looked)
        yield events.Decision(
            robot=answer["robot"],
            confidence=answer["confidence"],
            abstained=answer["abstained"],
            probabilities=answer["probabilities"],
            suited=tuple(answer["suited"]),
        )
        tokens, reason = 0, "finished"
        if reasoning:
            written = Written()
            for event in self._write_chain(output, self.fleet.find(answer["robot"]), written, seed, cancel):
                if isinstance(event, events.Section):
                    answer["reasoning"][event.name] = event.text
                yield event
            tokens, reason = len(written.ids), written.reason
            if reason == "finished":
                scores = dict(zip(QUALITIES, self.engine.judge(output, written).tolist(), strict=True))
                answer["quality"] = {name: round(score, 4) for name, score in scores.items()}
                yield events.Quality(**scores)
        if self._mode == "write" and self.memory is not None and reason != "cancelled" and not without:
            self._observe(request, answer)
        answer["elapsed_ms"] = round((time.perf_counter() - began) * 1000, 2)
        yield events.Done(reason=reason, answer=answer, tokens=tokens, elapsed_ms=answer["elapsed_ms"])  # type: ignore[arg-type]

    def _write_chain(self, output: BitMarOutput, chosen: int, written: Written, seed: int | None, cancel: threading.Event | None) -> Iterator[events.Event]:
        """Token and Section events. Text comes in pieces that can be appended: bytes of a character wait for the whole of it."""
        section_ids: list[int] = []
        shown = ""
        for piece in self.engine.write(output, chosen, written, seed=seed, cancel=cancel):
            name = events.SECTIONS[piece.section]
            if piece.token in self.writer.sections or piece.token == self.writer.begin:
                section_ids, shown = [], ""
                continue
            if not piece.ends_section:
                section_ids.append(piece.token)
            text = self._section_text(name, section_ids, final=piece.ends_section)
            if piece.ends_section:
                if len(text) > len(shown):
                    yield events.Token(section=name, text=text[len(shown) :])
                yield events.Section(name=name, text=text)
            elif text.startswith(shown) and len(text) > len(shown) and not text.endswith("\ufffd"):
                yield events.Token(section=name, text=text[len(shown) :])
                shown = text

    def _section_text(self, name: str, ids: list[int], *, final: bool) -> str:
        """A section as it is shown. The evaluation has a line for each robot; the selection opens with the choice."""
        names = self.fleet.names
        if name == "robot_evaluation":
            lines: list[list[int]] = [[]]
            for token in ids:
                if token == self.writer.line:
                    lines.append([])
                else:
                    lines[-1].append(token)
            shown = []
            for line in lines:
                if line:
                    head = names[self.writer.robots.index(line[0])]
                    shown.append(f"{head}: {self.writer.decode(line[1:], names)}")
            return "\n".join(shown)
        if name == "robot_selection" and ids:
            return self.writer.decode(ids[1:], names)
        return self.writer.decode(ids, names)

    def _recalled(self, output: BitMarOutput, recalled: Recalled | None, row: int) -> tuple[events.Recalled, ...]:
        if recalled is None or output.memory is None or self.memory is None:
            return ()
        found = []
        for column, slot in enumerate(recalled.slots[row]):
            weight = float(output.memory.weights[row, column])
            if weight > 0:
                episode = self.memory.episode(slot)
                assert episode is not None
                found.append(events.Recalled(
                    slot=slot, similarity=float(output.memory.similarity[row, column]), weight=weight, robot=episode.robot, task=episode.task,
                    source=episode.source, because=episode.because,
                ))  # fmt: skip
        return tuple(sorted(found, key=lambda r: -r.weight))

    def _answer(self, request: Request, output: BitMarOutput, recalled: Recalled | None, row: int) -> dict:
        names = self.fleet.names
        probabilities = output.probabilities[row]
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        steps = self.engine.model.step_probabilities(output)[row]  # (S, R)
        if recalled is not None and output.memory is not None:
            steps = torch.stack([recall(s.unsqueeze(0), *_row(output, recalled, row))[0] for s in steps])
        suited = torch.sigmoid(output.suited_logits[row])
        fit = [i for i in suited.argsort(descending=True).tolist() if float(suited[i]) > 0.5]
        values = torch.sigmoid(output.trace.values[row]).tolist()
        used = self._recalled(output, recalled, row)
        return {
            "task": request.task,
            "image": request.image,
            "robot": names[best],
            "confidence": round(confidence, 4),
            "abstained": confidence < self.config.inference.confidence_floor,
            "probabilities": _rounded(names, probabilities),
            "suited": [names[i] for i in fit],
            "reasoning": {},
            "quality": dict.fromkeys(QUALITIES),
            "memory": [{"slot": r.slot, "similarity": round(r.similarity, 4), "weight": round(r.weight, 4), "robot": r.robot, "task": r.task} for r in used],
            "steps": [{"name": name, "probabilities": _rounded(names, steps[i]), "value": round(values[i], 4)} for i, name in enumerate(events.STEP_NAMES)],
            "model": self.model_name,
            "elapsed_ms": 0.0,
        }


def _row(output: BitMarOutput, recalled: Recalled, row: int) -> tuple[Any, Candidates]:
    """Memory reading and candidates of one sample, as a batch of one."""
    from bitmar_core.memory.episodic import MemoryReading

    memory, all_of = output.memory, recalled.candidates
    assert memory is not None
    one = slice(row, row + 1)
    reading = MemoryReading(context=memory.context[one], weights=memory.weights[one], similarity=memory.similarity[one], scope=memory.scope[one])
    candidates = Candidates(
        keys=all_of.keys[one],
        values=all_of.values[one],
        tokens=all_of.tokens[one],
        token_mask=all_of.token_mask[one],
        robots=all_of.robots[one],
        present=all_of.present[one],
    )
    return reading, candidates


def _rounded(names: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values.tolist(), strict=True)}


def _last(stream: Iterator[events.Event]) -> dict:
    answer: dict = {}
    for event in stream:
        if isinstance(event, events.Done):
            answer = event.answer
    return answer


def load_model(model: str | Path | None = None, **options: Any) -> Session:
    """Open a session on a checkpoint: `load_model().answer("Inspect the roof")`. Options are those of `Session.open`."""
    return Session.open(model, **options)
