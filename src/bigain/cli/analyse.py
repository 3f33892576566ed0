"""``bigain analyse``: why a method loses what it loses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options


@options.reported
def analyse(
    methods: options.Methods = None,
    preset: options.SinglePreset = None,
    model: options.Model = "glyphs-dit",
    data: options.Data = "glyphs",
    split: options.UnseenSplit = None,
    images: Annotated[
        int, typer.Option(min=2, help="The first that have a label.", rich_help_panel=options.MEASURED)
    ] = 32,
    timesteps: Annotated[int, typer.Option(min=1, help="Evenly spaced.", rich_help_panel=options.MEASURED)] = 8,
    bands: Annotated[int, typer.Option(min=1, help="Of radial frequency.", rich_help_panel=options.MEASURED)] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs/analyse/MODEL if left out. An analysis that is there goes on where it was stopped."
        ),
    ] = None,
    classes: options.Classes = None,
    prompts_csv: options.PromptsCsv = None,
    bad_images: options.BadImages = "raise",
    loss: options.Loss = "l2",
    seed: options.Seed = 0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 64,
    quiet: options.Quiet = False,
) -> None:
    """Says why a method loses accuracy: what its layers still see, what each costs, and at which timesteps.

    Each method is compressed in all of its layers and in each alone, and every class is evaluated at every timestep:
    (layers + 2) x images x timesteps x (prompts + 1) forwards for one method, the prompts being those of all classes.

    OUT/analysis.json holds all numbers, analysis.md the tables; spectrum-1.png shows the power kept by layer and
    frequency, layers.png the cost of each layer, timesteps.png accuracy and gap over t.

    [bold]Examples[/]

      bigain analyse -m lgtm-0.5

      bigain analyse -m "lgtm-0.7 abm-0.7 iekvd-2" --images 100 --out runs/why

      bigain analyse -m lgtm-0.7 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    from rich.table import Table

    from bigain.explain.analysis import analyse as measure
    from bigain.report.analysis import analysis_tables, write_analysis
    from bigain.report.labels import label
    from bigain.run.settings import Settings, split_specs

    options.use_threads(threads)
    settings = Settings(
        model=model,
        variant=variant,
        data=data,
        split=split,
        classes=None if classes is None else str(classes),
        prompts_csv=None if prompts_csv is None else str(prompts_csv),
        methods=(*split_specs(methods or []), *([] if preset is None else [options.spec_of(preset, model)])),
        classify=images,
        generate=0,
        loss=loss,
        seed=seed,
        dtype=dtype,
        features="none",
        batch_size=batch_size,
        device=device or options.default_device(),
        on_bad_image=bad_images,  # type: ignore[arg-type]
    )
    if split is None and settings.is_embedded:
        settings = settings.with_split("validation")
    out = options.folder(out, "analyse", model)
    path = out / "analysis.json"
    analysis = measure(settings, path, timesteps=timesteps, bands=bands, progress=not quiet)
    written = write_analysis(analysis, out)
    screen = options.console()
    for method in analysis.methods:
        screen.print(str(label(method)), style="bold", highlight=False)
        for text in analysis_tables(analysis, method):
            table = Table(*text.headings, title=text.title, title_justify="left")
            for row in text.rows:
                table.add_row(*row)
            screen.print(table)
    screen.print(f"In {out}: {', '.join((path.name, *written))}", highlight=False)
