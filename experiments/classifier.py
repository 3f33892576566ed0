"""What each part of the classifier saves of the papers' stages `5 1 / 5 20`, on the test images of an embedded model.

    python -m experiments.classifier glyphs-dit results/classifier-glyphs-dit.json

All variants classify the same images under the same noise, chunk by chunk and in turn, so that what disturbs the
machine falls on all alike. Resumes at the chunk where it was stopped. Half an hour for each model on 2 CPU cores, for
glyphs-dit-64 an hour.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigain.classify import DiffusionClassifier, Elimination, Fitted, Racing, Stages
from bigain.data import ImageCollection, labelled
from bigain.diffusion import Denoiser
from bigain.metrics.accuracy import accuracy_interval, paired_difference
from bigain.progress import progress_bar
from bigain.report.style import markdown_table
from bigain.run.cost import environment
from bigain.run.files import class_conditions, read_json, versions, write_json
from bigain.run.settings import DataSettings, ModelSettings

FORMAT = "bigain classifier variants 1"
REFERENCE = "staged 5 1 / 5 20"
_CHUNK = 50
SEED = 0


Variants = dict[str, tuple[Elimination, bool]]
"""Each with its elimination, and whether it takes what was fitted on validation images; REFERENCE comes first."""


MANY = {
    "glyphs-dit": ("glyphs-dit/balanced", "glyphs-dit/fast"),
    "glyphs-sd": ("glyphs-sd/balanced", "glyphs-sd/fast"),
    "glyphs-dit-64": ("iekvd-2", "avgpool-2"),
}
"""Two compressions of each model for as long as many classes are left."""
_LEFT_OUT = ("staged 3 1 / 2 8", "racing by betting, nothing fitted")  # of glyphs-dit-64, whose forwards take longest


def variants(model: str) -> Variants:
    """What is compared with ten classes."""
    first, second = MANY[model]
    every = {
        REFERENCE: (Stages((5, 1), (5, 20)), False),
        "staged 3 1 / 2 8": (Stages((3, 1), (2, 8)), False),
        "telling timesteps, staged 3 1 / 2 8": (Stages((3, 1), (2, 8)), True),
        "racing by betting, nothing fitted": (Racing(20, error_rate=0.05), False),
        "racing, telling timesteps": (Racing(20), True),
        f"the same, all under {first}": (Racing(20, methods=(first,)), True),
        f"the same, {first} until 3 are left": (Racing(20, methods=(first, "none")), True),
        f"the same, {second} until 3 are left": (Racing(20, methods=(second, "none")), True),
    }
    return every if model != "glyphs-dit-64" else {name: own for name, own in every.items() if name not in _LEFT_OUT}


@dataclass
class Done:
    """What a variant has done so far, image by image."""

    right: list[bool] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    forwards: list[int] = field(default_factory=list)
    seconds: float = 0.0


def run(model: ModelSettings, data: DataSettings, images: int, path: Path, *, progress: bool = True) -> None:
    """Classifies what is missing in ``path``."""
    denoiser = model.open(quiet=True)
    source = data.load(denoiser)
    subjects = made(variants(model.model), model.model, denoiser, source, model.batch_size)
    compare(path, subjects, source, images, facts(model, denoiser, source), progress=progress)


def made(
    variants: Variants, fitted: Fitted | str, denoiser: Denoiser, source: ImageCollection, batch_size: int
) -> dict[str, DiffusionClassifier]:
    """The classifier of each variant, among the classes of the images; ``fitted`` is for those that take a fit."""
    subjects = {}
    for name, (elimination, takes_fit) in variants.items():
        conditions = class_conditions(denoiser, source)
        subject = DiffusionClassifier(denoiser, conditions, elimination=elimination, batch_size=batch_size, seed=SEED)
        subjects[name] = subject.use(fitted) if takes_fit else subject
    return subjects


def facts(model: ModelSettings, denoiser: Denoiser, source: ImageCollection) -> dict[str, Any]:
    """What results depend on, for :func:`compare`."""
    machine = environment(denoiser.device, {"dtype": model.dtype, "batch_size": model.batch_size})
    return {"model": model.model, "data": source.name, "seed": SEED, "environment": machine, "versions": versions()}


def compare(
    path: Path,
    subjects: dict[str, DiffusionClassifier],
    source: ImageCollection,
    images: int,
    about: dict[str, Any],
    *,
    progress: bool,
) -> None:
    """Classifies the first images by every subject, as far as that is missing in ``path``."""
    done = _read(path, about) if path.exists() else {name: Done() for name in subjects}
    positions = labelled(source, images)
    first = len(done[REFERENCE].right)
    with progress_bar(images - first, progress, unit="image") as bar:
        for start in range(first, images, _CHUNK):
            _chunk(source, positions[start : start + _CHUNK], subjects, done)
            write_json(path, FORMAT, about | {"variants": {name: vars(own) for name, own in done.items()}})
            bar.update(min(_CHUNK, images - start))


def _chunk(
    source: ImageCollection, positions: list[int], subjects: dict[str, DiffusionClassifier], done: dict[str, Done]
) -> None:
    items = list(source.items(positions))
    images, ids = [item.image for item in items], [item.id for item in items]
    for name, subject in subjects.items():
        started = time.perf_counter()
        predictions = subject.predict(images, ids)
        done[name].seconds += time.perf_counter() - started
        done[name].right += [one.prediction in item.labels for one, item in zip(predictions, items, strict=True)]
        done[name].probability += [round(one.probability, 6) for one in predictions]
        done[name].forwards += [one.forwards for one in predictions]


def _read(path: Path, about: dict[str, Any]) -> dict[str, Done]:
    content = read_json(path, FORMAT, "variants of a classifier", dict)
    for key, value in about.items():
        if content[key] != json.loads(json.dumps(value)):
            raise ValueError(f"{key} in {path} must be {value}, not {content[key]}: write another file")
    return {name: Done(**own) for name, own in content["variants"].items()}


def table(path: Path) -> str:
    """Accuracy, its change to the papers' stages, forwards and seconds of each variant, as Markdown."""
    content = read_json(path, FORMAT, "variants of a classifier", dict)
    done = {name: Done(**own) for name, own in content["variants"].items()}
    plain = done[REFERENCE]
    count = len(plain.right)
    rows = []
    for name, own in done.items():
        low, high = accuracy_interval(sum(own.right), count)
        change, least, most = paired_difference(own.right, plain.right)
        forwards, seconds = sum(own.forwards) / count, own.seconds / count
        rows.append(
            [
                name,
                f"{100 * sum(own.right) / count:.1f} ({100 * low:.1f}–{100 * high:.1f})",
                "–" if own is plain else f"{100 * change:+.1f} ({100 * least:+.1f} to {100 * most:+.1f})",
                f"{forwards:.1f} (1/{sum(plain.forwards) / sum(own.forwards):.1f})",
                f"{1000 * seconds:.0f} (1/{plain.seconds / own.seconds:.1f})",
            ]
        )
    headings = ["variant", "accuracy, %", "change, points", "forwards per image", "ms per image"]
    where = content["environment"]
    return (
        f"{markdown_table(headings, rows)}\n\n{content['model']} ({where['dtype']}), {count} test images of "
        f"{content['data']}, seed {content['seed']}, batches of {where['batch_size']}, {where['device_name']}, "
        f"{where['threads']} threads."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MANY)
    parser.add_argument("results", type=Path, help="the .json to write, or to go on with")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args(arguments)
    run(ModelSettings(model=given.model, dtype=given.dtype), DataSettings(), given.images, given.results)
    print(table(given.results))


if __name__ == "__main__":
    main()
