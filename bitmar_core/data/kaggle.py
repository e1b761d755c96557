"""A data set from Kaggle, brought by Kaggle's own client where that is installed. It resumes, and it alone knows the person's key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bitmar_core.data.fetch import Cancelled
from bitmar_core.data.fetch_many import EVERY, Meter, Progress
from bitmar_core.errors import BitMarError, MissingError, UsageError


def check_name(dataset: str) -> str:
    """`dataset`, if it has the form OWNER/NAME. Raises UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w-]{0,99}/[A-Za-z0-9_][\w-]{0,99}", dataset, re.ASCII):
        raise UsageError(f"{dataset!r} is no Kaggle data set; give OWNER/NAME as in its address, kaggle.com/datasets/OWNER/NAME")
    return dataset


def client() -> str:
    """The path of Kaggle's client: beside this Python, else on the PATH. Raises MissingError."""
    found = shutil.which("kaggle", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise MissingError("Kaggle's client is not installed; `pip install kaggle` brings it, or leave --kaggle out to use COCO's own addresses")
    return found


def archive_path(dataset: str, folder: Path) -> Path:
    """Where the client puts the data set's zip."""
    return folder / f"{dataset.partition('/')[2]}.zip"


def download(dataset: str, folder: Path, *, cancel: threading.Event) -> Iterator[Progress]:
    """Bring the zip of `dataset` to `archive_path(dataset, folder)`, and tell how it grows; its size is not known beforehand.

    Raises:
        Cancelled: the flag was set; the client goes on from there the next time.
        MissingError: the client is not installed.
        BitMarError: the client failed; gives its own last line.
    """
    program = client()
    folder.mkdir(parents=True, exist_ok=True)
    archive, meter = archive_path(dataset, folder), Meter("fetch", files=1, total=None)
    if archive.is_file():
        meter.start_from(archive.stat().st_size)
    with tempfile.TemporaryFile() as output:
        # A process, not a call: it can be stopped, and what it prints stays out of our stdout.
        process = subprocess.Popen(
            [program, "datasets", "download", "-d", dataset, "-p", str(folder)], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                if cancel.wait(EVERY):
                    raise Cancelled
                if archive.is_file():
                    meter.add(archive.stat().st_size - meter.bytes_done)
                yield meter.progress()
        finally:
            _end(process)
        output.seek(0)
        said = [line.strip() for line in re.split(r"[\r\n]+", output.read().decode("utf-8", "replace")) if line.strip()]
    if process.returncode or not archive.is_file():
        why = said[-1][:300] if said else f"exit status {process.returncode}"
        raise BitMarError(f"Kaggle's client did not bring {dataset}: {why}; see https://www.kaggle.com/docs/api for its key")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
