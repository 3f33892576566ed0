"""Why a method loses what it loses: what its layers still see, what each layer costs, and at which timesteps.

Each method is measured in all of its layers together and in each alone, on the same images and noise as the diffusion
classifier's. A piece that is measured goes at once into the file, so an analysis that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bigain.backbones import Seen, compressed, recorded
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.explain.effects import FORMAT, Analysis, Piece, Spectrum, in_layer, margins, read_analysis
from bigain.methods import Compression, TokenDownsampling, TokenMerging
from bigain.metrics.spectrum import radial_power
from bigain.operators.assignment import merge, unmerge
from bigain.operators.grid import cell_index
from bigain.run.files import write_json
from bigain.run.opening import progress_bar, versions
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings, differences

_ROUNDING = 1e-12  # share of the power below which a band holds nothing but what float32 rounds


def analyse(
    methods: Sequence[str],
    path: Path,
    *,
    model: ModelSettings,
    data: DataSettings,
    settings: ProbeSettings,
    bands: int = 8,
    progress: bool = False,
    denoiser: Denoiser | None = None,
) -> Analysis:
    """Measures what is missing in the file ``path``; goes on where it was stopped.

    Args:
        methods: specs.
        path: of the analysis (.json), which is made if it is not there.
        model, data: see the groups.
        settings: images, timesteps (all evaluated for every class: nothing is eliminated), loss and seed.
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
    if bands < 1:
        raise ValueError(f"bands must be at least 1, not {bands}")
    chosen = {Compression.of(name).text: _told_apart(name) for name in methods if name != "none"}
    if not chosen:
        raise ValueError("methods must have at least one that compresses, not only none, which they are compared with")
    denoiser = denoiser or model.open()
    layers = {name: _layers(denoiser, compression) for name, compression in chosen.items()}
    probe = Probe.of(model, data, settings, denoiser)
    probe.check_classes()
    analysis = _begun(path, Analysis(probe.identity() | {"bands": bands}, probe.facts(), {}, {}))
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


def _begun(path: Path, new: Analysis) -> Analysis:
    """The analysis that the file holds, if it is of the same measurements; a new one where the file is missing."""
    if not path.exists():
        return new
    kept = read_analysis(path)
    if kept.identity != new.identity:
        differing = "; ".join(differences(kept.identity, new.identity))
        raise ValueError(f"{path} must hold this analysis, but {differing}: give another folder with --out")
    return kept


def _told_apart(name: str) -> Compression:
    """The methods of a spec, if it can be told which of them acts where."""
    methods = Compression.of(name)
    named = [layer for method in methods for layer in method.layers or ()]
    if len(methods) > 1 and (len(set(named)) < len(named) or any(method.layers is None for method in methods)):
        raise ValueError(
            f"methods that act together must each have their own layers (layers=0/2), to tell which costs what, not "
            f"{name!r}"
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
    """How many the pieces take: each all conditions, and each of a method a look under the true class.

    That is compared with a look without compression, which all methods share.
    """
    looks = sum(name != "none" for name in names)
    looked_at = (looks + bool(looks)) * len(probe.classifier.timesteps)
    return len(probe.items) * (looked_at + len(names) * probe.classifier.forwards)


def _measure(probe: Probe, methods: Compression, bands: int, done: Callable[[int], object]) -> Piece:
    """The piece of methods that act together, or of none.

    Args:
        done: called with numbers of forwards.
    """
    change, spectra = _look(probe, methods, bands, done) if methods else (0.0, ())
    with compressed(probe.denoiser.model, methods) if methods else nullcontext():
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


def _look(
    probe: Probe, methods: Compression, bands: int, done: Callable[[int], object]
) -> tuple[float, tuple[Spectrum, ...]]:
    """The change of the prediction under the true class, and the spectrum of every layer."""
    probe.plain(done)
    meter = SpectrumMeter(bands)
    with recorded(probe.denoiser.model, methods, meter.note):
        change = probe.change(done)
    return change, meter.spectra()


@dataclass
class SpectrumMeter:
    """Adds up the power of what methods meet; ``note`` is what `bigain.backbones.recorded` calls.

    Args:
        bands: as in `bigain.metrics.spectrum.radial_power`.
    """

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
    """What stays of the tokens that a layer was given, put back at every place: (B, N, C) in at least float32.

    Merged and un-merged; or pooled, each token of a window with what was made of its window.
    """
    method, x = seen.method, seen.tokens.to(torch.promote_types(seen.tokens.dtype, torch.float32))
    if isinstance(method, TokenMerging):
        assert seen.assignment is not None
        return unmerge(merge(x, seen.assignment, method.operator), seen.assignment)
    assert isinstance(method, TokenDownsampling)
    window = cell_index(seen.context.grid, (method.factor, method.factor), x.device)  # (N,)
    return method.pool(x, seen.context)[:, window]


def _spectrum(layer: int, powers: Tensor) -> Spectrum:
    """Of mean powers (3, bands)."""
    power, kept, error = powers.tolist()
    least = _ROUNDING * sum(power)

    def relative(values: list[float]) -> tuple[float | None, ...]:
        return tuple(value / whole if whole > least else None for value, whole in zip(values, power, strict=True))

    return Spectrum(layer, tuple(power), relative(kept), relative(error))
