"""What a method does to a model's predictions on labelled images, under the noise of the diffusion classifier."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain.backbones.families import layout
from bigain.classify import DiffusionClassifier, noised, predictions
from bigain.data import ImageCollection, Item, labelled, preprocess
from bigain.diffusion import Denoiser
from bigain.operators.random import image_key, mix_keys
from bigain.run.files import class_conditions, fingerprint
from bigain.run.settings import ClassifierSettings, DataSettings, ModelSettings, ProbeSettings, identity_hash

_CHUNK_FORWARDS = 8  # batches of a chunk of images, so that few are half empty


@dataclass
class Probe:
    """A model, its classifier and some labelled images, on whose noise a method's effects are measured."""

    model: ModelSettings
    source: DataSettings
    settings: ProbeSettings
    classifier: DiffusionClassifier
    data: ImageCollection
    items: list[Item]
    # Predictions without compression, batch by batch: under the true class (False), and under another one (True).
    _before: dict[bool, list[Tensor]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, model: ModelSettings, source: DataSettings, settings: ProbeSettings, denoiser: Denoiser) -> Probe:
        """Opens the data and decodes the first images that have a label.

        ValueError for settings that do not fit the model or the data, too few images, and as ``check_classes``.
        """
        data = source.load(denoiser.image_size)
        conditions = class_conditions(denoiser, data)
        items = list(data.items(labelled(data, settings.images)))  # fewer, where bad images are skipped
        if len(items) < 2:  # of which there is no standard deviation
            raise ValueError(f"{len(items)} of {settings.images} images could be read: there must be two at least")
        stages = ClassifierSettings(to_keep=(1,), n_samples=(settings.timesteps,), loss=settings.loss)
        classifier = stages.of(denoiser, conditions, settings.seed, model.batch_size)
        probe = cls(model, source, settings, classifier, data, items)
        probe.check_classes()
        return probe

    def check_classes(self) -> None:
        """Raises ValueError unless every image has a wrong class to be told from."""
        classes = self.classifier.classes
        for item in self.items:
            if len({*item.labels}) == classes:
                raise ValueError(f"{item.id!r} shows every class, so there is no wrong one to compare with")

    @property
    def denoiser(self) -> Denoiser:
        """The open model."""
        return self.classifier.denoiser

    def identity(self) -> dict[str, Any]:
        """What all numbers depend on."""
        shown = [[item.id, list(item.labels)] for item in self.items]
        words = [self.classifier.conditions.names, self.classifier.groups]
        return (
            self.model.identity()
            | self.source.identity()
            | {
                "loss": self.settings.loss,
                "seed": self.settings.seed,
                "images": len(self.items),
                "timesteps": len(self.classifier.timesteps),
                "weights": fingerprint(*self.denoiser.networks),
                "shown": identity_hash({"images": shown})[:16],
                "conditions": identity_hash({"conditions": words})[:16],
            }
        )

    def facts(self) -> dict[str, Any]:
        """What tables and pictures need to know; versions are added as they take part."""
        return {
            "data": self.data.name,
            "multi_label": self.data.multi_label,
            "classes": self.classifier.classes,
            "timesteps": self.classifier.timesteps.tolist(),
            "images": {item.id: list(item.labels) for item in self.items},
            "layers": [layer.name for layer in layout(self.denoiser.model).layers],
            "versions": [],
        }

    def plain(self, done: Callable[[int], object] = lambda _: None, *, other: bool = False) -> None:
        """Makes the predictions without compression under the true class, or an ``other``; once."""
        if other not in self._before:
            self._before[other] = []
            for part in self._predictions(other):
                self._before[other].append(part)
                done(len(part))

    def _changes(self, other: bool = False) -> Iterator[Tensor]:
        """What the predictions are in the present state minus what they were in ``plain``, batch by batch."""
        for part, before in zip(self._predictions(other), self._before[other], strict=True):
            yield part - before

    def change(self, done: Callable[[int], object]) -> float:
        """The mean squared change of the prediction under the true class in the present state, after ``plain``."""
        changes = []
        for change in self._changes():
            changes.append(_mean_square(change))
            done(len(change))
        return float(torch.cat(changes).mean())

    def changes(self) -> tuple[float, float]:
        """``change``, and that of the difference between the predictions under the true class and another.

        The other is drawn for each image and timestep from those that the image does not show. It has its ``plain``.
        """
        changes, contrasts = [], []
        for change, other in zip(self._changes(), self._changes(other=True), strict=True):
            changes.append(_mean_square(change))
            contrasts.append(_mean_square(change - other))
        return float(torch.cat(changes).mean()), float(torch.cat(contrasts).mean())

    @functools.cached_property
    def _clean(self) -> Tensor:
        """x0 of all images, (images, C, h, w)."""
        return torch.cat([self.denoiser.encode(self._images(chunk)) for chunk in self._chunks()])

    def _chunks(self) -> list[list[Item]]:
        """The images, as many at once as fill a few batches of the classifier."""
        size = max(1, min(8, _CHUNK_FORWARDS * self.model.batch_size // self.classifier.forwards))
        return [self.items[first : first + size] for first in range(0, len(self.items), size)]

    def _images(self, items: list[Item]) -> Tensor:
        return torch.stack([preprocess(item.image, self.denoiser.image_size) for item in items])

    def errors(self, done: Callable[[int], object]) -> npt.NDArray[np.float32]:
        """Of all classes at all timesteps, (images, conditions, timesteps)."""
        results = []
        for chunk in self._chunks():
            results += self.classifier.predict(self._images(chunk), [item.id for item in chunk])
            done(len(chunk) * self.classifier.forwards)
        return np.stack([result.errors for result in results])

    def _predictions(self, other: bool = False) -> Iterator[Tensor]:
        """Of all images at all timesteps under the true class, or an ``other``, on the classifier's noise and keys."""
        classifier, denoiser = self.classifier, self.denoiser
        seed, count = classifier.seed, len(classifier.timesteps)
        keys = torch.tensor([image_key(item.id, seed) for item in self.items])
        total = len(self.items) * count
        for first in range(0, total, classifier.batch_size):
            row = torch.arange(first, min(first + classifier.batch_size, total))
            image, t = row // count, classifier.timesteps[row % count]
            ids = [self.items[i].id for i in image.tolist()]
            x_t, _ = noised(denoiser, self._clean[image.to(denoiser.device)], ids, t, seed)
            draws = mix_keys(keys[image], t).tolist() if other else [0] * len(row)
            index = torch.tensor(
                [self._condition(i, draw, other) for i, draw in zip(image.tolist(), draws, strict=True)]
            )
            yield predictions(denoiser, x_t, ids, t, classifier.conditions, index, seed).cpu()

    def _condition(self, image: int, draw: int, other: bool) -> int:
        """The first condition of an image's (first) true class, or of one it does not show, which ``draw`` picks."""
        groups, labels = self.classifier.groups, self.items[image].labels
        if not other:
            return groups.index(labels[0])
        others = [group for group in dict.fromkeys(groups) if group not in labels]
        return groups.index(others[draw % len(others)])


def _mean_square(x: Tensor) -> Tensor:
    """Per row, in float64: (B,)."""
    return x.double().square().flatten(1).mean(1)
