"""``bigain generate``: images with and without compression, from the same noise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options


@options.reported
def generate(
    conditions: Annotated[
        list[str], typer.Argument(help="Prompts; or class names or labels, for class-conditional models.")
    ],
    model: options.Model = "glyphs-dit",
    methods: Annotated[
        list[str] | None,
        typer.Option("--methods", "-m", help="Presets or specs; none, no compression, is always there for comparison."),
    ] = None,
    preset: options.Preset = None,
    count: Annotated[int, typer.Option(min=1, help="Images per condition.")] = 4,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of METHOD/NUMBER-CONDITION.png and page.png; runs/generate/MODEL if left out."),
    ] = None,
    steps: options.Steps = 20,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    seed: options.Seed = 0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 32,
    quiet: options.Quiet = False,
) -> None:
    """Generates images; the noise of an image depends on the seed and its number alone.

    So the page shows, column by column, what each method makes of the same noise.

    [bold]Examples[/]

      bigain generate A B X --count 3 -m "lgtm-0.7 todo-2 iekvd:factor=2,alpha=0.8>1.2"

      bigain generate "an astronaut riding a horse" --model stabilityai/stable-diffusion-2-base --steps 50
      --dtype bfloat16 -m lgtm-0.5
    """
    from bigain.backbones import resolve
    from bigain.generate import USUAL_GUIDANCE, Sampling, sample
    from bigain.methods import parse, spec
    from bigain.report.labels import label
    from bigain.report.pictures import draw_samples
    from bigain.run.cost import applied
    from bigain.run.engine import encode_png
    from bigain.run.export import write_whole
    from bigain.run.settings import split_specs
    from bigain.zoo.presets import text_of

    texts = [*split_specs(methods or []), *([] if preset is None else [options.spec_of(preset, model)])]
    specs = list(dict.fromkeys(["none", *(spec(parse(text_of(text))) for text in texts)]))
    denoiser = options.open_denoiser(model, dtype, device, variant, threads, quiet)
    for text in texts:
        resolve(text, denoiser.model)  # refuses a preset of another model
    guidance = USUAL_GUIDANCE[denoiser.kind] if guidance is None else guidance
    sampling = Sampling(steps, guidance, sampler, seed, batch_size)
    asked: list[str] | list[int] = conditions
    if denoiser.kind == "class":
        names = options.class_names(denoiser, model)
        asked = [options.label_of(text, names) for text in conditions]
    encoded = denoiser.conditions(asked)
    index = [position for position in range(len(conditions)) for _ in range(count)]
    out = options.folder(out, "generate", model)
    rows = []
    for name in specs:
        with applied(denoiser, name):
            images = list(sample(denoiser, encoded, index, range(len(index)), sampling, progress=not quiet))
        folder = out / _file_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        for number, (place, image) in enumerate(zip(index, images, strict=True)):
            write_whole(folder / f"{number:04d}-{_file_name(conditions[place])}.png", encode_png(image))
        rows.append((str(label(name)), images))
    headings = [conditions[place] for place in index]
    draw_samples(rows, headings, out / "page.png", "Each column starts from the same noise")
    typer.echo(f"{len(index)} images of each of {len(specs)} methods, and page.png, in {out}")


def _file_name(text: str, longest: int = 60) -> str:
    """A condition or spec as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.=,+-]+", "_", text)[:longest].strip("._") or "image"
