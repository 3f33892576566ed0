"""``bigain evaluate``: the joint run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options
from bigain.cli.options import SAMPLING

if TYPE_CHECKING:
    from bigain.diffusion import Denoiser


@options.reported
def evaluate(
    model: options.Model = "glyphs-dit",
    data: options.Data = "glyphs",
    methods: options.Methods = None,
    preset: options.Preset = None,
    preset_grid: Annotated[
        str | None,
        typer.Option(
            help="demo: every published method once, minutes on 2 CPU cores. published: each at three strengths, "
            "hours. full: with variants and α swept, hours. demo is taken where none of this, --methods and --preset "
            "is given.",
            rich_help_panel=options.MEASURED,
        ),
    ] = None,
    equal_flops: Annotated[
        list[str] | None,
        typer.Option(
            help="Presets or specs, as --methods takes them. Each method is given the least ratio or factor at which "
            "it takes no more FLOPs than these, instead of its own, and they are compared too.",
            rich_help_panel=options.MEASURED,
        ),
    ] = None,
    classify: Annotated[
        int | None, typer.Option(min=0, help="Images to classify per method.", rich_help_panel=options.MEASURED)
    ] = None,
    generate: Annotated[
        int | None, typer.Option(min=0, help="Images to generate per method.", rich_help_panel=options.MEASURED)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; runs/evaluate/MODEL if left out. A run that is there goes on where it was "
            "stopped."
        ),
    ] = None,
    split: options.Split = None,
    classes: options.Classes = None,
    prompts_csv: options.PromptsCsv = None,
    bad_images: options.BadImages = "raise",
    to_keep: Annotated[
        str | None,
        typer.Option(help="Classes kept after each stage, such as '5 1'.", rich_help_panel=options.CLASSIFIER),
    ] = None,
    n_samples: Annotated[
        str | None,
        typer.Option(help="Timesteps evaluated up to each stage, such as '5 20'.", rich_help_panel=options.CLASSIFIER),
    ] = None,
    loss: options.Loss = "l2",
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler.", rich_help_panel=SAMPLING)] = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    features: options.Features = "auto",
    seed: options.Seed = 0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 64,
    timing_rounds: Annotated[
        int | None, typer.Option(min=0, help="Timed forwards per method; 0 for none.", rich_help_panel=options.MEASURED)
    ] = None,
    timing_batch: Annotated[
        int | None, typer.Option(min=1, help="Images of a timed forward.", rich_help_panel=options.MEASURED)
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: do the I-th of N shares of the images (1/2, 2/2 …), as one of N processes with the same --out; "
            "then run once without, which times and writes the tables.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Compares methods: accuracy, FID, fidelity, FLOPs and time, on the same images and noise.

    No compression always comes first: the others are compared with it, image by image. Everything goes at once into
    OUT/results.sqlite, so a run that was stopped goes on, and methods or images can be added to one that is done.
    Beside it: results.json and results.csv (which repeat on one machine), results.timings.json, table.md, front.png
    and samples.png.

    [bold]Examples[/]

      bigain evaluate

      bigain evaluate --model glyphs-sd

      bigain evaluate -m "lgtm-0.7 tome:ratio=0.7,destinations=random iekvd-2" --classify 500 --generate 1000

      bigain evaluate -m "tome:cell=4x4,queries=full lgtm:cell=4x4" --equal-flops "iekvd-2 iekvd-3"

      bigain evaluate --preset-grid full --out runs/full

      bigain evaluate --preset-grid full --out runs/full --device cuda:1 --shard 2/4

      bigain evaluate --model stabilityai/stable-diffusion-2-base --data imagenet:/data/imagenet --classify 2000
      --generate 0 --dtype bfloat16 -m tome-0.7 -m lgtm-0.7
    """
    from bigain.report.folder import write_folder
    from bigain.report.table import terminal
    from bigain.run.engine import run
    from bigain.run.settings import GRIDS, SIZES, Settings, split_specs
    from bigain.run.store import Store

    if preset_grid is not None and preset_grid not in GRIDS:
        raise ValueError(f"--preset-grid must be one of {', '.join(GRIDS)}, not {preset_grid!r}")
    grid = preset_grid or (None if methods or preset else "demo")
    size = SIZES[grid or "default"]
    if equal_flops and grid is not None:
        raise ValueError("--equal-flops takes the methods of --methods and --preset, not a grid: give those")
    options.use_threads(threads)
    settings = Settings(
        model=model,
        variant=variant,
        data=data,
        split=split,
        classes=None if classes is None else str(classes),
        prompts_csv=None if prompts_csv is None else str(prompts_csv),
        methods=(
            *(GRIDS[grid] if grid else ()),
            *split_specs(methods or []),
            *([] if preset is None else [options.spec_of(preset, model)]),
        ),
        classify=size.classify if classify is None else classify,
        generate=size.generate if generate is None else generate,
        to_keep=size.to_keep if to_keep is None else options.whole_numbers("--to-keep", to_keep),
        n_samples=size.n_samples if n_samples is None else options.whole_numbers("--n-samples", n_samples),
        loss=loss,
        sampler=sampler,
        steps=size.steps if steps is None else steps,
        guidance=guidance,
        seed=seed,
        dtype=dtype,
        features=features,
        batch_size=batch_size,
        device=device or options.default_device(),
        on_bad_image=bad_images,  # type: ignore[arg-type]
        timing_rounds=size.timing_rounds if timing_rounds is None else timing_rounds,
        timing_batch=size.timing_batch if timing_batch is None else timing_batch,
        shard=(0, 1) if shard is None else options.share("--shard", shard),
    )
    denoiser = None
    if equal_flops:
        denoiser = options.open_denoiser(model, dtype, device, variant, threads)
        compared = _at_equal_flops(denoiser, settings.methods, split_specs(equal_flops))
        settings = replace(settings, methods=compared)
    out = options.folder(out, "evaluate", model)
    path = out / "results.sqlite"
    run(settings, path, progress=not quiet, denoiser=denoiser)
    if settings.shard != (0, 1):
        options.console().print(f"Share {shard} of {path} is done; once all are, run again without --shard.")
        return
    with Store(path) as store:
        results, times = write_folder(store, out)
    screen = options.console()
    screen.print(terminal(results, times, screen.width))
    stems = ("results", "results.timings", "table", "front", "samples")
    written = sorted(file.name for file in out.iterdir() if file.stem in stems)
    screen.print(f"In {out}: {', '.join(written)}", highlight=False)


def _at_equal_flops(denoiser: Denoiser, methods: tuple[str, ...], references: tuple[str, ...]) -> tuple[str, ...]:
    """The references, each followed by the methods at its FLOPs."""
    from bigain.search.equal_flops import at_equal_flops

    found = at_equal_flops(denoiser, [method for method in methods if method != "none"], references)
    for reference, several in found.items():
        options.console().print(f"At the FLOPs of {reference}: {' '.join(several)}", highlight=False)
    return tuple(text for reference, several in found.items() for text in (reference, *several))
