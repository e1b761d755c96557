"""How close a test file comes to the training texts: the highest TF-IDF cosine of any of its texts with one in assets/data.

    python tools/overlap.py tasks.jsonl fleets.jsonl corrections.jsonl

Counts every text under `task`, `paraphrases` and `same`, however deep. Needs scikit-learn (`pip install -e ".[dev]"`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def texts(value: object, key: str = "") -> Iterator[str]:
    """Task texts of a JSON value."""
    if isinstance(value, str):
        if key in ("task", "paraphrases", "same"):
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)


def read(path: Path) -> list[str]:
    """Task texts of a JSON-lines file."""
    return [text for line in path.read_text(encoding="utf-8").splitlines() if line.strip() for text in texts(json.loads(line))]


def main(names: list[str]) -> int:
    """Print the closest pairs, closest first."""
    if not names:
        print(__doc__)
        return 2
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = [text for path in sorted((ROOT / "assets" / "data").glob("*.jsonl")) for text in read(path)]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(known)
    trained = vectors.transform(known)
    found = []
    for name in names:
        tests = read(Path(name))
        cosines = (vectors.transform(tests) @ trained.T).tocsr()
        for row, test in enumerate(tests):
            line = cosines[row].toarray()[0]
            found.append((float(line.max()), Path(name).name, test, known[int(line.argmax())]))
    for cosine, name, test, near in sorted(found, reverse=True)[:10]:
        print(f"{cosine:.2f}  {name}: {test[:90]!r} ~ {near[:90]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
