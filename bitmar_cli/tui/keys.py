"""The one registry of what can be done and by which key. Bindings, footer, help, palette and the documentation read it.

Each entry's `name` is the method `action_<name>` of the place that it belongs to: the application, a screen, or the task input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.binding import Binding

PLACES = {
    "app": "Everywhere",
    "input": "Task input",
    "chat": "Chat",
    "image": "Image",
    "steps": "Steps",
    "memory": "Memory",
    "training": "Training",
    "sessions": "Sessions",
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that can be done."""

    name: str
    place: str
    keys: str = ""
    """As Textual names them, several with commas; empty: by the palette only."""
    label: str
    """One or two words for the footer."""
    help: str
    rank: int = 0
    """Place in the footer, 1 first; 0: not in the footer."""
    keep: bool = False
    """Stays in the footer of the narrowest terminal."""
    priority: bool = False
    """Also while a text is being typed."""
    palette: bool = True

    @property
    def shown(self) -> str:
        """Its first key as people write it."""
        return shown_key(self.keys.split(",")[0]) if self.keys else ""

    @property
    def works_typing(self) -> bool:
        """Whether its first key does anything while a text is being typed."""
        key = self.keys.split(",")[0]
        return self.priority or key == "escape"


NAMES = {
    "escape": "Esc", "space": "Space", "enter": "Enter", "tab": "Tab", "slash": "/", "question_mark": "?", "left": "←", "right": "→", "up": "↑", "down": "↓",
    "left_square_bracket": "[", "right_square_bracket": "]", "comma": ",", "full_stop": ".", "shift+tab": "Shift+Tab", "pageup": "PgUp", "pagedown": "PgDn",
}  # fmt: skip


def shown_key(key: str) -> str:
    """`ctrl+p` as `^P`, `f2` as `F2`."""
    if key in NAMES:
        return NAMES[key]
    if key.startswith("ctrl+"):
        return "^" + key[5:].upper()
    return key.upper() if len(key) > 1 else key


def _all() -> tuple[Action, ...]:
    a: list[Action] = []

    def add(place: str, name: str, keys: str, label: str, help: str, rank: int = 0, **more: bool) -> None:
        a.append(Action(place=place, name=name, keys=keys, label=label, help=help, rank=rank, **more))

    add("app", "show_memory", "f2", "Memory", "Open the memory inspector", 20, priority=True)
    add("app", "show_image", "f3", "Image", "Open the photo with the attention over it", 21, priority=True)
    add("app", "show_steps", "f4", "Steps", "Open the reasoning steps", 22, priority=True)
    add("app", "show_training", "f5", "Train", "Open the training monitor", 23, priority=True)
    add("app", "show_sessions", "f6", "Sessions", "Saved sessions: resume, remove", 27, priority=True)
    add("app", "palette", "ctrl+p", "Commands", "Every command by name", 24, keep=True, priority=True, palette=False)
    add("app", "help", "f1", "Help", "Keys of this screen", 25, keep=True, priority=True)
    add("app", "quit", "ctrl+q", "Quit", "Leave; everything is saved already", 26, keep=True, priority=True)
    add("app", "interrupt", "ctrl+c", "Stop", "Stop the answer; copies where text is marked; twice when idle: leave", priority=True)
    add("app", "jump", "ctrl+o", "Jump", "Go to a pane by its letter", 28, priority=True)
    add("app", "copy_answer", "ctrl+y", "Copy", "Copy the answer", 29, priority=True)
    add("app", "export", "ctrl+s", "Save", "Export the session as Markdown (.md), JSON (.json) or this screen as SVG (.svg)", 30, priority=True)
    add("app", "redraw", "ctrl+l", "Redraw", "Draw the screen anew", priority=True)
    add("app", "new_session", "", "New session", "Begin a new session; this one stays saved")
    add("app", "set_image", "", "Set photo", "Choose the photo of the place for the next tasks")
    add("app", "set_site", "", "Set site note", "Say what is known of the place")
    add("app", "set_fleet", "", "Set fleet", "Choose among the robots of a fleet file")
    add("app", "set_seed", "", "Set seed", "Sample the reasoning text with a seed; empty writes the likeliest text")
    add("app", "attach", "", "Attach to a run", "Watch the training run in a folder")
    add("app", "next_theme", "", "Theme", "Go to the next theme")
    add("app", "restart", "", "Restart the model", "End the model's process and start it again")
    add("app", "freeze", "", "Freeze memory", "Refuse every change of the memory until it is thawed")

    add("input", "editor", "ctrl+e", "Editor", "Write the task in $EDITOR")
    add("input", "newline", "ctrl+j", "New line", "A line break in the task", palette=False)

    add("chat", "stop", "escape", "Stop", "Stop the answer and keep what was said; when idle: from the input to the conversation", 1, keep=True, palette=False)
    add("chat", "focus_chat", "1", "Go to the conversation", "To the conversation")
    add("chat", "focus_robots", "2", "Go to the robots", "To the robots")
    add("chat", "focus_slots", "3", "Go to the memory strip", "To the memory strip")
    add("chat", "focus_task", "i", "Task", "To the task input", 2)
    add("chat", "fold", "r", "Fold", "Fold or unfold the reasoning of the answer", 3)
    add("chat", "why", "w", "Why", "Ask again without each thing that the answer used", 4)
    add("chat", "regenerate", "g", "Again", "Ask the same again, with the memory as it is now", 5)
    add("chat", "resume_answer", "c", "Continue", "Go on with a stopped answer", 8)
    add("chat", "teach", "t", "Teach", "Say which robot was right, and why", 6)
    add("chat", "previous_turn", "left_square_bracket", "Previous turn", "To the turn before")
    add("chat", "next_turn", "right_square_bracket", "Next turn", "To the turn after")
    add("chat", "step_back", "left", "Step back", "Panes show the reasoning step before", 9)
    add("chat", "step_on", "right", "Step on", "Panes show the reasoning step after")
    add("chat", "copy_answer", "y", "Copy", "Copy the answer", palette=False)
    add("chat", "show_memory", "m", "Memory", "As F2", palette=False)
    add("chat", "show_image", "v", "Image", "As F3", palette=False)
    add("chat", "show_steps", "s", "Steps", "As F4", palette=False)
    add("chat", "show_training", "T", "Training", "As F5", palette=False)
    add("chat", "show_sessions", "S", "Sessions", "As F6", palette=False)
    add("chat", "help", "question_mark", "Help", "Keys of this screen", palette=False)

    for place in ("image", "steps"):
        add(place, "back", "escape", "Back", "Back to the chat", 1, keep=True, palette=False)
        add(place, "step_back", "left,comma", "Step back", "The reasoning step before", 2, palette=False)
        add(place, "step_on", "right,full_stop", "Step on", "The reasoning step after", 3, palette=False)
        add(place, "help", "question_mark", "Help", "Keys of this screen", palette=False)
    add("image", "overlay", "o", "Overlay", "Attention over the photo, on or off", 4)
    add("image", "zoom", "z", "Zoom", "Twice as large, around the patch that is looked at most", 5)
    add("image", "open_outside", "O", "Open", "Open the photo in another program", 6)

    add("memory", "back", "escape", "Back", "Back to the chat", 1, keep=True, palette=False)
    add("memory", "teach", "t", "Teach", "Teach the last task, or a new one", 2)
    add("memory", "forget", "f", "Forget", "Forget the slot (asks first)", 3)
    add("memory", "pin", "p", "Pin", "Keep the slot from being replaced, or let it go", 4)
    add("memory", "undo", "u", "Undo", "Take the last change back", 5)
    add("memory", "without", "w,enter", "Without", "Ask again with the slot masked", 6)
    add("memory", "sort", "s", "Sort", "By similarity, slot, age or uses", 7)
    add("memory", "find", "slash", "Find", "Slots whose story holds a text", 8)
    add("memory", "empty", "e", "Empty", "Show or fold the empty slots", 9)
    add("memory", "export_memory", "x", "Export", "Write the memory to a file", 10)
    add("memory", "import_memory", "m", "Import", "Add the episodes of an exported memory", 11)
    add("memory", "copy_slot", "c", "Copy", "Copy the slot's story", 12)
    add("memory", "diff", "d", "Diff", "Compare with an exported memory", 13)
    add("memory", "help", "question_mark", "Help", "Keys of this screen", palette=False)

    add("training", "back", "escape", "Back", "Back to the chat", 1, keep=True, palette=False)
    add("training", "pause", "space", "Pause", "Hold the view still; the log is read on", 2)
    add("training", "checkpoint", "k", "Checkpoint", "Ask the run to save its state now", 3)
    add("training", "stop_run", "K", "Stop+save", "Ask the run to save its state and stop", 4)
    add("training", "log_scale", "l", "Log scale", "Loss on a logarithmic scale, or not", 5)
    add("training", "metric", "m", "Metric", "Plot the next part of the loss or reward", 6)
    add("training", "csv", "x", "CSV", "Write the curve to a file", 7)
    add("training", "attach_run", "a", "Attach", "Watch the run in another folder", 8, palette=False)
    add("training", "help", "question_mark", "Help", "Keys of this screen", palette=False)

    add("sessions", "back", "escape", "Back", "Back to the chat", 1, keep=True, palette=False)
    add("sessions", "open_session", "enter", "Resume", "Go on with this session", 2, palette=False)
    add("sessions", "begin_session", "n", "New", "Begin a new session", 3, palette=False)
    add("sessions", "remove", "x", "Remove", "Delete this session's file (asks first)", 4, palette=False)
    add("sessions", "help", "question_mark", "Help", "Keys of this screen", palette=False)
    return tuple(a)


ACTIONS = _all()


def of(place: str) -> list[Action]:
    """The actions of a place."""
    return [action for action in ACTIONS if action.place == place]


def bindings(place: str) -> list[Binding]:
    """What Textual needs to know."""
    from textual.binding import Binding

    return [
        Binding(action.keys, action.name, action.label, show=False, priority=action.priority, key_display=action.shown, id=f"{place}.{action.name}")
        for action in of(place)
        if action.keys
    ]


def footer(place: str, width: int, *, typing: bool = False) -> list[Action]:
    """What fits on a line of `width` columns: those that must stay, then by rank, whole words only; in the order of rank.

    While a task is being typed, keys that would only type a character are left out.
    """
    usable = [action for action in [*of(place), *of("app")] if action.rank and action.keys and not (typing and not action.works_typing)]
    ranked = sorted(usable, key=lambda action: action.rank)
    chosen: list[Action] = []
    left = width
    for action in [*(x for x in ranked if x.keep), *(x for x in ranked if not x.keep)]:
        size = len(action.shown) + 1 + len(action.label) + 2
        if size <= left:
            chosen.append(action)
            left -= size
    return sorted(chosen, key=lambda action: action.rank)


def page() -> str:
    """The keys as Markdown, for the documentation."""
    lines = ["# Keys of the full-screen program", "", "Made by `python -m bitmar_cli.tui.keys`; every command is also in the palette (Ctrl+P).", ""]
    for place, title in PLACES.items():
        lines += [f"## {title}", "", "| key | command | what it does |", "| --- | --- | --- |"]
        for action in of(place):
            names = ", ".join(shown_key(key) for key in action.keys.split(",")) if action.keys else "palette"
            lines.append(f"| {names} | {action.label} | {action.help} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
