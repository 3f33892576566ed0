"""``bigain fit``: what a few labelled images tell about a diffusion classifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options
from bigain.run.settings import (
    SPACING_HELP,
    SPACINGS,
    WEIGHTING_HELP,
    WEIGHTINGS,
    DataSettings,
    Group,
    ModelSettings,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class FitSettings(Group):
    """What is fitted, and on how much."""

    images: int = setting(200, "The first that have a label.", low=2)
    candidates: int = setting(40, "Evenly spaced timesteps to choose among.", low=1)
    timesteps: int = setting(20, "Timesteps to choose at most.", low=1)
    error_rate: float = setting(
        0.02, "Share of images on which a race may end otherwise than with all classes at all chosen timesteps."
    )
    loss: str = setting("l2", "Of the prediction's error.", choices=("l2", "l1", "huber"))
    weighting: str = setting("prediction", WEIGHTING_HELP, choices=WEIGHTINGS)
    spacing: str = setting("uniform", SPACING_HELP, choices=SPACINGS)
    seed: int = setting(1, "Of all randomness.")


def fit(
    model: Annotated[ModelSettings, options.Without("variant", "threads")],
    data: Annotated[DataSettings, options.Without("classes", "bad_images")],
    settings: FitSettings,
    out: Annotated[Path, typer.Option(help="File to write, for --fitted of bigain classify and bigain evaluate.")],
    quiet: options.Quiet = False,
) -> None:
    """Chooses a classifier's timesteps and weights, when a race drops a class, and the temperature, on labelled images.

    Every class is evaluated at all candidates of every image, without elimination: images x prompts x candidates
    forwards. Half of the images gives timesteps and weights, the other half the threshold and the temperature, so the
    error rate holds for further images of the same kind. Embedded data's validation split is taken where none is named.

    [bold]Examples[/]

      bigain fit --images 100 --out fit.json

      bigain fit --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16 --out pets.json

      bigain classify letter.png --elimination racing --fitted fit.json
    """
    from bigain.classify import DiffusionClassifier, Racing, Scoring
    from bigain.data import labelled
    from bigain.run.files import class_conditions

    denoiser = model.open()
    source = data.unseen().load(denoiser)
    items = list(source.items(labelled(source, settings.images)))
    classifier = DiffusionClassifier(
        denoiser,
        class_conditions(denoiser, source),
        elimination=Racing(settings.timesteps),
        loss=Scoring(settings.loss, settings.weighting, settings.spacing),
        batch_size=model.batch_size,
        seed=settings.seed,
    )
    classifier.fit(
        [item.image for item in items],
        [item.labels[0] for item in items],
        candidates=settings.candidates,
        error_rate=settings.error_rate,
        ids=[item.id for item in items],
        progress=not quiet,
    )
    assert classifier.fitted is not None
    fitted = replace(
        classifier.fitted, model=model.model, data=f"{source.name}, {data.unseen().split or 'default'} split"
    )
    fitted.write(out)
    told = ", ".join(map(str, fitted.timesteps))
    typer.echo(f"{len(fitted.timesteps)} timesteps, the most telling first: {told}\nIn {out}")
