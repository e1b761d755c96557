"""Robots and fleets. A robot is never a row of a fixed table: it is a card, and the card's text is what the model reads."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_core import paths
from bitmar_core.errors import FleetError
from bitmar_core.safe_yaml import read_yaml

NO_ROBOT = "No Robot"
MIN_ROBOTS, MAX_ROBOTS = 2, 64
MAX_NAME, MAX_PHRASE, MAX_PHRASES = 80, 300, 40


@dataclass(frozen=True, kw_only=True)
class RobotCard:
    """What a fleet says of one robot."""

    name: str
    capabilities: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()

    def text(self) -> str:
        """The card as the text encoder reads it."""
        parts = [self.name + "."]
        if self.capabilities:
            parts.append("Can: " + ", ".join(self.capabilities) + ".")
        if self.limitations:
            parts.append("Limits: " + ", ".join(self.limitations) + ".")
        if self.environments:
            parts.append("Places: " + ", ".join(self.environments) + ".")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The robots to choose from, in the order of the file. "No Robot" is a choice where it is listed."""

    name: str
    robots: tuple[RobotCard, ...]

    def __post_init__(self) -> None:
        if not MIN_ROBOTS <= len(self.robots) <= MAX_ROBOTS:
            raise FleetError(f"fleet {self.name!r} lists {len(self.robots)} robots; between {MIN_ROBOTS} and {MAX_ROBOTS} are needed")
        seen: set[str] = set()
        for robot in self.robots:
            key = robot.name.casefold()
            if key in seen:
                raise FleetError(f"fleet {self.name!r} lists the robot {robot.name!r} twice; give each its own name")
            seen.add(key)

    @property
    def names(self) -> tuple[str, ...]:
        """Robot names in order."""
        return tuple(robot.name for robot in self.robots)

    def find(self, name: str) -> int:
        """Index of the robot called `name`, ignoring case.

        Raises:
            FleetError: no such robot; offers the nearest name.
        """
        wanted = " ".join(name.split()).casefold()
        folded = [robot.name.casefold() for robot in self.robots]
        if wanted in folded:
            return folded.index(wanted)
        near = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.5)
        hint = f"; did you mean {self.robots[folded.index(near[0])].name!r}?" if near else ""
        raise FleetError(f"no robot {name!r} in this fleet{hint} (it has: {', '.join(self.names)})")


def _clean(text: Any, *, what: str, where: str, limit: int) -> str:
    if not isinstance(text, str):
        raise FleetError(f"{where}: {what} must be text, not {type(text).__name__}; put it in quotes")
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for c in text if c not in "\n\t"):
        raise FleetError(f"{where}: {what} holds control characters; use printable text")
    text = " ".join(text.split())
    if len(text) > limit:
        raise FleetError(f"{where}: {what} is {len(text)} characters long; {limit} is the limit")
    return text


def parse_fleet(data: Any, *, where: str) -> Fleet:
    """Check the contents of a fleet file.

    Args:
        data: what YAML gave: `{name, robots: [{name, capabilities, limitations, environments}]}`.
        where: what messages call it, usually the path.

    Raises:
        FleetError: names the robot and the field, and says how to mend it.
    """
    if not isinstance(data, dict):
        raise FleetError(f"{where}: a fleet is a mapping with `name:` and `robots:`")
    _refuse_unknown(data, {"name", "robots"}, where)
    robots = data.get("robots")
    if not isinstance(robots, list):
        raise FleetError(f"{where}: `robots:` must be a list of robots, each with a `name:`")
    if not MIN_ROBOTS <= len(robots) <= MAX_ROBOTS:
        raise FleetError(f"{where}: {len(robots)} robots are listed; between {MIN_ROBOTS} and {MAX_ROBOTS} are needed")
    cards = []
    for number, entry in enumerate(robots, 1):
        spot = f"{where}, robot {number}"
        if not isinstance(entry, dict):
            raise FleetError(f"{spot}: must be a mapping with a `name:`")
        _refuse_unknown(entry, {"name", "capabilities", "limitations", "environments"}, spot)
        name = _clean(entry.get("name"), what="name", where=spot, limit=MAX_NAME)
        if not name:
            raise FleetError(f"{spot}: the name is empty; give it one")
        lists = {}
        for field in ("capabilities", "limitations", "environments"):
            value = entry.get(field)
            value = [] if value is None else value
            if isinstance(value, str):
                value = [part for part in value.split(",") if part.strip()]
            if not isinstance(value, list) or len(value) > MAX_PHRASES:
                raise FleetError(f"{spot} ({name}): `{field}` must be a list of at most {MAX_PHRASES} phrases")
            lists[field] = tuple(_clean(v, what=field, where=f"{spot} ({name})", limit=MAX_PHRASE) for v in value)
        cards.append(RobotCard(name=name, **lists))
    title = data.get("name")
    title = Path(where).stem if title is None else _clean(title, what="name", where=where, limit=MAX_NAME)
    return Fleet(name=title, robots=tuple(cards))


def _refuse_unknown(data: dict, known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1)
            raise FleetError(f"{where}: unknown key {str(key)[:60]!r}" + (f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(sorted(known))}"))


def load_fleet(path: str | Path | None = None) -> Fleet:
    """Read a fleet file, or the default fleet of six where `path` is None.

    Raises:
        MissingError: no such file.
        FleetError: the file is refused; one line names the place and the mend.
    """
    path = paths.assets() / "fleets" / "default.yaml" if path is None else Path(path)
    return parse_fleet(read_yaml(path, error=FleetError), where=str(path))
