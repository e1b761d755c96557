"""YAML from people and strangers: data only, no tags, no aliases, no duplicate keys, bounded in size and depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bitmar_core.errors import BitMarError, MissingError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}" if mark is not None else "an unknown line"


def parse_yaml(text: str, *, name: str, error: type[BitMarError]) -> Any:
    """Parse YAML that may not run code, grow, or hide a key.

    Args:
        text: the document.
        name: what messages call it, usually a path.
        error: the error class to raise.

    Raises:
        error: a syntax error, a tag, an alias, a duplicate key, or too deep a nesting; the line is named.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent):
                raise error(f"{name}, {_where(event.start_mark)}: aliases (*name) are not accepted; write the value out")
            if event.tag is not None:
                raise error(f"{name}, {_where(event.start_mark)}: the tag {event.tag} is not accepted; write plain values")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise error(f"{name}, {_where(self.peek_event().start_mark)}: nested deeper than {MAX_DEPTH} levels; flatten it")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen: dict[Any, int] = {}
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                try:
                    known = key in seen
                except TypeError as cause:
                    raise error(f"{name}, {_where(key_node.start_mark)}: a key must be a plain word") from cause
                if known:
                    raise error(f"{name}, {_where(key_node.start_mark)}: key {key!r} is given twice (first on line {seen[key]}); keep one")
                seen[key] = key_node.start_mark.line + 1
            return super().construct_mapping(node, deep)

    def refuse(loader: Any, node: Any) -> Any:
        raise error(f"{name}, {_where(node.start_mark)}: the tag {node.tag} is not accepted; write plain values")

    Loader.add_constructor(None, refuse)
    # YAML 1.1 takes 1e-4 and 1.5e3 for text, since they lack a point or a sign; everybody else takes them for numbers.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as cause:
        problem = " ".join(str(cause.problem or "not valid YAML").split())
        if "\\t" in problem:
            problem = "a tab is used for indentation; YAML allows spaces only"
        raise error(f"{name}, {_where(cause.problem_mark)}: {problem}") from cause
    except yaml.YAMLError as cause:
        raise error(f"{name}: not valid YAML: {' '.join(str(cause).split())}") from cause
    except (ValueError, RecursionError, OverflowError) as cause:
        raise error(f"{name}: a value cannot be read: {' '.join(str(cause).split())}") from cause


def read_yaml(path: Path, *, error: type[BitMarError]) -> Any:
    """Read and parse a YAML file.

    Raises:
        MissingError: no such file.
        error: not a regular file, over 1 MB, not UTF-8, or refused by `parse_yaml`.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise error(f"{path} is not a regular file; name a YAML file")
            raise MissingError(f"no file {path}; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise error(f"{path} is larger than {MAX_BYTES // 1_000_000} MB; a YAML file here holds a few kilobytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not UTF-8 text (byte {cause.start}); save it as UTF-8") from cause
    except (OSError, ValueError) as cause:
        raise error(f"cannot read {path}: {getattr(cause, 'strerror', None) or cause}") from cause
    return parse_yaml(text, name=str(path), error=error)
