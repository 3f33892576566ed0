"""``bigain analyse``: why a method loses what it loses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings

_PROBE = ProbeSettings(images=32, timesteps=8, seed=0)


def analyse(
    model: Annotated[ModelSettings, options.Without("variant", "threads")],
    data: Annotated[DataSettings, options.Without("classes", "prompts_csv", "bad_images")],
    methods: options.Methods = None,
    probe: Annotated[ProbeSettings, options.Without("loss", "spacing")] = _PROBE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs/analyse/MODEL if left out. An analysis that is there goes on where it was stopped."
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Says why a method loses accuracy: what its layers still see, what each costs, and at which timesteps.

    Each method is compressed in all of its layers and in each alone, and every class is evaluated at every timestep:
    (layers + 2) x images x timesteps x (prompts + 1) forwards for one method, the prompts being those of all classes.
    Embedded data's validation split is taken where none is named, so that the test split stays unseen.

    OUT/analysis.json holds all numbers, analysis.md the tables; spectrum-1.png shows the power kept by layer and
    frequency, layers.png the cost of each layer, timesteps.png accuracy and gap over t.

    [bold]Examples[/]

      bigain analyse -m lgtm-0.5

      bigain analyse -m "lgtm-0.7 abm-0.7 iekvd-2" --images 100 --out runs/why

      bigain analyse -m lgtm-0.7 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    from rich.table import Table

    chosen = options.read_methods(methods)

    from bigain.explain.analysis import analyse as measure
    from bigain.report.explain import analysis_tables, write_analysis
    from bigain.report.style import label
    from bigain.run.probe import Probe

    out = options.folder(out, "analyse", model.model)
    path = out / "analysis.json"
    denoiser = model.open()
    options.check_presets(methods, denoiser, data.data)
    images = Probe.of(model, data.unseen(), probe, denoiser)
    analysis = measure(images, chosen, path, progress=not quiet)
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
