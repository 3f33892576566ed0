"""``bigain inspect``: which tokens merge in one forward, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options
from bigain.run.settings import DataSettings, ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.diffusion import Denoiser


def inspect(
    model: Annotated[ModelSettings, options.Without("variant", "threads", "batch_size")],
    data: Annotated[DataSettings, options.Without("split", "classes", "prompts_csv", "bad_images")],
    methods: options.OneMethod = None,
    image: Annotated[
        str, typer.Option("--image", "-i", help="An image file, or the number of an image in --data.")
    ] = "0",
    timestep: Annotated[int, typer.Option("--timestep", "-t", min=0, help="How much noise; 0 is the least.")] = 300,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Transformer block; the first in which the method acts if left out.")
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Class or prompt that the model is asked with. If left out the image's own class (for text models the "
            "first prompt that --data has for it); where that is not known label 0, or the empty prompt."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("inspect.png"),
) -> None:
    """Draws the score map of an image and which of its tokens merge, at one timestep and layer.

    Four panels: the image, the image as the model sees it, the score of each token, and the groups. Merged tokens
    carry the colour of their group, a line leads to its destination, and a dot marks the destination. The method is
    lgtm-0.5 if left out.

    [bold]Examples[/]

      bigain inspect -m lgtm-0.5 -t 300

      bigain inspect -m tome:ratio=0.7,destinations=random -i letter.png --layer 3 --condition A --out tome.png
    """
    method = options.read_method(methods, "lgtm-0.5")

    from bigain.explain.inspection import inspect_method
    from bigain.report.explain import draw_inspection

    denoiser = model.open()
    options.check_presets(methods, denoiser, data.data)
    pixels, name, own = _image(denoiser, image, data)
    asked: str | int = denoiser.any_condition if own is None else own
    if condition is not None:
        asked = condition if denoiser.kind == "text" else options.label_of(condition, denoiser)  # type: ignore[arg-type]
    inspection = inspect_method(denoiser, method, pixels, name, timestep=timestep, condition=asked, layer=layer)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_inspection(inspection, out)
    made = inspection.grouping
    where = f"t = {timestep}, {made.layer_name}"
    typer.echo(f"{out}: {name}, {where}, {made.grid.tokens} tokens in {len(made.kept)} groups")


def _image(denoiser: Denoiser, image: str, source: DataSettings) -> tuple[Tensor, str, str | int | None]:
    """The image in [-1, 1], its id, and what the model is asked for its class, if that is known."""
    from bigain.data import preprocess, read_image
    from bigain.run.files import class_conditions

    if not image.isdigit():
        return preprocess(read_image(Path(image), image), denoiser.image_size), image, None
    data = source.load(denoiser)
    if int(image) >= len(data):
        raise ValueError(f"image must be a file or a number below {len(data)}, not {image}")
    item = data[int(image)]
    conditions = class_conditions(denoiser, data)
    own = conditions[item.labels[0]][0] if item.labels and conditions else None
    return preprocess(item.image, denoiser.image_size), item.id, own
