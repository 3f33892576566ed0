"""``bigain fid``: how far the images of one folder lie from those of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.metrics.features import FeatureNetwork, Features
    from bigain.metrics.statistics import Statistics

_BATCH = 64

_Set = Annotated[Path, typer.Argument(help="A folder of images, its folders included, or a file by --keep.")]


def fid(
    real: _Set,
    generated: _Set,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Short side to so many pixels, then centre crop, as evaluate does; none if left out."),
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Also write the statistics of REAL to this file.")] = None,
    device: Annotated[str, typer.Option(help="As PyTorch names it.")] = "cpu",
    quiet: options.Quiet = False,
) -> None:
    """The Frechet Inception distance between two folders of images, by torchmetrics; lower is more alike.

    Values compare only at the same network, reference, crop and counts. With no more images than features, 2,048 of
    Inception's, it is biased upwards.

    [bold]Examples[/]

      bigain fid data/val2017 runs/generate/mine --size 256 --keep coco-256.safetensors

      bigain fid coco-256.safetensors runs/generate/other --size 256
    """
    for path in (real, generated):
        if not path.exists():
            raise FileNotFoundError(f"REAL and GENERATED must exist, not be missing: {path}")
    if keep is not None and real.is_file():
        raise ValueError(f"keep must be left out where the statistics are kept already, in {real}")

    import torch

    from bigain.metrics.features import InceptionFeatures
    from bigain.metrics.statistics import Statistics

    network = InceptionFeatures(torch.device(device))
    one, other = (
        Statistics.read(path) if path.is_file() else _of_folder(path, size, network, quiet)
        for path in (real, generated)
    )
    if keep is not None:
        one.write(keep)
    typer.echo(f"FID {one.fid(other):.4f}: {other.count} images to {one.count}, features of {one.network}")


def _of_folder(folder: Path, size: int | None, network: FeatureNetwork, quiet: bool) -> Statistics:
    from bigain.images import image_files
    from bigain.metrics.statistics import Statistics
    from bigain.progress import progress_bar

    folders = [folder, *sorted(inside for inside in folder.rglob("*") if inside.is_dir())]
    files = [file for inside in folders for file in image_files(inside)]
    if not files:
        raise ValueError(f"{folder} must hold images, not none")
    name = f"{network.name}, {f'cropped to {size} pixels' if size else 'images as they are'}"
    with progress_bar(len(files), not quiet, unit="image", desc=folder.name) as bar:
        return Statistics.of(name, _features(files, size, network, bar))


def _features(files: list[Path], size: int | None, network: FeatureNetwork, bar: Any) -> Iterator[Features]:
    import numpy as np

    from bigain.images import preprocess, read_image, to_uint8

    for first in range(0, len(files), _BATCH):
        images = [read_image(file, str(file)) for file in files[first : first + _BATCH]]
        if size is not None:
            images = [to_uint8(preprocess(image, size)[None])[0] for image in images]
        shapes = sorted({image.shape for image in images})
        if len(shapes) > 1:
            raise ValueError(f"size must be given for images of different sizes, such as {shapes[0]} and {shapes[1]}")
        yield network.features(np.stack(images))
        bar.update(len(images))
