"""`bitmar ask`: one task, or a file of tasks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bitmar_cli import answers, batch, opening, options, tasks
from bitmar_cli.exits import ExitCode
from bitmar_cli.render import Screen, to_json
from bitmar_cli.stopping import stop_on_interrupt
from bitmar_core.errors import UsageError


def ask(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="What is to be done, in quotes. - reads it from stdin. Put -- before a task that begins with a hyphen.")
    ] = None,
    image: options.Image = None,
    fleet: options.FleetFile = None,
    site: options.Site = None,
    as_json: options.Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print each event as a line of JSON while the answer forms.")] = False,
    top: Annotated[int | None, typer.Option("--top", metavar="K", min=1, help="Show only the K likeliest robots.")] = None,
    no_reasoning: Annotated[bool, typer.Option("--no-reasoning", help="Choose only, without writing the reasons.")] = False,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="FILE", help='Answer a file of tasks: each line is {"id"?, "task", "image"?, "site"?}. Image paths are relative to the file.'
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Where the answers to --input go, one a line. Without it, or with -: stdout.")
    ] = None,
    memory: options.Memory = options.MemoryMode.read,
    store: options.Store = None,
    seed: options.Seed = None,
    strict: Annotated[bool, typer.Option("--strict", help='Exit with 5 where the answer is "not sure".')] = False,
    plain: options.Plain = False,
    model: options.Model = None,
) -> None:
    """Ask which robot to send.

    Prints the probabilities, the reasons as they form, and the choice. With --input, answers many tasks in one go.
    """
    if as_json and jsonl:
        raise UsageError("--json and --jsonl exclude each other; use one of them")
    if input_ is not None:
        for given, name in ((task is not None, "a TASK"), (image is not None, "--image"), (jsonl, "--jsonl"), (seed is not None, "--seed")):
            if given:
                raise UsageError(f"{name} cannot go with --input; leave it out")
        source = batch.Source.open(input_)
        target = batch.Target.plan(output, source)
        session = opening.open_session(model=model, fleet=fleet, memory=memory.value, store=store)
        raise typer.Exit(batch.run(session, source, target, site=site, reasoning=not no_reasoning, top=top, strict=strict))
    if output is not None:
        raise UsageError("--output goes with --input; for one task, redirect stdout with >")

    text = tasks.read(task)
    session = opening.open_session(model=model, fleet=fleet, memory=memory.value, store=store)

    def code(done: Any) -> ExitCode:
        if done.reason == "cancelled":
            return ExitCode.INTERRUPTED
        return ExitCode.NOT_SURE if strict and done.answer.get("abstained") else ExitCode.DONE

    with stop_on_interrupt() as cancel:
        stream = session.ask(text, image=image, site=site and tasks.clean(site), reasoning=not no_reasoning, seed=seed, cancel=cancel)
        if jsonl:
            screen = Screen(plain=True)
            done = answers.last(answers.as_lines(stream, screen, code=code))
        elif as_json:
            done = answers.last(stream)
            typer.echo(to_json(answers.shorten(done.answer, top)))
        else:
            screen = Screen(plain=plain)
            done = answers.last(answers.Drawer(screen, top=top, steps=not no_reasoning).drawing(stream))
    raise typer.Exit(code(done))
