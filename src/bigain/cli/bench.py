"""``bigain bench``: how fast methods are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options
from bigain.cli.bound import MODEL_HELP, SIZE_HELP, configuration, sizes
from bigain.run.settings import BenchSettings, ModelSettings

USUAL = ("tome:ratio=0.5,destinations=random", "lgtm-0.5", "abm-0.5", "quadtree-0.5", "avgpool-2", "iekvd-2")
"""The methods that are timed if no others are given."""
_FEW_ROWS = ModelSettings(batch_size=2)


def bench(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    methods: options.Methods = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    settings: Annotated[ModelSettings, options.Without("model", "variant", "image_size")] = _FEW_ROWS,
    how: BenchSettings = BenchSettings(),  # noqa: B008
    picture: Annotated[Path | None, typer.Option(help="Also draw time against size into this PNG file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Times methods on this machine, in a model with random weights: speed does not depend on what a model knows.

    Every round visits each method in turn, beside no compression and beside its zero-cost bound: the same forward with
    nothing scored or matched, and tokens sliced where they would be merged or pooled. "of that" is the share of this
    bound that is reached. tomesd is timed beside ToMe in U-Nets where it is installed. Parts are of a forward under a
    profiler, and memory is what a forward allocates at most.

    [bold]Examples[/]

      bigain bench SD-2.1 --size "512x512 768x768"

      bigain bench Wan2.1-1.3B --size 480x480 --frames 17 -m "avgpool-2 iekvd-2" --batch-size 1 --dtype bfloat16

      bigain bench glyphs-dit-64 -m "iekvd-2 lgtm-0.5" --compile --json bench.json --picture bench.png
    """
    given = options.read_methods(methods, USUAL)
    described = configuration(model)
    asked = sizes(size) if size is not None else (None,)

    import torch

    from bigain.report.bench import caption, draw, terminal, write
    from bigain.run.bench import about, bench

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    where = about(settings, how)
    rows = []
    for each in asked:
        rows += bench(described, each, given, settings, how, progress=not quiet)
        if json_file is not None:
            write(json_file, described.name, where, rows)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(rows, described.name, picture)
    screen = options.console()
    for table in terminal(rows, described.name):
        screen.print(table)
    screen.print(caption({"model": described.name, "environment": where}), highlight=False)
