"""``bigain methods``: what there is to compare."""

from __future__ import annotations

from typing import Annotated

import typer

from bigain.cli import options


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method in full: lgtm, abm, tome, …")] = None,
) -> None:
    """Lists the methods with their fields, defaults and presets.

    A method is written NAME-STRENGTH (a preset, lgtm-0.7) or NAME:field=value,… (a spec); + joins several, of which one
    at most merges and one downsamples in each layer. MODEL/NAME is such a preset of a model that was measured.

    [bold]Examples[/]

      bigain methods

      bigain methods lgtm
    """
    from bigain.methods import METHODS
    from bigain.methods.text import did_you_mean

    if name is not None and name not in METHODS:
        raise ValueError(f"name must be one of {', '.join(METHODS)}, not {name!r}{did_you_mean(name, METHODS)}")
    if name is None:
        _overview()
    else:
        _detail(name)


def _overview() -> None:
    from rich import box
    from rich.table import Table

    from bigain.methods import METHODS, preset_names
    from bigain.zoo.presets import names

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "class", "presets", "what it does"):
        table.add_column(heading, overflow="fold")
    for name, method in METHODS.items():
        presets = " ".join(preset for preset in preset_names() if preset.rpartition("-")[0] == name)
        table.add_row(name, method.__name__, presets, (method.__doc__ or "").strip().splitlines()[0])
    screen = options.console()
    screen.print(table)
    screen.print(f"[bold]Presets of models[/]: {' '.join(names())}", highlight=False, soft_wrap=True)
    screen.print("Fields of one method: bigain methods NAME", highlight=False)


def _detail(name: str) -> None:
    import inspect
    from dataclasses import fields

    from bigain.methods import METHODS

    method = METHODS[name]
    typer.echo(f"{name}: {method.__name__}\n")
    typer.echo(inspect.getdoc(method) or "")
    typer.echo("\nFields and defaults:")
    for field in fields(method):
        typer.echo(f"  {field.name} = {field.default!r}")
    for base in method.__mro__[1:-1]:
        typer.echo(f"\n{inspect.getdoc(base) or ''}")
