"""``bigain generate``: images with and without compression, from the same noise."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options
from bigain.methods import Compression
from bigain.run.settings import ModelSettings, SamplingSettings


def generate(
    conditions: Annotated[
        list[str], typer.Argument(help="Prompts; or class names or labels, for class-conditional models.")
    ],
    model: Annotated[ModelSettings, options.Without("threads")],
    sampling: SamplingSettings,
    methods: options.Methods = None,
    count: Annotated[int, typer.Option(min=1, help="Images per condition.")] = 4,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of METHOD/NUMBER-CONDITION.png and page.png (videos: .webp); runs/generate/MODEL if left out."
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Generates images; the noise of an image depends on the seed and its number alone.

    So the page shows, column by column, what each method makes of the same noise. No compression always comes first.

    [bold]Examples[/]

      bigain generate A B X --count 3 -m "lgtm-0.7 todo-2 iekvd:factor=2,alpha=0.8>1.2"

      bigain generate "an astronaut riding a horse" --model stabilityai/stable-diffusion-2-base --steps 50
      --dtype bfloat16 -m lgtm-0.5

      bigain generate "a video of a red letter K moving down" --model glyphs-video -m glyphs-video/balanced
      --dtype bfloat16
    """
    chosen = dict.fromkeys([Compression(), *options.read_methods(methods)])

    from bigain.diffusion import ClassConditional
    from bigain.generate import sample
    from bigain.report.pictures import draw_samples
    from bigain.report.style import label
    from bigain.run.cost import applied
    from bigain.run.files import encode_png, write_whole
    from bigain.videos import encode_video

    denoiser = model.open()
    options.check_presets(methods, denoiser)
    asked: list[str] | list[int] = conditions
    if isinstance(denoiser, ClassConditional):
        asked = [options.label_of(text, denoiser) for text in conditions]
    encoded = denoiser.conditions(asked)
    how = sampling.of(denoiser, seed, model.batch_size)
    index = [position for position in range(len(conditions)) for _ in range(count)]
    out = options.folder(out, "generate", model.model)
    rows = []
    for method in chosen:
        with applied(denoiser, method):
            images = list(sample(denoiser, encoded, index, range(len(index)), how, progress=not quiet))
        folder = out / _file_name(method.text)
        folder.mkdir(parents=True, exist_ok=True)
        encode, suffix = (encode_video, "webp") if denoiser.is_video else (encode_png, "png")
        for number, (place, image) in enumerate(zip(index, images, strict=True)):
            write_whole(folder / f"{number:04d}-{_file_name(conditions[place])}.{suffix}", encode(image))
        rows.append((str(label(method)), images if denoiser.is_video else [image[None] for image in images]))
    headings = [conditions[place] for place in index]
    page = draw_samples(rows, headings, out / "page", "Each column starts from the same noise")
    what = "videos" if denoiser.is_video else "images"
    typer.echo(f"{len(index)} {what} of each of {len(chosen)} methods, and {page.name}, in {out}")


def _file_name(text: str, longest: int = 60) -> str:
    """A condition or spec as part of a file name; what is too long ends in a checksum, which tells it from others."""
    name = re.sub(r"[^A-Za-z0-9.=,+-]+", "_", text).strip("._") or "image"
    return name if len(name) <= longest else f"{name[: longest - 9]}-{zlib.crc32(text.encode()):08x}"
