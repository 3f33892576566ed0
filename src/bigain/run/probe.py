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

from bigain.backbones import applied_to
from bigain.backbones.families import layout
from bigain.classify import DiffusionClassifier, noised, predictions
from bigain.data import ImageCollection, Item, labelled
from bigain.diffusion import Denoiser
from bigain.operators.random import image_key, mix_keys
from bigain.run.files import class_conditions, fingerprint, identity_hash
from bigain.run.settings import ClassifierSettings, DataSettings, ModelSettings, ProbeSettings

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
    # Predictions without compression, of all rows: under the true class (False), and under another one (True).
    _before: dict[bool, Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, model: ModelSettings, source: DataSettings, settings: ProbeSettings, denoiser: Denoiser) -> Probe:
        """Opens the data and decodes the first images that have a label.

        ValueError for settings that do not fit the model or the data, too few images, and as ``check_classes``.
        """
        data = source.load(denoiser)
        conditions = class_conditions(denoiser, data)
        items = list(data.items(labelled(data, settings.images)))  # fewer, where bad images are skipped
        if len(items) < 2:  # of which there is no standard deviation
            raise ValueError(f"{len(items)} of {settings.images} images could be read: there must be two at least")
        stages = ClassifierSettings(
            to_keep=(1,), n_samples=(settings.timesteps,), loss=settings.loss, spacing=settings.spacing
        )
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
            | ({} if self.settings.spacing == "uniform" else {"spacing": self.settings.spacing})
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
            parts = []
            for rows in self.batches():  # in order, as nothing is applied
                parts.append(self.predicted(rows, other))
                done(len(rows))
            self._before[other] = torch.cat(parts)

    def _changed(self, rows: Tensor, other: bool = False) -> Tensor:
        """What the predictions of rows are in the present state minus what they were in ``plain``."""
        return self.predicted(rows, other) - self._before[other][rows]

    def change(self, done: Callable[[int], object]) -> float:
        """The mean squared change of the prediction under the true class in the present state, after ``plain``."""
        changes = []
        for rows in self.batches():
            changes.append(mean_square(self._changed(rows)))
            done(len(rows))
        return float(torch.cat(changes).mean())

    def changes(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """``change``, and that of the difference between the predictions under the true class and another.

        Each at every timestep, the mean over the images. The other class is drawn for each image and timestep from
        those that the image does not show. It has its ``plain``.
        """
        changes = torch.empty(2, len(self.items) * len(self.classifier.timesteps), dtype=torch.float64)
        for rows in self.batches():
            change = self._changed(rows)
            changes[0, rows] = mean_square(change)
            changes[1, rows] = mean_square(change - self._changed(rows, other=True))
        change, contrast = changes.view(2, len(self.items), -1).mean(1).tolist()
        return tuple(change), tuple(contrast)

    def separations(self) -> tuple[float, ...]:
        """The mean squared difference between the predictions under the true class and another, without compression.

        At every timestep, the mean over the images. ValueError where there is none, as of a model without conditions.
        """
        self.plain()
        self.plain(other=True)
        squares = mean_square(self._before[False] - self._before[True])
        found: list[float] = squares.view(len(self.items), -1).mean(0).tolist()
        for t, separation in zip(self.classifier.timesteps.tolist(), found, strict=True):
            if not separation > 0:
                raise ValueError(
                    f"the predictions under two classes must differ at every timestep, which changes are compared "
                    f"with, but their mean squared difference at t = {t} is {separation}"
                )
        return tuple(found)

    @functools.cached_property
    def _clean(self) -> Tensor:
        """x0 of all images, (images, C, h, w)."""
        return torch.cat([self.denoiser.encode(self._images(chunk)) for chunk in self._chunks()])

    def _chunks(self) -> list[list[Item]]:
        """The images, as many at once as fill a few batches of the classifier."""
        size = max(1, min(8, _CHUNK_FORWARDS * self.model.batch_size // self.classifier.forwards))
        return [self.items[first : first + size] for first in range(0, len(self.items), size)]

    def _images(self, items: list[Item]) -> Tensor:
        return self.denoiser.prepare([item.image for item in items])

    def errors(self, done: Callable[[int], object]) -> npt.NDArray[np.float32]:
        """Of all classes at all timesteps, (images, conditions, timesteps)."""
        results = []
        for chunk in self._chunks():
            results += self.classifier.predict(self._images(chunk), [item.id for item in chunk])
            done(len(chunk) * self.classifier.forwards)
        return np.stack([result.errors for result in results])

    def batches(self, size: int | None = None) -> Iterator[Tensor]:
        """Rows (B,) int64, image by image and all timesteps of each, ``size`` at most; by default the classifier's.

        Rows of a batch lie in the same ranges of t, where what is applied acts in some only.
        """
        size = size or self.classifier.batch_size
        timesteps = self.classifier.timesteps.tolist()
        first = torch.arange(len(self.items))[:, None] * len(timesteps)
        for places in applied_to(self.denoiser).parted(timesteps):
            yield from (first + torch.tensor(places)).flatten().split(size)

    def predicted(self, rows: Tensor, other: bool = False) -> Tensor:
        """Of rows under the true class, or an ``other``, on the classifier's noise and keys: (B, C, h, w) float32."""
        classifier, denoiser = self.classifier, self.denoiser
        seed, count = classifier.seed, len(classifier.timesteps)
        image, t = rows // count, classifier.timesteps[rows % count]
        ids = [self.items[i].id for i in image.tolist()]
        x_t, _ = noised(denoiser, self._clean[image.to(denoiser.device)], ids, t, seed)
        keys = torch.tensor([image_key(name, seed) for name in ids])
        draws = mix_keys(keys, t).tolist() if other else [0] * len(rows)
        index = torch.tensor([self._condition(i, draw, other) for i, draw in zip(image.tolist(), draws, strict=True)])
        return predictions(denoiser, x_t, ids, t, classifier.conditions, index, seed).cpu()

    def _condition(self, image: int, draw: int, other: bool) -> int:
        """The first condition of an image's (first) true class, or of one it does not show, which ``draw`` picks."""
        groups, labels = self.classifier.groups, self.items[image].labels
        if not other:
            return groups.index(labels[0])
        others = [group for group in dict.fromkeys(groups) if group not in labels]
        return groups.index(others[draw % len(others)])


def mean_square(x: Tensor) -> Tensor:
    """Per row, in float64: (B,)."""
    return x.double().square().flatten(1).mean(1)
