"""The joint run: every method classifies the same images and generates from the same noise, and everything is kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigain.backbones import resolve
from bigain.classify import DiffusionClassifier
from bigain.data import ImageCollection, labelled, preprocess
from bigain.diffusion import Denoiser
from bigain.generate import sample
from bigain.images import to_uint8
from bigain.metrics.features import FeatureNetwork, feature_network
from bigain.run.cost import applied, environment, flops, measure
from bigain.run.files import class_conditions, encode_png, fingerprint, progress_bar, versions
from bigain.run.settings import REFERENCE_IMAGES, Settings
from bigain.run.store import Classified, Generated, Store

_CHUNK_FORWARDS = 8  # batches of the classifier's first stage that one transaction holds, so that few are half empty


def run(settings: Settings, path: Path, *, progress: bool = False, denoiser: Denoiser | None = None) -> None:
    """Does what is missing in the results file ``path``, new or not; goes on where it was stopped, whenever that was.

    Images are done in chunks that begin at multiples of a fixed number, so an interrupted run meets the same batches
    as an undisturbed one and ends with the same values, bit for bit, on one machine. So does one that several
    processes share, each with its ``settings.counts.shard`` of the chunks; a last run without a shard times.
    Methods and images may be more than the file has seen; ``denoiser`` is the model of the settings, if it is open.

    Raises:
        ValueError: the settings or a preset do not fit the model, the data, each other, or the run that the file holds.
        FileNotFoundError: the model's weights or the data are missing.
    """
    denoiser = denoiser or settings.model.open()
    for source in settings.presets:
        resolve(source, denoiser.model, data=settings.data.data)  # refuses a preset of another model
    data = settings.data.load(denoiser.image_size)
    conditions = class_conditions(denoiser, data)
    settings = replace(
        settings,
        sampling=settings.sampling.resolved(denoiser.kind),
        classifier=settings.classifier.resolved(sum(map(len, conditions)) or 1),
    )
    network = feature_network(
        settings.feature_network, denoiser.image_size, denoiser.device, quadrants=settings.data.data == "glyphs-scenes"
    )
    work = _Work(settings, denoiser, data, network, conditions)
    with Store.open(path, work.identity(), work.facts()) as store:
        machine = environment(denoiser.device, {"batch_size": settings.model.batch_size})
        store.begin_session(versions(), machine, settings.command)
        store.add_methods(settings.methods)
        work.count_flops(store)
        work.keep_reference(store)
        with progress_bar(work.total(store), progress, unit="forward", unit_scale=True, smoothing=0.05) as bar:
            for number, spec in enumerate(settings.methods, start=1):
                bar.set_description(f"[{number}/{len(settings.methods)}] {spec}")
                work.classify(store, spec, bar)
                work.generate(store, spec, bar)
        if settings.counts.share == (0, 1):
            work.time(store, progress)


@dataclass
class _Work:
    """What all methods share."""

    settings: Settings
    denoiser: Denoiser
    data: ImageCollection
    network: FeatureNetwork | None
    conditions: tuple[tuple[str | int, ...], ...]  # per class
    classifier: DiffusionClassifier | None = None

    def __post_init__(self) -> None:
        counts, batch_size = self.settings.counts, self.settings.model.batch_size
        self.sampling = self.settings.sampling.of(self.denoiser.kind, counts.seed, batch_size)
        self.positions = labelled(self.data, counts.classify)
        if counts.classify:
            if not self.conditions:
                raise ValueError(f"classify must be 0 (--classify 0) for {self.data.name}, which has no classes")
            self.classifier = self.settings.classifier.of(self.denoiser, self.conditions, counts.seed, batch_size)
        if counts.generate:
            self.sampling.scheduler(self.denoiser)  # refuses what it cannot do before anything is classified
            for entry in self.data.entries[: counts.generate]:
                if not entry.labels and (entry.caption is None or self.denoiser.kind == "class"):
                    raise ValueError(
                        f"generate must be 0 (--generate 0) for {self.data.name}: {entry.id!r} has neither label nor "
                        f"caption to generate an image for"
                    )

    def identity(self) -> dict[str, Any]:
        """Also of what the settings name: the weights and the prompts or labels."""
        words = json.dumps(self.conditions).encode()
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
            "forwards_per_generated_image": self.settings.sampling.forwards,
            "image_size": self.denoiser.image_size,
            "sample_shape": list(self.denoiser.sample_shape),
            "feature_network": "none" if self.network is None else self.network.name,
        }

    def total(self, store: Store) -> int:
        """Forwards that are missing."""
        total = 0
        for spec in self.settings.methods:
            if self.classifier is not None:
                total += self.classifier.forwards * sum(map(len, self._to_classify(store, spec)))
            total += self.settings.sampling.forwards * sum(map(len, self._to_generate(store, spec)))
        return total

    def _to_classify(self, store: Store, spec: str) -> list[dict[str, int]]:
        """The positions by id of what this process is to classify under a method, chunk by chunk."""
        if self.classifier is None:
            return []
        first_round = len(self.classifier.conditions) * self.classifier.elimination.first
        size = max(1, min(64, _CHUNK_FORWARDS * self.settings.model.batch_size // first_round))
        done, entries = store.classified_ids(spec), self.data.entries
        return [
            {entries[position].id: position for position in chunk if entries[position].id not in done}
            for chunk in self._mine(self.positions, size)
        ]

    def _to_generate(self, store: Store, spec: str) -> list[list[int]]:
        """The numbers of what this process is to generate under a method, chunk by chunk."""
        done, numbers = store.generated_images(spec), range(self.settings.counts.generate)
        chunks = self._mine(numbers, self.settings.model.batch_size)
        return [[number for number in chunk if number not in done] for chunk in chunks]

    def _mine(self, values: Sequence[int], size: int) -> list[Sequence[int]]:
        """The chunks that are this process's to do."""
        number, count = self.settings.counts.share
        return _chunks(values, size)[number::count]

    def classify(self, store: Store, spec: str, bar: Any) -> None:
        """Classifies what is missing under a method."""
        if self.classifier is None:
            return
        with applied(self.denoiser, spec):
            for todo in self._to_classify(store, spec):
                items = list(self.data.items(todo.values()))  # fewer, where bad images are skipped
                if items:
                    images = torch.stack([preprocess(item.image, self.denoiser.image_size) for item in items])
                    results = self.classifier.predict(images, [item.id for item in items])
                    pairs = zip(results, items, strict=True)
                    rows = [Classified(**vars(one), position=todo[one.id], labels=item.labels) for one, item in pairs]
                    store.add_classified(spec, rows)
                bar.update(len(todo) * self.classifier.forwards)

    def generate(self, store: Store, spec: str, bar: Any) -> None:
        """Generates what is missing under a method."""
        with applied(self.denoiser, spec):
            for todo in filter(None, self._to_generate(store, spec)):
                store.add_generated(spec, self._generated(todo))
                bar.update(len(todo) * self.settings.sampling.forwards)

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
        rows = zip(numbers, asked, images, recognised, features, strict=True)
        return [
            Generated(number, label, str(condition), encode_png(image), seen, values)
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

    def count_flops(self, store: Store) -> None:
        """Of all methods before any runs, so that one that does not fit the model is refused at once."""
        counted = store.flops()
        for spec in self.settings.methods:
            if spec not in counted:
                store.set_flops(spec, flops(self.denoiser, spec, self._any_condition()))

    def keep_reference(self, store: Store) -> None:
        """Features of the real images that FID compares with: the validation split of embedded data, else the data."""
        if self.network is None or not self.settings.counts.generate or store.reference() is not None:
            return
        real, size = self.settings.data, self.denoiser.image_size
        if real.is_embedded:
            real = replace(real, split="validation")
        data = self.data if real == self.settings.data else real.load(size)
        features = []
        for chunk in _chunks(range(min(len(data), REFERENCE_IMAGES)), 256):
            images = torch.stack([preprocess(item.image, size) for item in data.items(chunk)])
            features.append(self.network.features(to_uint8(images)))
        rows = np.concatenate(features)
        facts = {"data": data.name, "split": real.split, "images": len(rows)}
        store.set_reference(facts | {"network": self.network.name, "dimensions": rows.shape[1]}, rows)

    def time(self, store: Store, progress: bool) -> None:
        """Times all methods together, unless that was done on this machine already."""
        batch, rounds = self.settings.timing.timing_batch, self.settings.timing.timing_rounds
        shape = [batch, *self.denoiser.sample_shape]
        machine = environment(self.denoiser.device, {"dtype": self.settings.model.dtype, "sample": shape})
        specs = store.methods()
        timed_on, times = store.timing()
        if rounds == 0 or (timed_on == machine and all(len(times.get(spec, ())) >= rounds for spec in specs)):
            return
        with progress_bar(len(specs) * rounds, progress, desc="time") as bar:
            condition = self._any_condition()
            times = measure(self.denoiser, specs, condition, batch_size=batch, rounds=rounds, done=bar.update)
        store.set_timing(machine, times)

    def _any_condition(self) -> str | int:
        """What FLOPs and times are taken with; they do not depend on it."""
        return self.conditions[0][0] if self.conditions else self.denoiser.any_condition


def _of_predictions(classifier: DiffusionClassifier) -> dict[str, Any]:
    """What turns stored errors into probabilities, as fields of `Prediction`."""
    fitted = classifier.fitted
    return {
        "groups": [] if classifier.groups == tuple(range(classifier.classes)) else list(classifier.groups),
        "elements": math.prod(classifier.denoiser.sample_shape),
        "weights": [] if fitted is None else list(fitted.weights[: len(classifier.timesteps)]),
        "temperature": 1.0 if fitted is None else fitted.temperature,
    }


def _chunks(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[first : first + size] for first in range(0, len(values), size)]
