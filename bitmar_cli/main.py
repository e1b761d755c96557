"""`bitmar`: the commands, and the one place where errors become lines and exit codes. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from functools import cache
from typing import Annotated, Any

import typer

from bitmar_cli.commands import ask, chat, config, doctor, download, evaluate, memory, model, train, tui
from bitmar_cli.exits import MEANING, ExitCode
from bitmar_cli.render import narrate, one_line, safe
from bitmar_core import paths
from bitmar_core.errors import BitMarError

MAX_LOG = 1_000_000

app = typer.Typer(
    name="bitmar",
    help="Say which robot to send, how sure that is, and why. Runs offline.",
    epilog="\b\nExit codes:\n" + "\n".join(f"  {int(code):>3}  {meaning}" for code, meaning in MEANING.items()),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("tui")(tui.tui)
app.add_typer(memory.app, name="memory")
app.add_typer(model.app, name="model")
app.add_typer(config.app, name="config")
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
app.command("download-coco")(download.download_coco)
app.add_typer(train.app, name="train")


class _Debug:
    on = False


def version() -> str:
    """The installed version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("bitmar")
    except PackageNotFoundError:
        return "(not installed, running from a checkout)"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bitmar {version()}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. BITMAR_DEBUG=1 does the same.")] = False,
    show_version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    """Options before the command."""
    _Debug.on = _Debug.on or debug


@cache
def _command() -> Any:
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line. Every ending is an exit code; no traceback reaches a person who did not ask for it."""
    _Debug.on = os.environ.get("BITMAR_DEBUG", "") not in ("", "0")
    arguments = sys.argv[1:] if arguments is None else arguments
    _prepare_streams()
    try:
        # Not app(...): Typer would end the program itself on Ctrl-C and on a broken pipe.
        command = _command()
        with command.make_context("bitmar", list(arguments)) as context:
            command.invoke(context)
        return _flushed(ExitCode.DONE)
    except typer.Exit as leaving:
        return _flushed(leaving.exit_code)
    except BitMarError as error:
        return _fail(error, one_line(error), error.exit_code)
    except KeyboardInterrupt:
        narrate("bitmar: interrupted")
        return ExitCode.INTERRUPTED
    except typer.Abort:
        narrate("bitmar: left without an answer; nothing was changed")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return ExitCode.BROKEN_PIPE
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's own: a wrong option, a missing argument
            return _usage(error)
        return _fail(error, _logged(error), ExitCode.ERROR)


def main() -> None:
    """The entry point."""
    sys.exit(int(run()))


def _flushed(code: int) -> int:
    """`code`, if what was printed reached its reader."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        return _fail(error, _logged(error), ExitCode.ERROR)
    return code


def _prepare_streams() -> None:
    """A stream that is closed, or that cannot show a character, must not end the program."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """Nobody reads stdout any more: let the flush at exit go nowhere, or Python would complain about it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Exception) -> int:
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help())
        return ExitCode.DONE
    command = context.command_path if context is not None else "bitmar"
    narrate(f"bitmar: {error.format_message().rstrip('.')}; see `{command} --help`")  # type: ignore[attr-defined]
    return int(error.exit_code)  # type: ignore[attr-defined]


def _fail(error: BaseException, line: str, code: int) -> int:
    if _Debug.on:
        print(safe("".join(traceback.format_exception(error)), newlines=True), file=sys.stderr)
    narrate(f"bitmar: {line}")
    return code


def _logged(error: Exception) -> str:
    """Write the traceback to the log file; gives the line that names it."""
    from datetime import UTC, datetime

    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
        said = f"cannot write the output: {error.strerror}"
        _drop_stdout()
    else:
        said = f"unexpected {type(error).__name__}: {str(error)[:200]}".rstrip(": ")
    try:
        log = paths.log_file()
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > MAX_LOG:
            log.replace(log.with_suffix(".old.log"))
        text = "".join(traceback.format_exception(error))
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"--- {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} bitmar {version()}\n{safe(text, newlines=True)}\n")
    except Exception as trouble:
        return f"{one_line(said)}; the traceback could not be written ({one_line(trouble)}), --debug shows it"
    return f"{one_line(said)}; the traceback is in {log}"


if __name__ == "__main__":
    main()
