"""The exit codes, which scripts rely on. `--help`, the reference page and the tests read this table."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the program's exit status means."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    TRY_AGAIN = 3
    MISSING = 4
    NOT_SURE = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANING = {
    ExitCode.DONE: "done",
    ExitCode.ERROR: "an error; one line on stderr says what and how to mend it",
    ExitCode.USAGE: "the command line itself is wrong",
    ExitCode.TRY_AGAIN: "something passing, such as a lock that is held; try again",
    ExitCode.MISSING: "a file, model or data set is missing",
    ExitCode.NOT_SURE: 'answered "not sure", where --strict asks for it',
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
}
