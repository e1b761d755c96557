"""Prints docs/cli.md from the commands' own --help: `python -m bitmar_cli.reference > docs/cli.md`."""

from __future__ import annotations

from typing import Any

WIDTH = 100

HEAD = """# Command line reference

Printed from `--help` by `python -m bitmar_cli.reference`; a test fails when this page is stale.
"""


def page() -> str:
    """The whole page."""
    import typer

    from bitmar_cli.main import app

    return HEAD + "".join(_sections(typer.main.get_command(app), "bitmar", None))


def _sections(command: Any, name: str, parent: Any) -> list[str]:
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"])
    with context:
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    out = [f"\n## {context.command_path}\n\n```\n{text}\n```\n"]
    for child in getattr(command, "commands", {}).values():
        out += _sections(child, child.name, context)
    return out


if __name__ == "__main__":
    print(page(), end="")
