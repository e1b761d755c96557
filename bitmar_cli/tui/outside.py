"""Other programs: the person's editor, and whatever opens a picture."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from textual.app import SuspendNotSupported


def edited(app: Any, text: str) -> str | None:
    """`text` as the person left it in $VISUAL or $EDITOR; None where there is none or it failed, which is said at the foot."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        app.say("no editor is set; put its name into EDITOR", "warn")
        return None
    handle, name = tempfile.mkstemp(prefix="bitmar-task-", suffix=".txt")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        with app.suspend():
            code = subprocess.run([*shlex.split(command), name], check=False).returncode
        if code:
            app.say(f"the editor ended with code {code}; the task is as it was", "warn")
            return None
        return Path(name).read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except (OSError, ValueError, SuspendNotSupported) as error:
        app.say(f"the editor {command} could not be started: {error}", "warn")
        return None
    finally:
        Path(name).unlink(missing_ok=True)


def opened(path: str) -> str:
    """Open a file with the system's program for it; what to say at the foot. Without a desktop, what is missing."""
    if sys.platform == "win32":
        os.startfile(path)
        return f"opened {path}"
    program = "open" if sys.platform == "darwin" else "xdg-open"
    try:
        subprocess.Popen(
            [program, os.path.abspath(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return f"there is no {program} here to open pictures with"
    return f"opened {path}"
