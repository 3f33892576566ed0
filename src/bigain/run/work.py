"""What a joint run does with a model and data, task by task; it knows no store, so any process can do it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bigain.backbones import resolve
from bigain.classify import DiffusionClassifier, Hierarchy
from bigain.data import ImageCollection, labelled
from bigain.data.moving import DIRECTIONS
from bigain.diffusion import Denoiser
from bigain.generate import sample
from bigain.metrics.features import FeatureNetwork, GlyphFeatures, InceptionFeatures
from bigain.metrics.moving import MeanOverFrames, MovingGlyphs
from bigain.run.cost import applied
from bigain.run.files import class_conditions, encode_png, fingerprint
from bigain.run.settings import Settings
from bigain.run.store import Classified, Generated
from bigain.videos import encode_video

_CHUNK_FORWARDS = 8  # batches of the classifier's first stage that one transaction holds, so that few are half empty

Rows = list[Classified] | list[Generated]


@dataclass(frozen=True)
class Task:
    """What is done at once and kept at once: images of these numbers, classified or generated under a method."""

    method: str
    what: Literal["classify", "generate"]
    numbers: tuple[int, ...]  # positions in the data, or numbers of generated images


@dataclass
class Work:
    """A model, data and a classifier that do the tasks of a run."""

    settings: Settings
    denoiser: Denoiser
    data: ImageCollection
    network: FeatureNetwork | None
    conditions: tuple[tuple[str | int, ...], ...]  # per class
    classifier: DiffusionClassifier | None = None
    tree: Hierarchy | None = None

    @classmethod
    def open(cls, settings: Settings, denoiser: Denoiser | None = None) -> Work:
        """Opens what the settings name; ``denoiser`` is their model, if it is open.

        Raises:
            ValueError: the settings or a preset do not fit the model, the data or each other.
            FileNotFoundError: the model's weights or the data are missing.
        """
        denoiser = denoiser or settings.model.open()
        for source in settings.presets:
            resolve(source, denoiser.model, data=settings.data.data)  # refuses a preset of another model
        settings.classifier.check_fit(settings.model)
        data = settings.data.load(denoiser)
        conditions = class_conditions(denoiser, data)
        settings = replace(
            settings,
            sampling=settings.sampling.resolved(denoiser),
            classifier=settings.classifier.resolved(sum(map(len, conditions)) or 1),
        )
        return cls(settings, denoiser, data, _network(settings, denoiser), conditions)

    def __post_init__(self) -> None:
        counts, batch_size = self.settings.counts, self.settings.model.batch_size
        self.sampling = self.settings.sampling.of(self.denoiser, counts.seed, batch_size)
        if counts.classify:
            if not self.conditions:
                raise ValueError(f"classify must be 0 (--classify 0) for {self.data.name}, which has no classes")
            how, data = self.settings.classifier, self.data
            self.tree = how.tree(data.classes, data.template, data.wnids)
            self.classifier = how.of(self.denoiser, self.conditions, counts.seed, batch_size, self.tree)
        if counts.generate:
            self.sampling.scheduler(self.denoiser)  # refuses what it cannot do before anything is classified
            for entry in self.data.entries[: counts.generate]:
                if not entry.labels and (entry.caption is None or self.denoiser.kind == "class"):
                    raise ValueError(
                        f"generate must be 0 (--generate 0) for {self.data.name}: {entry.id!r} has neither label nor "
                        f"caption to generate an image for"
                    )
        self.positions  # noqa: B018 - raises for more images than there are

    def identity(self) -> dict[str, Any]:
        """Also of what the settings name: the weights, the prompts or labels, and the tree of classes."""
        asked = self.conditions if self.tree is None else (self.conditions, asdict(self.tree))
        words = json.dumps(asked).encode()
        fitted = None if self.classifier is None else self.classifier.fitted
        return self.settings.identity() | {
            "weights": fingerprint(*self.denoiser.networks),
            "conditions": hashlib.sha256(words).hexdigest()[:16],
            "fitted": None if fitted is None else json.loads(json.dumps(asdict(fitted))),
        }

    def facts(self) -> dict[str, Any]:
        """What tables and pictures need to know."""
        count = sum(len(own) for own in self.conditions)
        elimination = self.settings.classifier.made(count or 1)
        timesteps = self.denoiser.process.timesteps(elimination.timesteps)
        if self.classifier is not None:
            elimination, timesteps = self.classifier.elimination, self.classifier.timesteps
        return {
            "data": self.data.name,
            "multi_label": self.data.multi_label,
            "classes": list(self.data.classes),
            "conditions": count,
            "timesteps": timesteps.tolist(),
            **({} if self.classifier is None else _of_predictions(self.classifier)),
            "forwards_per_classified_image": elimination.forwards(count),  # at most
            "forwards_per_generated_image": self.forwards_per_generated_image,
            "image_size": self.denoiser.image_size,
            "sample_shape": list(self.denoiser.sample_shape),
            "feature_network": "none" if self.network is None else self.network.name,
        }

    @cached_property
    def positions(self) -> Sequence[int]:
        """The images to classify, by their place in the data."""
        return labelled(self.data, self.settings.counts.classify)

    @property
    def forwards_per_generated_image(self) -> int:
        """Two per step under guidance, unless that is an input of the model."""
        sampling = self.settings.sampling
        return sampling.steps if self.denoiser.embeds_guidance else sampling.forwards

    @property
    def any_condition(self) -> str | int:
        """What FLOPs and times are taken with; they do not depend on it."""
        return self.conditions[0][0] if self.conditions else self.denoiser.any_condition

    def tasks(self, method: str) -> list[Task]:
        """All that a run does under a method, in tasks that are the same whoever does them and whenever.

        They begin at multiples of a fixed number, so an interrupted run meets the same batches as an undisturbed one.
        """
        batch_size, tasks = self.settings.model.batch_size, []
        if self.classifier is not None:
            first_round = len(self.classifier.conditions) * self.classifier.elimination.first
            size = max(1, min(64, _CHUNK_FORWARDS * batch_size // first_round))
            tasks += [Task(method, "classify", tuple(chunk)) for chunk in chunks(self.positions, size)]
        generated = range(self.settings.counts.generate)
        return tasks + [Task(method, "generate", tuple(chunk)) for chunk in chunks(generated, batch_size)]

    def forwards(self, task: Task) -> int:
        """Of the model that a task takes, at most."""
        if task.what == "generate":
            return len(task.numbers) * self.forwards_per_generated_image
        assert self.classifier is not None  # else there is nothing to classify
        return len(task.numbers) * self.classifier.forwards

    def do(self, task: Task) -> Rows:
        """The rows of a task, in its order; fewer where bad images are skipped."""
        with applied(self.denoiser, task.method):
            return self._classified(task.numbers) if task.what == "classify" else self._generated(task.numbers)

    def _classified(self, positions: Sequence[int]) -> list[Classified]:
        assert self.classifier is not None  # as for `forwards`
        items = list(self.data.items(positions))
        if not items:
            return []
        images = self.denoiser.prepare([item.image for item in items])
        results = self.classifier.predict(images, [item.id for item in items])
        places = {self.data.entries[position].id: position for position in positions}
        pairs = zip(results, items, strict=True)
        return [Classified(**vars(one), position=places[one.id], labels=item.labels) for one, item in pairs]

    def _generated(self, numbers: Sequence[int]) -> list[Generated]:
        """The images of these numbers, with what a network sees in them."""
        asked = [self._asked(number) for number in numbers]
        unique = list(dict.fromkeys(condition for _, condition in asked))
        conditions = self.denoiser.conditions(unique)  # type: ignore[arg-type]
        index = [unique.index(condition) for _, condition in asked]
        images = np.stack(list(sample(self.denoiser, conditions, index, numbers, self.sampling)))
        features: Any = [None] * len(images)
        recognised: Any = features
        if self.network is not None:
            features, recognised = self.network.features(images), self.network.recognise(images)
        encode = encode_video if self.denoiser.is_video else encode_png
        rows = zip(numbers, asked, images, recognised, features, strict=True)
        return [
            Generated(number, label, str(condition), encode(image), seen, values)
            for number, (label, condition), image, seen, values in rows
        ]

    def _asked(self, image: int) -> tuple[int | None, str | int]:
        """Label and condition of a generated image: those of the data's image of that number, over again at its end."""
        entry = self.data.entries[image % len(self.data.entries)]
        label = entry.labels[0] if entry.labels else None
        if self.denoiser.kind == "text" and entry.caption is not None:
            return label, entry.caption
        assert label is not None  # checked when the run began
        return label, self.conditions[label][0]


def _network(settings: Settings, denoiser: Denoiser) -> FeatureNetwork | None:
    """What sees features in the images or videos of the settings; None where nothing does."""
    name, device = settings.feature_network, denoiser.device
    if name == "none":
        return None
    if name == "recogniser" and not denoiser.is_video:
        return GlyphFeatures(denoiser.image_size, device, quadrants=settings.data.data == "glyphs-scenes")
    if name == "recogniser":
        return MovingGlyphs(device, tuple(DIRECTIONS.values()))
    return MeanOverFrames(InceptionFeatures(device)) if denoiser.is_video else InceptionFeatures(device)


def chunks(values: Sequence[int], size: int) -> list[Sequence[int]]:
    """``values`` in runs of ``size``, the last one shorter."""
    return [values[first : first + size] for first in range(0, len(values), size)]


def _of_predictions(classifier: DiffusionClassifier) -> dict[str, Any]:
    """What turns stored errors into probabilities, as fields of `Prediction`."""
    fitted = classifier.fitted
    return {
        "groups": [] if classifier.groups == tuple(range(classifier.classes)) else list(classifier.groups),
        "elements": math.prod(classifier.denoiser.sample_shape),
        "weights": [] if fitted is None else list(fitted.weights[: len(classifier.timesteps)]),
        "temperature": 1.0 if fitted is None else fitted.temperature,
    }
