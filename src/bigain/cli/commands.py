"""The application: what all commands share, and the commands themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from bigain import __version__
from bigain.cli.allocate import allocate
from bigain.cli.analyse import analyse
from bigain.cli.bench import bench
from bigain.cli.bound import bound
from bigain.cli.classify import classify
from bigain.cli.command import Command, show_tracebacks
from bigain.cli.demo import demo
from bigain.cli.evaluate import evaluate
from bigain.cli.fid import fid
from bigain.cli.fit import fit
from bigain.cli.generate import generate
from bigain.cli.inspect import inspect
from bigain.cli.methods import methods
from bigain.cli.models import models
from bigain.cli.options import grouped
from bigain.cli.report import report
from bigain.cli.ui import ui

app = typer.Typer(
    name="bigain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Token compression for diffusion models, measured on classification, generation and speed at once.",
    epilog="Start with [bold]bigain demo[/]: it needs no download and no GPU.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bigain {__version__}")
        raise typer.Exit


@app.callback()
def common(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the code an error arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Token compression for diffusion models, measured on classification, generation and speed at once."""
    show_tracebacks.set(traceback)


_TELL_ME = (
    classify,
    fit,
    generate,
    fid,
    bound,
    bench,
    allocate,
    analyse,
    report,
)  # without arguments these show their help
_COMMANDS = (
    *(demo, evaluate, classify, fit, generate, fid, inspect),
    *(methods, models, bound, bench, allocate, analyse, report, ui),
)
for command in _COMMANDS:
    app.command(cls=Command, no_args_is_help=command in _TELL_ME)(grouped(command))


def main() -> None:
    """Entry point of the ``bigain`` command."""
    app()
