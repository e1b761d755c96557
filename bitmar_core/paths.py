"""Where BitMar's files lie. `BITMAR_HOME` moves every file that BitMar keeps."""

from __future__ import annotations

import os
from pathlib import Path

from bitmar_core.errors import MissingError

ENV_HOME = "BITMAR_HOME"


def home() -> Path:
    """The folder that holds memory, sessions, logs and fetched models. It is not created here."""
    override = os.environ.get(ENV_HOME)
    if override:
        return Path(override)
    from platformdirs import user_data_path

    return user_data_path("bitmar", appauthor=False)


def assets() -> Path:
    """The read-only folder of shipped assets: beside the packages in a checkout, inside the wheel once installed.

    Raises:
        MissingError: neither place holds them (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_assets", package.parent / "assets"):
        if (folder / "configs").is_dir():
            return folder
    raise MissingError("the shipped assets are missing: reinstall with `pip install --force-reinstall bitmar`")


def default_memory() -> Path:
    """The folder of the memory store."""
    return home() / "memory"


def log_file() -> Path:
    """The file that tracebacks go to."""
    return home() / "logs" / "bitmar.log"


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside and rename, so that a reader sees the old file or the new one, never a part.

    Raises:
        BitMarError: the disk is full or the folder cannot be written; names the path.
    """
    import tempfile

    from bitmar_core.errors import BitMarError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if os.name == "posix":
                os.chmod(name, 0o644)  # mkstemp makes private files; these are meant to be read
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BitMarError(f"cannot write {path}: {reason}; free space or choose another folder") from error
