"""What F1 and ? show, from the registries of keys and commands."""

from __future__ import annotations

from bitmar_cli.tui import commands, keys


def rows(place: str) -> list[str]:
    """Keys of a place, then those that work everywhere, then, in the chat, the slash commands."""
    found: list[str] = []
    for where in [place, *(["input"] if place == "chat" else []), "app"]:
        found += [*([""] if found else []), keys.PLACES[where]]
        for action in keys.of(where):
            if action.keys:
                names = " ".join(keys.shown_key(key) for key in action.keys.split(","))
                found.append(f"  {names:<9} {action.help}")
        if where == "input":
            found += ["  Enter     Send the task", "  Up Down   What was sent before", "  Tab       Complete a /command, a path or @file"]
    if place == "chat":
        found += ["", "Commands"]
        found += [f"  /{name} {command.arguments}".rstrip().ljust(34) + " " + command.help for name, command in commands.COMMANDS.items()]
    return found
