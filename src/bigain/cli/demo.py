"""``bigain demo``: the main job on what comes with the package."""

from __future__ import annotations

import importlib.util
import shlex

import typer

_MODELS = ("glyphs-dit", "glyphs-sd")
_RUN = "evaluate --config demo --model {model} --preset balanced"
_PAGE = "report runs/evaluate/{model}/results.sqlite --html runs/evaluate/{model}/report.html"


def demo(ctx: typer.Context) -> None:
    """Compares the published methods and a preset on the embedded models: tables, pictures and a page to look at.

    Takes a few minutes on 2 CPU cores, and goes on where it was stopped. It runs these commands, for glyphs-dit and for
    glyphs-sd:

      bigain evaluate --config demo --model glyphs-dit --preset balanced

      bigain report runs/evaluate/glyphs-dit/results.sqlite --html runs/evaluate/glyphs-dit/report.html

    [bold]Examples[/]

      bigain demo
    """
    pages = importlib.util.find_spec("altair") is not None
    for model in _MODELS:
        for command in (_RUN, _PAGE) if pages else (_RUN,):
            words = command.format(model=model)
            typer.secho(f"$ bigain {words}", bold=True)
            root = ctx.find_root().command
            if code := root.main(shlex.split(words), prog_name="bigain", standalone_mode=False):
                raise typer.Exit(code)
    if not pages:
        typer.echo("For a page of each run: pip install 'bigain[html]'")
