"""Why a method loses what it loses: what its layers still see, what each layer costs, and at which timesteps.

Each method is measured in all of its layers together and in each alone, on the same images and noise as the diffusion
classifier's. A piece that is measured goes at once into the file, so an analysis that was stopped goes on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain.backbones import compressed, recorded
from bigain.backbones.families import layout
from bigain.classify import DiffusionClassifier, keyed_prediction, paired_noise
from bigain.data import ImageCollection, Item, preprocess
from bigain.diffusion import Denoiser, image_key, open_model
from bigain.evaluate.effects import Analysis, Piece, in_layer, margins, read_analysis
from bigain.evaluate.engine import class_conditions, fingerprint, load_data, progress_bar, versions
from bigain.evaluate.export import write_whole
from bigain.evaluate.plan import Settings, differences, identity_hash
from bigain.evaluate.spectra import Spectrum, SpectrumMeter
from bigain.methods import FrequencySelection, Method, ToDo, parse

_FEWEST_IMAGES = 2  # of which there is a standard deviation
_CHUNK_FORWARDS = 8  # batches of a chunk of images, so that few are half empty
_IDENTITY = ("model", "variant", "data", "split", "classes", "prompts_csv", "loss", "seed", "dtype")


def analyse(
    settings: Settings,
    path: Path,
    *,
    timesteps: int = 8,
    bands: int = 8,
    progress: bool = False,
    denoiser: Denoiser | None = None,
) -> Analysis:
    """Measures what is missing in the file ``path``; goes on where it was stopped.

    Args:
        settings: the model, data, methods, loss, seed and so on; ``classify`` is the number of images. The stages of
            the classifier and all that concerns generation and times are ignored.
        path: of the analysis (.json), which is made if it is not there.
        timesteps: evenly spaced, all evaluated for every class: nothing is eliminated.
        bands: of radial frequency.
        progress: whether to show a bar that counts forwards.
        denoiser: the model that the settings name, where it is open already.

    Returns:
        All that the file holds.

    Raises:
        ValueError: a method that cannot be analysed, settings that do not fit the model or the data, or a file of
            another analysis; says which fields differ.
        FileNotFoundError: the model's weights or the data are missing.
    """
    for name, value in (("timesteps", timesteps), ("bands", bands)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    methods = [name for name in settings.methods if name != "none"]
    if not methods:
        raise ValueError("give at least one method: no compression is what they are compared with")
    chosen = {name: _only(name) for name in methods}
    settings = replace(settings, to_keep=(1,), n_samples=(timesteps,))
    if denoiser is None:
        denoiser = open_model(
            settings.model, dtype=getattr(torch, settings.dtype), device=settings.device, variant=settings.variant
        )
    layers = {name: _layers(denoiser, method) for name, method in chosen.items()}
    work = _Work.of(settings, denoiser, bands)
    analysis = Analysis(work.identity(), work.facts(), {}, {})
    if path.exists():
        analysis = read_analysis(path)
        if analysis.identity != work.identity():
            found = "; ".join(differences(analysis.identity, work.identity()))
            raise ValueError(f"{path} holds another analysis: {found}. Give another folder with --out")
    analysis.layers.update(layers)
    wanted = ["none"]
    for name in methods:
        wanted += [name, *(in_layer(name, layer) for layer in layers[name])]
    missing = [name for name in dict.fromkeys(wanted) if name not in analysis.pieces]
    if missing and versions() not in analysis.facts["versions"]:
        analysis.facts["versions"].append(versions())
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(work.forwards(missing), progress, unit="forward", unit_scale=True, smoothing=0.05) as bar:
        for number, name in enumerate(missing, start=1):
            bar.set_description(f"[{number}/{len(missing)}] {name}")
            analysis.pieces[name] = work.measure(parse(name), bar.update)
            _write(path, analysis)
    if not missing:  # a method may be new all the same, made of pieces of others
        _write(path, analysis)
    return analysis


def sensitivities(settings: Settings, denoiser: Denoiser, *, images: int = 8, timesteps: int = 4) -> list[float]:
    """How much the prediction changes if a layer's keys and values alone are halved along each side, for every layer.

    The mean squared change under the true class, on the noise of the diffusion classifier; no class is told from
    another, so few images do. Layers in the order of the forward.

    Args:
        settings: the data, split, seed and batch size.
        images: the first that have a label, as many of them as there are.
        timesteps: evenly spaced.

    Raises:
        ValueError: the data do not fit the model, or have fewer than two images or classes.
    """
    data = load_data(settings, denoiser, settings.split)
    images = min(images, sum(bool(entry.labels) for entry in data.entries))
    work = _Work.of(replace(settings, classify=images, to_keep=(1,), n_samples=(timesteps,)), denoiser, bands=1)
    where = layout(denoiser.model)
    every = tuple(range(1, where.levels + 1))
    methods = (ToDo(factor=2, levels=every, layers=(layer,)) for layer in range(len(where.layers)))
    return [work.change(method) for method in methods]


def _write(path: Path, analysis: Analysis) -> None:
    write_whole(path, json.dumps(analysis.to_json(), indent=1, ensure_ascii=False) + "\n")


def _only(name: str) -> Method:
    """The one method of a spec, if it can be analysed."""
    methods = parse(name)
    if len(methods) > 1:
        raise ValueError(
            f"{name!r} is {len(methods)} methods at once, of which it could not be told which costs what: give them "
            "one by one"
        )
    [method] = methods
    if isinstance(method, FrequencySelection):
        raise ValueError(
            f"{name!r} drops tokens and puts nothing in their place, so there is no spectrum of what stays: give a "
            "method that merges or pools"
        )
    if method.is_identity:
        raise ValueError(f"{name!r} compresses nothing by its settings: give a larger ratio or factor")
    return method


def _layers(denoiser: Denoiser, method: Method) -> tuple[int, ...]:
    """The layers in which a method acts, once it is clear that it fits the model."""
    with compressed(denoiser.model, method):  # raises where it does not fit
        pass
    layers = layout(denoiser.model).layers
    return tuple(number for number, layer in enumerate(layers) if method.includes(layer.level, number))


@dataclass
class _Work:
    """What all pieces share: the classifier, and the images with their labels."""

    settings: Settings
    classifier: DiffusionClassifier
    data: ImageCollection
    items: list[Item]
    bands: int
    _before: list[Tensor] = field(default_factory=list, init=False)  # what _plain has made

    @classmethod
    def of(cls, settings: Settings, denoiser: Denoiser, bands: int) -> _Work:
        """Opens the data and decodes the first images that have a label."""
        data = load_data(settings, denoiser, settings.split)
        conditions = class_conditions(denoiser, data)
        if len(conditions) < 2:
            raise ValueError(f"{data.name} has {len(conditions)} classes: there must be two at least to tell apart")
        labelled = [position for position, entry in enumerate(data.entries) if entry.labels]
        if not _FEWEST_IMAGES <= settings.classify <= len(labelled):
            raise ValueError(
                f"the number of images must lie in [{_FEWEST_IMAGES}, {len(labelled)}], which {data.name} has with a "
                f"label, not {settings.classify}"
            )
        items = list(data.items(labelled[: settings.classify]))  # fewer, where bad images are skipped
        if len(items) < _FEWEST_IMAGES:
            raise ValueError(f"{len(items)} of {settings.classify} images could be read: there must be two at least")
        for item in items:
            if len({*item.labels}) == len(conditions):
                raise ValueError(f"{item.id!r} shows every class, so there is no wrong one to compare with")
        classifier = DiffusionClassifier(
            denoiser,
            conditions,
            to_keep=settings.to_keep,
            n_samples=settings.n_samples,
            loss=settings.loss,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        return cls(settings, classifier, data, items, bands)

    @property
    def denoiser(self) -> Denoiser:
        return self.classifier.denoiser

    def identity(self) -> dict[str, Any]:
        """What all numbers depend on; batch size and device change them by rounding alone."""
        known = self.settings.identity()
        shown = [[item.id, list(item.labels)] for item in self.items]
        words = [self.classifier.conditions.names, self.classifier.groups]
        return {field: known[field] for field in _IDENTITY} | {
            "images": len(self.items),
            "timesteps": len(self.classifier.timesteps),
            "bands": self.bands,
            "weights": fingerprint(*self.denoiser.networks),
            "shown": identity_hash({"images": shown})[:16],
            "conditions": identity_hash({"conditions": words})[:16],
        }

    def facts(self) -> dict[str, Any]:
        """What tables and pictures need to know; the versions are added as they take part, in order of first use."""
        return {
            "data": self.data.name,
            "multi_label": self.data.multi_label,
            "classes": self.classifier.classes,
            "timesteps": self.classifier.timesteps.tolist(),
            "images": {item.id: list(item.labels) for item in self.items},
            "layers": [layer.name for layer in layout(self.denoiser.model).layers],
            "versions": [],
        }

    def forwards(self, names: list[str]) -> int:
        """How many the pieces take: each all conditions, and each of a method a look under the true class.

        That is compared with a look without compression, which all methods share.
        """
        looks = sum(name != "none" for name in names)
        looked_at = (looks + bool(looks)) * len(self.classifier.timesteps)
        return len(self.items) * (looked_at + len(names) * self.classifier.forwards)

    def measure(self, methods: tuple[Method, ...], done: Callable[[int], object]) -> Piece:
        """The piece of one method, or of none.

        Args:
            done: called with numbers of forwards.
        """
        change, spectra = self._look(methods[0], done) if methods else (0.0, ())
        with compressed(self.denoiser.model, methods) if methods else nullcontext():
            errors = self._errors(done)
        groups, labels = self.classifier.groups, [item.labels for item in self.items]
        gaps, correct = margins(errors, groups, labels)
        at = [margins(errors[:, :, [position]], groups, labels) for position in range(errors.shape[2])]
        return Piece(
            change=change,
            gaps=tuple(gaps.tolist()),
            correct=tuple(correct.tolist()),
            gaps_at=tuple(tuple(each.tolist()) for each, _ in at),
            correct_at=tuple(tuple(each.tolist()) for _, each in at),
            spectra=spectra,
        )

    def change(self, method: Method) -> float:
        """The change of the prediction under the true class."""
        return self._look(method, lambda _: None)[0]

    def _look(self, method: Method, done: Callable[[int], object]) -> tuple[float, tuple[Spectrum, ...]]:
        """The change of the prediction under the true class, and the spectrum of every layer."""
        plain, meter = self._plain(done), SpectrumMeter(method, self.bands)
        changes = []
        with recorded(self.denoiser.model, method, meter.note):
            for part, before in zip(self._predictions(), plain, strict=True):
                changes.append((part - before).double().square().flatten(1).mean(1))
                done(len(part))
        return float(torch.cat(changes).mean()), meter.spectra()

    def _plain(self, done: Callable[[int], object]) -> list[Tensor]:
        """The predictions without compression, batch by batch; made once."""
        if not self._before:
            for part in self._predictions():
                self._before.append(part)
                done(len(part))
        return self._before

    @functools.cached_property
    def _clean(self) -> Tensor:
        """x0 of all images, (images, C, h, w)."""
        return torch.cat([self.denoiser.encode(self._images(chunk)) for chunk in self._chunks()])

    def _chunks(self) -> list[list[Item]]:
        """The images, as many at once as fill a few batches of the classifier."""
        size = max(1, min(8, _CHUNK_FORWARDS * self.settings.batch_size // self.classifier.forwards))
        return [self.items[first : first + size] for first in range(0, len(self.items), size)]

    def _images(self, items: list[Item]) -> Tensor:
        return torch.stack([preprocess(item.image, self.denoiser.image_size) for item in items])

    def _errors(self, done: Callable[[int], object]) -> npt.NDArray[np.float32]:
        """Of all classes at all timesteps, (images, conditions, timesteps)."""
        found = []
        for chunk in self._chunks():
            found += self.classifier.classify(self._images(chunk), [item.id for item in chunk])
            done(len(chunk) * self.classifier.forwards)
        return np.stack([each.errors for each in found])

    def _predictions(self) -> Iterator[Tensor]:
        """Of all images at all timesteps under the first condition of the (first) true class: (B, C, h, w) on the CPU.

        Noise and keys are the classifier's, so a method sees what it sees there.
        """
        classifier, denoiser = self.classifier, self.denoiser
        process, device, count = denoiser.process, denoiser.device, len(classifier.timesteps)
        keys = torch.tensor([image_key(item.id) for item in self.items])
        true = torch.tensor([classifier.groups.index(item.labels[0]) for item in self.items])
        total, shape = len(self.items) * count, self._clean.shape[1:]
        for first in range(0, total, classifier.batch_size):
            row = torch.arange(first, min(first + classifier.batch_size, total))
            image, t = row // count, classifier.timesteps[row % count]
            pairs = zip(image.tolist(), t.tolist(), strict=True)
            noise = torch.stack([paired_noise(classifier.seed, self.items[i].id, at, shape) for i, at in pairs])
            x_t = process.noise(self._clean[image.to(device)], noise.to(device), t)
            yield keyed_prediction(denoiser, x_t, t, classifier.conditions, true[image], keys[image]).cpu()
