"""``bigain classify``: what a diffusion model sees in images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bigain.cli import options
from bigain.run.settings import ClassifierSettings, DataSettings, ModelSettings, setting

if TYPE_CHECKING:
    from bigain.classify import DiffusionClassifier, Prediction
    from bigain.diffusion import Denoiser

_CHUNK = 64  # images that are classified together
_SHOWN = 3  # classes of an image in the table; --json has all


@dataclass(frozen=True, kw_only=True)
class DiffusionClassifierSettings(ClassifierSettings):
    """Of the diffusion classifier, with its model and seed."""

    model: ModelSettings = field(default_factory=ModelSettings)
    seed: int = setting(0, "Of all randomness.")


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders whose images are taken in order.")],
    context: typer.Context,
    classifier: Annotated[DiffusionClassifierSettings, options.Without("threads")],
    data: Annotated[DataSettings, options.Without("data", "split", "classes")],
    methods: options.OneMethod = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Of a class, once per class; glyphs-sd reads it if no model is named."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file; - prints it, and no table.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Classifies images by the noise-prediction error of a diffusion model under each class.

    [bold]Examples[/]

      bigain classify letter.png

      bigain classify letters/ --elimination racing --fitted glyphs-dit

      bigain classify letters/ -p "red letter A" -p "blue letter B"

      bigain classify photos/ --model stabilityai/stable-diffusion-2-base -p "a photo of a cat." -p "a photo of a dog."
      -m lgtm-0.7

      bigain classify letters/ --json - | jq .
    """
    method = options.read_method(methods, "none")
    files = _files(images)
    named, model = context.get_parameter_source("model"), classifier.model
    if prompt and named is not None and named.name == "DEFAULT":
        model = replace(model, model="glyphs-sd")

    from bigain.data.prompts import PHOTO
    from bigain.run.cost import applied

    classifier.check_fit(model)
    denoiser = model.open()
    options.check_presets(methods, denoiser)
    names, conditions = _classes(denoiser, prompt, data.prompts_csv)
    tree = classifier.tree(names, PHOTO if data.prompts_csv else "{}")
    judge = classifier.of(denoiser, conditions, classifier.seed, model.batch_size, tree)
    denoiser.unload_encoders()
    with applied(denoiser, method):
        results = _classified(judge, files, data.bad_images, quiet)
    if not results:
        raise ValueError(f"IMAGES must hold at least one image that can be read; all {len(files)} were skipped")
    rows = [_row(file, result, names) for file, result in results]
    facts = {"model": model.model, "method": method.text, "seed": classifier.seed}
    content = json.dumps(facts | {"images": rows}, indent=1)
    if json_file is not None and str(json_file) == "-":
        typer.echo(content)
        return
    if json_file is not None:
        json_file.write_text(content + "\n", encoding="utf-8")
    _show(rows)


def _files(paths: list[Path]) -> list[Path]:
    """The files, and the images of the folders, of which each must have one."""
    from bigain.data import image_files

    files: list[Path] = []
    for path in paths:
        inside = image_files(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"the folder {path} must hold images, not none")
        if not path.exists():
            raise FileNotFoundError(f"IMAGES must be files or folders that exist, not {path}")
        files += inside
    return list(dict.fromkeys(files))


def _classes(
    denoiser: Denoiser, prompts: list[str] | None, prompts_csv: str | None
) -> tuple[tuple[str, ...], list[Any]]:
    """Names of the classes, and what the model is asked for each."""
    from bigain.data import read_prompts
    from bigain.diffusion import ClassConditional

    if isinstance(denoiser, ClassConditional):
        if prompts or prompts_csv is not None:
            raise ValueError("--prompt and --prompts-csv must be left out for a class-conditional model")
        return denoiser.names, list(range(denoiser.classes))
    if (prompts is None) == (prompts_csv is None):
        raise ValueError("either --prompt for each class or --prompts-csv must be given for a text-conditional model")
    if prompts_csv is not None:
        read = read_prompts(Path(prompts_csv))
        return read.classes, list(read.prompts)
    return tuple(prompts or ()), list(prompts or ())


def _classified(
    classifier: DiffusionClassifier, files: list[Path], bad_images: str, quiet: bool
) -> list[tuple[Path, Prediction]]:
    from bigain.progress import progress_bar

    results: list[tuple[Path, Prediction]] = []
    with progress_bar(len(files), not quiet, unit="image") as bar:
        for first in range(0, len(files), _CHUNK):
            chunk = files[first : first + _CHUNK]
            frames = classifier.denoiser.frames if classifier.denoiser.is_video else None
            images = {file: image for file in chunk if (image := _read(file, bad_images, frames)) is not None}
            if images:
                results += zip(images, classifier.predict(list(images.values())), strict=True)
            bar.update(len(chunk))
    return results


def _read(file: Path, bad_images: str, frames: int | None) -> Any:
    """Pixels of an image file, or frames of an animation; None where it cannot be read and is to be skipped."""
    from bigain.images import BadImageError, read_image
    from bigain.videos import read_video

    try:
        return read_image(file, str(file)) if frames is None else read_video(file, frames)
    except BadImageError as error:
        if bad_images == "raise":
            raise
        typer.secho(f"skipped: {error}", fg="yellow", err=True)
        return None


def _row(file: Path, result: Prediction, names: tuple[str, ...]) -> dict[str, Any]:
    """One image: classes best first, with probability, rounds survived and mean error of their best condition."""
    import numpy as np

    means = np.asarray(np.nanmean(result.errors, axis=1, dtype=np.float64))
    probabilities = result.probabilities()
    ranking = []
    for place in result.ranking:
        own = [condition for condition, group in enumerate(result.groups) if group == place]
        best = min(own, key=lambda condition: (-result.stage[condition], means[condition]))
        ranking.append(
            {
                "class": names[place],
                "probability": round(probabilities[place], 6),
                "stages": result.stage[best],
                "error": round(float(means[best]), 6),
            }
        )
    return {
        "image": str(file),
        "prediction": names[result.prediction],
        "probability": round(result.probability, 6),
        "margin": round(result.margin, 6),
        "forwards": result.forwards,
        "ranking": ranking,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    forwards = sum(row["forwards"] for row in rows) / len(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"{forwards:.1f} forwards per image")
    table.add_column("image", overflow="fold")
    table.add_column("prediction", style="bold")
    table.add_column("probability", justify="right")
    table.add_column("next")
    for row in rows:
        others = ", ".join(f"{place['class']} {place['probability']:.3f}" for place in row["ranking"][1:_SHOWN])
        table.add_row(row["image"], row["prediction"], f"{row['probability']:.3f}", others)
    options.console().print(table)
