"""What each elimination asks of a model with a hundred classes or more: a letter in a colour at a place, in glyphs-sd.

    python -m experiments.many_classes results/many-classes.json

A class is "a photo of a red letter A at the top left", in words of glyphs-sd's training. An image shows one such letter
in its quadrant, which no training image did: those held two to four. On validation images the model knew four letters
in five, half of five colours, and no places, so accuracy is low (chance is 1 in 100); what counts are the forwards, and
accuracy beside that of the papers' stages. Trees ask about letters first, then about their colours. What a race takes
from validation images is kept beside the results. Resumes as experiments.classifier does.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bigain.classify import DiffusionClassifier, Fitted, Hierarchy, Racing, Stages
from bigain.data import ImageCollection, Item
from bigain.data.glyphs import CLASSES
from bigain.data.scenes import COLOURS, PLACES, Placed, Scenes, describe, draw, phrase, sentence
from bigain.diffusion import Denoiser
from bigain.images import Pixels
from bigain.run.files import class_conditions
from bigain.run.settings import ModelSettings
from experiments.classifier import REFERENCE, SEED, Variants, compare, facts, made, table

PARTS = {100: (5, 5), 320: (10, 8)}
"""How many letters and colours make so many classes, with all four places."""
_FIT: dict[str, Any] = {"candidates": 20, "error_rate": 0.05}
_FIT_IMAGES = 80
_ALONE = 3  # the random stream of a scene of one letter, beside those of the others


def classes(count: int) -> dict[str, Placed]:
    """What is told apart, by its prompt."""
    letters, colours = PARTS[count]
    kinds = [Placed(*parts) for parts in product(CLASSES[:letters], list(COLOURS)[:colours], PLACES)]
    return {describe([placed]): placed for placed in kinds}


def alone(kinds: Mapping[str, Placed], split: str, size: int) -> ImageCollection:
    """Scenes of one letter, the classes in shuffled turns; a class is called by its prompt."""
    scenes = Scenes(split, size)
    letters, turns = list(kinds.values()), np.random.default_rng(SEED).permutation(len(kinds)).tolist()
    entries = []
    for index in range(len(scenes)):
        label = turns[index % len(turns)]
        entries.append(Item(f"alone-{split}-{index:06d}", partial(_drawn, scenes, index, letters[label]), (label,)))
    return ImageCollection(f"{len(kinds)} classes", tuple(kinds), tuple(entries), template="{}")


def _drawn(scenes: Scenes, index: int, placed: Placed) -> Pixels:
    return draw([placed], scenes.size, scenes.stream(index, _ALONE))


def tree(kinds: Mapping[str, Placed]) -> dict[str, dict[str, list[str]]]:
    """The prompts in groups of prompts: by letter, then by letter and colour."""
    groups: dict[str, dict[str, list[str]]] = {}
    for prompt, placed in kinds.items():
        letter, coloured = (sentence([phrase(placed, colour, located=False)]) for colour in (False, True))
        groups.setdefault(letter, {}).setdefault(coloured, []).append(prompt)
    return groups


def variants(model: str, kinds: Mapping[str, Placed]) -> Variants:
    """What is compared."""
    cascade = Racing(20, methods=(f"{model}/balanced", "none"))
    down = partial(Hierarchy.of, tree(kinds), list(kinds))
    return {
        REFERENCE: (Stages((5, 1), (5, 20)), False),
        "staged 20 5 1 / 2 5 20": (Stages((20, 5, 1), (2, 5, 20)), False),
        "racing by betting, nothing fitted": (Racing(20), False),
        "racing": (Racing(20), True),
        "racing, balanced until 3 are left": (cascade, True),
        "letters, colours, then racing": (down(race=Racing(20)), True),
        "letters, colours, then racing, balanced until 3 are left": (down(race=cascade), True),
    }


def fitted(path: Path, model: ModelSettings, denoiser: Denoiser, source: ImageCollection, progress: bool) -> Fitted:
    """What validation images tell: from ``path``, or found out and kept there."""
    if not path.exists():
        items = list(source.items(range(_FIT_IMAGES)))
        classifier = DiffusionClassifier(
            denoiser,
            class_conditions(denoiser, source),
            elimination="racing",
            batch_size=model.batch_size,
            seed=SEED,
        )
        classifier.fit(
            [item.image for item in items],
            [item.labels[0] for item in items],
            ids=[item.id for item in items],
            progress=progress,
            **_FIT,
        )
        assert classifier.fitted is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(classifier.fitted, model=model.model, data=f"{source.name}, validation split").write(path)
    return Fitted.read(path)


def run(model: ModelSettings, count: int, images: int, path: Path, *, progress: bool = True) -> None:
    """Fits what is to be fitted, and classifies what is missing in ``path``."""
    denoiser = model.open(quiet=True)
    kinds, size = classes(count), denoiser.image_size
    found = path.with_suffix(f".fit-{count}.json")
    fit = fitted(found, model, denoiser, alone(kinds, "validation", size), progress)
    source = alone(kinds, "test", size)
    subjects = made(variants(model.model, kinds), fit, denoiser, source, model.batch_size)
    compare(path, subjects, source, images, facts(model, denoiser, source) | {"fit": asdict(fit)}, progress=progress)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the .json to write, or to go on with")
    parser.add_argument("--classes", type=int, choices=PARTS, default=100)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args(arguments)
    run(ModelSettings(model="glyphs-sd", dtype=given.dtype), given.classes, given.images, given.results)
    print(table(given.results))


if __name__ == "__main__":
    main()
