"""``bigain classify``: what a diffusion model sees in images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bigain.cli import options
from bigain.run.settings import ClassifierSettings, DataSettings, ModelSettings

if TYPE_CHECKING:
    from bigain.classify import Classification
    from bigain.diffusion import Denoiser

_CHUNK = 8  # images that are classified together
_SHOWN = 3  # classes of an image in the table; --json has all


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders whose images are taken in order.")],
    model: Annotated[ModelSettings, options.Without("threads")],
    classifier: ClassifierSettings,
    data: Annotated[DataSettings, options.Without("data", "split", "classes")],
    methods: options.Method1 = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Prompt of a class, once per class (text-conditional models)."),
    ] = None,
    seed: options.Seed = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file; - prints it, and no table.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Classifies images by the noise-prediction error of a diffusion model under each class.

    [bold]Examples[/]

      bigain classify letter.png

      bigain classify photos/ --model stabilityai/stable-diffusion-2-base -p "a photo of a cat." -p "a photo of a dog."
      -m lgtm-0.7

      bigain classify letters/ --json - | jq .
    """
    method = options.read_method(methods, "none")
    files = _files(images)

    from bigain.classify import DiffusionClassifier
    from bigain.run.cost import applied

    denoiser = model.open()
    options.check_presets(methods, denoiser)
    names, conditions = _classes(denoiser, model.model, prompt, data.prompts_csv)
    judge = DiffusionClassifier(
        denoiser,
        conditions,
        to_keep=classifier.to_keep,
        n_samples=classifier.n_samples,
        loss=classifier.loss,
        batch_size=model.batch_size,
        seed=seed,
    )
    with applied(denoiser, method):
        results = _classified(judge, files, data.bad_images, quiet)
    rows = [_row(one, names, judge.groups) for one in results]
    content = json.dumps({"model": model.model, "method": method, "seed": seed, "images": rows}, indent=1)
    if json_file is not None and str(json_file) == "-":
        typer.echo(content)
        return
    if json_file is not None:
        json_file.write_text(content + "\n", encoding="utf-8")
    _show(rows, judge.forwards)


def _files(paths: list[Path]) -> list[Path]:
    """Files as they are, and the images of folders.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder has no image.
    """
    from bigain.data import image_files

    found: list[Path] = []
    for path in paths:
        inside = image_files(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"the folder {path} has no image")
        if not path.exists():
            raise FileNotFoundError(f"there is no image {path}")
        found += inside
    return list(dict.fromkeys(found))


def _classes(
    denoiser: Denoiser, model: str, prompts: list[str] | None, prompts_csv: str | None
) -> tuple[tuple[str, ...], list[Any]]:
    """Names of the classes, and what the model is asked for each."""
    from bigain.data import read_prompts

    if denoiser.kind == "class":
        if prompts or prompts_csv is not None:
            raise ValueError("this model is class-conditional: it takes neither --prompt nor --prompts-csv")
        names = options.class_names(denoiser, model)
        return names, list(range(len(names)))
    if (prompts is None) == (prompts_csv is None):
        raise ValueError("this model is text-conditional: give either --prompt for each class or --prompts-csv")
    if prompts_csv is not None:
        read = read_prompts(Path(prompts_csv))
        return read.classes, list(read.prompts)
    return tuple(prompts or ()), list(prompts or ())


def _classified(classifier: Any, files: list[Path], bad_images: str, quiet: bool) -> list[Classification]:
    import torch
    from tqdm.auto import tqdm

    from bigain.data import BadImageError, preprocess, read_image

    found: list[Classification] = []
    with tqdm(total=len(files), disable=quiet, unit="image") as bar:
        for first in range(0, len(files), _CHUNK):
            ids, images = [], []
            for file in files[first : first + _CHUNK]:
                try:
                    images.append(preprocess(read_image(file, str(file)), classifier.denoiser.image_size))
                    ids.append(str(file))
                except BadImageError as error:
                    if bad_images == "raise":
                        raise
                    typer.secho(f"skipped: {error}", fg="yellow", err=True)
            if images:
                found += classifier.classify(torch.stack(images), ids)
            bar.update(len(files[first : first + _CHUNK]))
    return found


def _row(found: Classification, names: tuple[str, ...], groups: tuple[int, ...]) -> dict[str, Any]:
    """One image: classes best first, with the stages survived and the mean error of their best condition."""
    import numpy as np

    means = np.asarray(np.nanmean(found.errors, axis=1, dtype=np.float64))
    ranking = []
    for place in found.ranking:
        own = [condition for condition, group in enumerate(groups) if group == place]
        best = min(own, key=lambda condition: (-found.stage[condition], means[condition]))
        ranking.append({"class": names[place], "stages": found.stage[best], "error": round(float(means[best]), 6)})
    return {"image": found.id, "prediction": names[found.prediction], "ranking": ranking}


def _show(rows: list[dict[str, Any]], forwards: int) -> None:
    from rich import box
    from rich.table import Table

    caption = f"{forwards} forwards per image; in brackets: mean error"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
    table.add_column("image", overflow="fold")
    table.add_column("prediction", style="bold")
    table.add_column("ranking")
    for row in rows:
        best = ", ".join(f"{place['class']} ({place['error']:.5f})" for place in row["ranking"][:_SHOWN])
        table.add_row(row["image"], row["prediction"], best)
    options.console().print(table)
