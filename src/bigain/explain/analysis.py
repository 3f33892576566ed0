"""Why a method loses what it loses: what its layers still see, what each layer costs, and at which timesteps.

Each method is measured in all of its layers together and in each alone, on the same images and noise as the diffusion
classifier's. A piece that is measured goes at once into the file, so an analysis that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigain.backbones import Seen, compressed, recorded
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Compression, TokenDownsampling, TokenMerging
from bigain.metrics.accuracy import paired_difference
from bigain.operators.assignment import merge, unmerge
from bigain.operators.frequency import radial_power
from bigain.operators.grid import cell_index
from bigain.progress import progress_bar
from bigain.run.files import differences, read_json, versions, write_json
from bigain.run.probe import Probe

FORMAT = "bigain analysis 1"
_ROUNDING = 1e-12  # share of the power below which a band holds nothing but what float32 rounds


@dataclass(frozen=True)
class Spectrum:
    """What stays of the tokens in one layer, by radial frequency: (bands,) each, band 0 the lowest."""

    layer: int
    power: tuple[float, ...]  # of the tokens, the mean over channels, images and timesteps
    kept: tuple[float | None, ...]  # power of what stays of them, in units of ``power``; None where they have none
    error: tuple[float | None, ...]  # power of the difference, in the same units


@dataclass(frozen=True)
class Piece:
    """One method in some layers, or no compression, image by image."""

    change: float  # mean squared difference of the predictions under the true class to those without compression
    gaps: tuple[float, ...]  # (images,) error of the best wrong class minus that of the true one, by `margins`
    correct: tuple[bool, ...]  # (images,) whether the class of the least mean error is true
    gaps_at: tuple[tuple[float, ...], ...]  # (timesteps, images) the same of each timestep alone
    correct_at: tuple[tuple[bool, ...], ...]
    spectra: tuple[Spectrum, ...] = ()  # of the layers in which the method acts, in their order


@dataclass(frozen=True)
class Effect:
    """What a piece does to classification, over all images."""

    change: float  # of the prediction, as in `Piece`
    gap: float  # the mean
    shift: float  # mean over the images of the gap minus that without compression, and its standard deviation
    deviation: float
    accuracy: float  # share of the images
    difference: float  # accuracy minus that without compression, with its paired 95% interval
    low: float
    high: float
    gap_at: tuple[float, ...]  # (timesteps,) of each timestep alone
    accuracy_at: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was measured of a model under some methods."""

    identity: dict[str, Any]  # what all of it depends on
    facts: dict[str, Any]  # what tables and pictures need to know, see `bigain.run.probe.Probe.facts`
    layers: dict[str, tuple[int, ...]]  # the methods that were asked for, each with the layers in which it acts
    pieces: dict[str, Piece]  # by spec; "none", every method, and every method in each of its layers alone

    @property
    def methods(self) -> tuple[str, ...]:
        """The specs of which every piece was measured."""
        done = self.pieces.keys()
        return tuple(name for name in self.layers if {"none", name, *self.alone(name).values()} <= done)

    def alone(self, method: str) -> dict[int, str]:
        """The spec of a method in each of its layers alone."""
        return {layer: in_layer(method, layer) for layer in self.layers[method]}

    def effect(self, name: str) -> Effect:
        """Of the piece of that spec."""
        piece, plain = self.pieces[name], self.pieces["none"]
        shifts = np.subtract(piece.gaps, plain.gaps)
        difference, low, high = paired_difference(piece.correct, plain.correct)
        return Effect(
            change=piece.change,
            gap=float(np.mean(piece.gaps)),
            shift=float(shifts.mean()),
            deviation=float(shifts.std(ddof=1)),
            accuracy=float(np.mean(piece.correct)),
            difference=difference,
            low=low,
            high=high,
            gap_at=tuple(np.mean(piece.gaps_at, axis=1).tolist()),
            accuracy_at=tuple(np.mean(piece.correct_at, axis=1).tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, and the effects of the pieces, for whoever reads the file."""
        compared = [name for name in self.pieces if name != "none"] if "none" in self.pieces else []
        return {**asdict(self), "effects": {name: asdict(self.effect(name)) for name in compared}}


def read_analysis(path: Path) -> Analysis:
    """Reads the file of an analysis, finished or not; anything else is a ValueError."""

    def made(content: Mapping[str, Any]) -> Analysis:
        layers = {name: tuple(numbers) for name, numbers in content["layers"].items()}
        pieces = {name: _piece(values) for name, values in content["pieces"].items()}
        return Analysis(content["identity"], content["facts"], layers, pieces)

    return read_json(path, FORMAT, "an analysis of bigain analyse", made)


def in_layer(method: str, layer: int) -> str:
    """The spec of what acts in one layer, in that layer alone, of methods in different layers."""
    return Compression(
        replace(one, levels=(1,), layers=(layer,))
        for one in Compression.of(method)
        if one.layers is None or layer in one.layers
    ).text


def margins(
    errors: npt.NDArray[Any], groups: Sequence[int], labels: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """By how much the true class beats the best wrong one, and whether the diffusion classifier finds it.

    An error is the mean over the timesteps; a class counts by its best condition, several true classes by the best.

    Args:
        errors: (images, conditions, timesteps), all evaluated.
        groups: (conditions,) the class of each condition.
        labels: per image its true classes; at least one class must be wrong.

    Returns:
        (images,) gaps, above 0 where the true class wins; and (images,) whether the class of the least error (the first
        on ties) is true.
    """
    means = errors.astype(np.float64).mean(axis=2)  # (images, conditions)
    true = np.array([[group in shown for group in groups] for shown in labels])
    best_true = np.where(true, means, np.inf).min(axis=1)
    best_wrong = np.where(true, np.inf, means).min(axis=1)
    return best_wrong - best_true, true[np.arange(len(means)), means.argmin(axis=1)]


def _piece(values: dict[str, Any]) -> Piece:
    spectra = tuple(Spectrum(**{name: _frozen(value) for name, value in one.items()}) for one in values["spectra"])
    return Piece(**{name: _frozen(value) for name, value in values.items()} | {"spectra": spectra})


def _frozen(value: Any) -> Any:
    """The same with tuples for JSON's lists."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def analyse(
    probe: Probe, methods: Sequence[Compression | str], path: Path, *, bands: int = 8, progress: bool = False
) -> Analysis:
    """Measures what is missing in the file ``path`` (.json), with ``bands`` of radial frequency; returns all it holds.

    ValueError for a method that cannot be analysed or does not fit the model, or a file of another analysis.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, not {bands}")
    chosen = {one.text: _told_apart(one) for one in map(Compression.of, methods) if one}
    if not chosen:
        raise ValueError("methods must have at least one that compresses, not only none, which they are compared with")
    layers = {name: _layers(probe.denoiser, compression) for name, compression in chosen.items()}
    fresh = Analysis(probe.identity() | {"bands": bands}, probe.facts(), {}, {})
    analysis = read_analysis(path) if path.exists() else fresh
    if differing := differences(analysis.identity, fresh.identity):
        raise ValueError(f"{path} must hold this analysis, but {differing}: give another folder with --out")
    analysis.layers.update(layers)
    names = ["none"]
    for name in chosen:
        names += [name, *(in_layer(name, layer) for layer in layers[name])]
    missing = [name for name in dict.fromkeys(names) if name not in analysis.pieces]
    if missing and versions() not in analysis.facts["versions"]:
        analysis.facts["versions"].append(versions())
    with progress_bar(_forwards(probe, missing), progress, unit="forward", unit_scale=True, smoothing=0.05) as bar:
        for number, name in enumerate(missing, start=1):
            bar.set_description(f"[{number}/{len(missing)}] {name}")
            analysis.pieces[name] = _measure(probe, Compression.of(name), bands, bar.update)
            write_json(path, FORMAT, analysis.to_json())
    if not missing:  # a method may be new all the same, made of pieces of others
        write_json(path, FORMAT, analysis.to_json())
    return analysis


def _told_apart(methods: Compression) -> Compression:
    """The same methods, if it can be told which of them acts where."""
    named = [layer for method in methods for layer in method.layers or ()]
    if len(methods) > 1 and (len(set(named)) < len(named) or any(method.layers is None for method in methods)):
        raise ValueError(
            f"methods that act together must each have their own layers (layers=0/2), to tell which costs what, not "
            f"{methods.text!r}"
        )
    for method in methods:
        text = Compression.of(method).text
        if not method.leaves_a_spectrum:
            raise ValueError(f"methods must merge or pool, not drop tokens, which leaves no spectrum, as {text!r} does")
        if method.is_identity:
            raise ValueError(f"methods must compress by their ratio or factor, not be the identity: {text!r}")
    return methods


def _layers(denoiser: Denoiser, methods: Compression) -> tuple[int, ...]:
    """The layers in which methods act, once it is clear that they fit the model."""
    with compressed(denoiser.model, methods):  # raises where they do not fit
        pass
    layers = layout(denoiser.model).layers
    return tuple(
        number for number, layer in enumerate(layers) if any(method.includes(layer.level, number) for method in methods)
    )


def _forwards(probe: Probe, names: list[str]) -> int:
    """How many the pieces take: each all conditions, each method a look under the true class, and one look without."""
    looks = sum(name != "none" for name in names)
    looked_at = (looks + bool(looks)) * len(probe.classifier.timesteps)
    return len(probe.items) * (looked_at + len(names) * probe.classifier.forwards)


def _measure(probe: Probe, methods: Compression, bands: int, done: Callable[[int], object]) -> Piece:
    """The piece of methods that act together, or of none; ``done`` is called with numbers of forwards."""
    model = probe.denoiser.model
    change, spectra = 0.0, tuple[Spectrum, ...]()
    if methods:
        probe.plain(done)
        meter = SpectrumMeter(bands)
        with recorded(model, methods, meter.note):
            change = probe.change(done)
        spectra = meter.spectra()
    with compressed(model, methods) if methods else nullcontext():
        errors = probe.errors(done)
    groups, labels = probe.classifier.groups, [item.labels for item in probe.items]
    gaps, correct = margins(errors, groups, labels)
    at = [margins(errors[:, :, [position]], groups, labels) for position in range(errors.shape[2])]
    return Piece(
        change=change,
        gaps=tuple(gaps.tolist()),
        correct=tuple(correct.tolist()),
        gaps_at=tuple(tuple(values.tolist()) for values, _ in at),
        correct_at=tuple(tuple(values.tolist()) for _, values in at),
        spectra=spectra,
    )


@dataclass
class SpectrumMeter:
    """Adds up the power of what methods meet in ``bands``; ``note`` is what `bigain.backbones.recorded` calls."""

    bands: int
    # By layer (3, bands), float64: of the tokens, of what stays of them, of the difference.
    powers: dict[int, Tensor] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def note(self, seen: Seen) -> None:
        """Adds the tokens of one layer of one forward."""
        left = remaining(seen)
        x, layer = seen.tokens.to(left.dtype), seen.context.layer
        parts = [radial_power(part, seen.context.grid, self.bands) for part in (x, left, x - left)]
        powers = torch.stack([part.double().sum(dim=0) for part in parts]).cpu()
        self.powers[layer] = self.powers[layer] + powers if layer in self.powers else powers
        self.rows[layer] = self.rows.get(layer, 0) + len(x)

    def spectra(self) -> tuple[Spectrum, ...]:
        """Of all that was noted, in the order of the layers."""
        return tuple(_spectrum(layer, self.powers[layer] / self.rows[layer]) for layer in sorted(self.powers))


def remaining(seen: Seen) -> Tensor:
    """What stays of the tokens that a layer was given, at every place: (B, N, C), in at least float32."""
    method, x = seen.method, seen.tokens.to(torch.promote_types(seen.tokens.dtype, torch.float32))
    if isinstance(method, TokenMerging):
        assert seen.assignment is not None
        return unmerge(merge(x, seen.assignment, method.operator), seen.assignment)
    assert isinstance(method, TokenDownsampling)
    window = cell_index(seen.context.grid, method.window, x.device)  # (N,)
    return method.pool(x, seen.context)[:, window]


def _spectrum(layer: int, powers: Tensor) -> Spectrum:
    """Of mean powers (3, bands)."""
    power, kept, error = powers.tolist()
    least = _ROUNDING * sum(power)

    relative = (
        tuple(value / whole if whole > least else None for value, whole in zip(values, power, strict=True))
        for values in (kept, error)
    )
    return Spectrum(layer, tuple(power), *relative)
