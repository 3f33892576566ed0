"""``bigain evaluate``: the joint run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options
from bigain.cli.command import command_line
from bigain.run.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bigain.diffusion import Denoiser
    from bigain.methods import Compression

_PRESET_HELP = (
    "Methods besides: quality, balanced or fast, where they were measured for the model, or a preset file (.json), "
    "such as bigain allocate writes."
)
_EQUAL_FLOPS_HELP = (
    "Methods, as --methods takes them. They are compared too, and with each of them every method of --methods, its "
    "ratio or factor the least at which it takes no more FLOPs."
)
_CONFIG_HELP = (
    "demo, or a TOML file whose keys are the names of these flags, with underscores; flags that are given win. demo is "
    "taken where none of this, --methods and --preset is given."
)
_OUT_HELP = "Folder of the results; runs/evaluate/MODEL if left out. A run that is there goes on where it was stopped."


def evaluate(
    ctx: typer.Context,
    settings: Settings,
    preset: Annotated[list[str] | None, typer.Option(help=_PRESET_HELP)] = None,
    equal_flops: Annotated[list[str] | None, typer.Option(help=_EQUAL_FLOPS_HELP)] = None,
    config: Annotated[str | None, typer.Option(help=_CONFIG_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help=_OUT_HELP)] = None,
    quiet: options.Quiet = False,
) -> None:
    """Compares methods: accuracy, FID, fidelity, FLOPs and time, on the same images and noise.

    No compression always comes first: the others are compared with it, image by image. Everything goes at once into
    OUT/results.sqlite, so a run that was stopped goes on, and methods or images can be added to one that is done.
    Beside it: results.json and results.csv (which repeat on one machine), results.timings.json, table.md, front.png
    and samples.png (.webp for videos).

    [bold]Examples[/]

      bigain evaluate

      bigain evaluate --model glyphs-sd --preset balanced --config demo

      bigain evaluate -m "lgtm-0.7 tome:ratio=0.7,destinations=random iekvd-2" --classify 500 --generate 1000

      bigain evaluate -m "tome:cell=4x4,queries=full lgtm:cell=4x4" --equal-flops "iekvd-2 iekvd-3"

      bigain evaluate --config my.toml --out runs/mine --engine ray

      bigain evaluate --model stabilityai/stable-diffusion-2-base --data imagenet:/data/imagenet --classify 2000
      --generate 0 --dtype bfloat16 -m tome-0.7 -m lgtm-0.7
    """
    from bigain.report.pictures import write_folder
    from bigain.report.table import terminal
    from bigain.run.engine import run
    from bigain.run.store import Store

    presets = [options.preset_of(name, settings.model.model) for name in preset or ()]
    settings = replace(settings, methods=(*settings.methods, *presets), command=command_line(ctx))
    references = () if equal_flops is None else options.method_texts(equal_flops, "equal_flops")
    denoiser = settings.model.open()
    if references:
        singles = options.read_methods(ctx.params["methods"], settings.methods)
        settings = replace(settings, methods=(*settings.methods, *_at_equal_flops(denoiser, singles, references)))
    out = options.folder(out, "evaluate", settings.model.model)
    path = out / "results.sqlite"
    run(settings, path, progress=not quiet, denoiser=denoiser)
    screen = options.console()
    with Store(path) as store:
        results, times = write_folder(store, out)
    screen.print(terminal(results, times, screen.width))
    stems = ("results", "results.timings", "table", "front", "samples", "confusion", "reliability")
    written = sorted(file.name for file in out.iterdir() if file.stem in stems)
    screen.print(f"In {out}: {', '.join(written)}", highlight=False)


def _at_equal_flops(denoiser: Denoiser, methods: Iterable[Compression], references: Sequence[str]) -> list[str]:
    """The references, each followed by the methods at its FLOPs; methods that differ in strength alone are one."""
    from bigain.search.equal_flops import at_equal_flops

    kinds = {re.sub(r"\b(ratio|factor)=[^,+]*,?", "", one.text): one.text for one in methods if one}
    compared = at_equal_flops(denoiser, list(kinds.values()), references)
    for reference, specs_at in compared.items():
        options.console().print(f"At the FLOPs of {reference}: {' '.join(specs_at)}", highlight=False)
    return [text for reference, specs_at in compared.items() for text in (reference, *specs_at)]
