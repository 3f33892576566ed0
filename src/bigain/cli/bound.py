"""``bigain bound``: how much faster fewer tokens can make a model at most."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.zoo.published import Configuration

MODEL_HELP = (
    "A published model (FLUX.1-dev, Wan2.1-14B, …), an embedded one, a folder of a pipeline or of a transformer or "
    "unet, or a config.json."
)
SIZE_HELP = "Width x height in pixels, or several: '512x512 1024x1024'. What the model is made for if left out."


def bound(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Of a video; as many as usual if left out.")] = None,
    text: Annotated[
        int | None, typer.Option(min=1, help="Tokens of text; as many as its pipeline gives if left out.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the bounds into this PNG file.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file; - prints it, and no table.")
    ] = None,
) -> None:
    """Tells how much faster a forward can become at most, from a model's config alone: no weights, no GPU, no forward.

    FLOPs before and after are compared, of a forward of one sample. Softmax, norms and the matching of tokens are left
    out, so a clock shows less.

    [bold]Examples[/]

      bigain bound FLUX.1-dev

      bigain bound Wan2.1-14B --size 1280x720 --frames 81 --picture bound.png

      bigain bound my-pipeline/ --size "512x512 1024x1024" --json -
    """
    described = configuration(model)
    asked = sizes(size) if size is not None else ()

    from bigain.backbones.bound import at_sizes
    from bigain.report.bound import content, draw, terminal

    bounds = at_sizes(described, asked, frames=frames, text=text)

    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(bounds, picture)
    written = json.dumps(content(bounds), indent=1)
    if json_file is not None and str(json_file) == "-":
        typer.echo(written)
        return
    if json_file is not None:
        json_file.write_text(written + "\n", encoding="utf-8")
    options.console().print(terminal(bounds))


def configuration(model: str) -> Configuration:
    """By name, or by the path of a folder or a file."""
    from bigain import zoo
    from bigain.methods.text import did_you_mean
    from bigain.zoo import published

    if model.lower() in map(str.lower, published.names()):
        return published.published(model)
    if model in zoo.names():
        return replace(published.of_folder(zoo.path(model)), name=model)
    if not Path(model).exists():
        names = published.names()
        raise ValueError(
            f"MODEL must be one of {', '.join(names)}, an embedded model "
            f"({', '.join(zoo.denoisers())}), a folder or a config.json, not {model!r}{did_you_mean(model, names)}"
        )
    return published.of_folder(Path(model))


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Reads '512x512 1024x1024', with spaces or commas between."""
    words = re.split(r"[\s,]+", text.strip())
    matches = [re.fullmatch(r"(\d+)[x×](\d+)", word) for word in words]
    if not all(matches):
        raise ValueError(f"size must be width x height in pixels, such as 1024x1024, not {text!r}")
    return tuple((int(match[1]), int(match[2])) for match in matches if match is not None)
