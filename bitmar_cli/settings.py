"""A configuration as YAML. The comment of each key is the docstring that stands under its field in `bitmar_core/config.py`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields, is_dataclass
from typing import Any


def field_docs(module: Any) -> dict[tuple[str, str], str]:
    """(class, field) to the docstring under the field."""
    docs = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for item, after in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(item, ast.AnnAssign)
                    and isinstance(item.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    docs[node.name, item.target.id] = " ".join(str(after.value.value).split())
    return docs


def as_yaml(config: Any) -> str:
    """Every key of a configuration with a comment above it; `load_config` reads it back to the same configuration."""
    from bitmar_core import config as module

    docs = field_docs(module)
    lines: list[str] = []
    _section(config, docs, "", lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _section(part: Any, docs: dict[tuple[str, str], str], indent: str, lines: list[str]) -> None:
    import yaml

    for item in fields(part):
        value = getattr(part, item.name)
        comment = docs.get((type(part).__name__, item.name)) or ((type(value).__doc__ or "").split("\n")[0] if is_dataclass(value) else "")
        if "range" in item.metadata:
            comment += " ({:g} to {:g})".format(*item.metadata["range"])
        if "options" in item.metadata:
            comment += f" (one of {', '.join(item.metadata['options'])})"
        if is_dataclass(value):
            lines.append("")
        lines += textwrap.wrap(
            comment.strip(), width=110, initial_indent=indent + "# ", subsequent_indent=indent + "# ", break_long_words=False, break_on_hyphens=False
        )
        if is_dataclass(value):
            lines.append(f"{indent}{item.name}:")
            _section(value, docs, indent + "  ", lines)
        else:
            lines.append(indent + yaml.safe_dump({item.name: value}, allow_unicode=True, width=10_000).rstrip())
