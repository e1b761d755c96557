"""`bitmar download-coco`: COCO's pictures and captions, to train on."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bitmar_cli.exits import ExitCode
from bitmar_cli.render import is_terminal, narrate, one_line
from bitmar_cli.stopping import stop_on_interrupt

NAMED = 10
"""Pictures that are named when they are left out; more are only counted."""


class Split(StrEnum):
    """Which part of COCO."""

    train = "train"
    val = "val"
    both = "both"


def download_coco(
    out: Annotated[Path, typer.Option("--out", "--dir", metavar="DIR", help="Folder for pictures and captions. A run that was stopped goes on there.")],
    split: Annotated[Split, typer.Option("--split", help="Which part: train has 118,287 pictures (19 GB), val has 5,000 (0.8 GB).")] = Split.both,
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="URL", help="Another server with COCO's own files. Sizes and digests are checked against COCO's.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="FOLDER|ZIP|URL", help="A folder or zip on disk, or a server, laid out like COCO. Its archives may be packed anew."),
    ] = None,
    kaggle: Annotated[
        str | None, typer.Option("--kaggle", metavar="OWNER/NAME", help="A Kaggle data set, brought by Kaggle's client where that is installed.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="N pictures of each part, fetched one by one. Raising N later adds to them.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=64, help="Files that are fetched at the same time.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and how much room it takes; write nothing.")] = False,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Keep the zip files after they are unpacked.")] = False,
) -> None:
    """Download COCO 2017: pictures and captions.

    Files are checked and get their names only when they are whole. Run the same command again to go on after a stop; what is there is
    not fetched again.
    """
    from bitmar_core.data import coco_plan as planning
    from bitmar_core.data import download as core

    splits = planning.SPLITS if split is Split.both else (split.value,)
    wish = planning.Wish(out=out, splits=splits, mirror=mirror, source=source, kaggle=kaggle, limit=limit, jobs=jobs, keep_archives=keep_archives)
    if dry_run:
        planned = planning.plan(wish)
        for line in planned.lines:
            typer.echo(one_line(line))
        typer.echo(
            f"about {planning.size_text(planned.fetched)} to fetch, {planning.size_text(planned.room)} of room; {planning.size_text(planned.free)} are free"
        )
        planning.check_room(planned.room, wish.out)
        return
    left_out: list[Any] = []
    bar = Bar()
    with stop_on_interrupt() as cancel:
        try:
            for event in core.download(wish, cancel=cancel):
                if isinstance(event, core.Planned):
                    for line in event.lines:
                        narrate(line)
                elif isinstance(event, core.Progress):
                    bar.draw(event)
                elif isinstance(event, core.Retrying):
                    bar.say(f"{event.name}: {event.reason}; trying again in {event.seconds:.0f} s")
                elif isinstance(event, core.LeftOut):
                    left_out.append(event)
                    if len(left_out) <= NAMED:
                        bar.say(f"left out {event.name}: {event.reason}")
                elif isinstance(event, core.Ready):
                    bar.close()
                    typer.echo(f"{event.split}: {event.pictures} pictures with {event.captions} captions in {one_line(event.folder)}{missing(event)}")
                elif isinstance(event, core.Done):
                    bar.close()
                    if left_out:
                        narrate(f"bitmar: {len(left_out)} pictures were left out; run the same command again to try them once more")
                    if event.reason == "cancelled":
                        narrate("bitmar: stopped; what was fetched is kept, run the same command again to go on")
                        raise typer.Exit(int(ExitCode.INTERRUPTED))
        finally:
            bar.close()


def missing(event: Any) -> str:
    """How many pictures did not come."""
    return f", {event.missing} missing" if event.missing else ""


def clock(seconds: float) -> str:
    """A time to go: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress_text(event: Any) -> str:
    """A progress event in words: `fetch 12 % (2.3 of 19.3 GB, file 1 of 3), 45.0 MB/s, 6 min left`."""
    from bitmar_core.data.coco_plan import size_text

    if event.bytes_total:
        share, of = event.bytes_done / event.bytes_total, f"{size_text(event.bytes_done)} of {size_text(event.bytes_total)}"
    else:
        share, of = event.files_done / max(1, event.files_total), size_text(event.bytes_done)
    left = "" if event.seconds_left is None or event.files_done == event.files_total else f", {clock(event.seconds_left)} left"
    return f"{event.stage} {100 * min(1.0, share):.0f} % ({of}, {event.files_done} of {event.files_total} files), {size_text(event.rate)}/s{left}"


class Bar:
    """Progress on stderr: one line that is rewritten on a terminal; elsewhere a line each half minute and at the end of a stage."""

    LINE_EVERY = 30.0

    def __init__(self) -> None:
        self.live = is_terminal(sys.stderr)
        self._width = 0
        self._last = time.monotonic()
        self._finished = False

    def draw(self, event: Any) -> None:
        """Show a progress event."""
        text = progress_text(event)
        finished, before = event.files_done == event.files_total, self._finished
        self._finished = finished
        if self.live:
            self._put(text)
        elif (finished and not before) or (not finished and time.monotonic() - self._last >= self.LINE_EVERY):
            self._last = time.monotonic()
            narrate(text)

    def _put(self, text: str) -> None:
        from shutil import get_terminal_size

        text = text[: get_terminal_size().columns - 1]
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def say(self, text: str) -> None:
        """A line of its own, in the place of the progress, which is drawn again below it."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr)
            self._width = 0
        narrate(text)

    def close(self) -> None:
        """Leave the line."""
        if self._width:
            print(file=sys.stderr, flush=True)
            self._width = 0
