"""Why a method loses what it loses: what its layers still see, what each layer costs, and at which timesteps.

Each method is measured in all of its layers together and in each alone, on the same images and noise as the diffusion
classifier's. A piece that is measured goes at once into the file, so an analysis that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from bigain.backbones import compressed, recorded
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.explain.effects import Analysis, Piece, in_layer, margins, read_analysis
from bigain.explain.spectra import Spectrum, SpectrumMeter
from bigain.methods import Method, parse, spec
from bigain.run.files import write_whole
from bigain.run.opening import progress_bar, versions
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings, differences


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
    methods = [name for name in methods if name != "none"]
    if not methods:
        raise ValueError("give at least one method: no compression is what they are compared with")
    chosen = {name: _told_apart(name) for name in methods}
    denoiser = denoiser or model.open()
    layers = {name: _layers(denoiser, several) for name, several in chosen.items()}
    probe = Probe.of(model, data, settings, denoiser)
    probe.check_classes()
    identity = probe.identity() | {"bands": bands}
    analysis = Analysis(identity, probe.facts(), {}, {})
    if path.exists():
        analysis = read_analysis(path)
        if analysis.identity != identity:
            found = "; ".join(differences(analysis.identity, identity))
            raise ValueError(f"{path} holds another analysis: {found}. Give another folder with --out")
    analysis.layers.update(layers)
    wanted = ["none"]
    for name in methods:
        wanted += [name, *(in_layer(name, layer) for layer in layers[name])]
    missing = [name for name in dict.fromkeys(wanted) if name not in analysis.pieces]
    if missing and versions() not in analysis.facts["versions"]:
        analysis.facts["versions"].append(versions())
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(_forwards(probe, missing), progress, unit="forward", unit_scale=True, smoothing=0.05) as bar:
        for number, name in enumerate(missing, start=1):
            bar.set_description(f"[{number}/{len(missing)}] {name}")
            analysis.pieces[name] = _measure(probe, parse(name), bands, bar.update)
            _write(path, analysis)
    if not missing:  # a method may be new all the same, made of pieces of others
        _write(path, analysis)
    return analysis


def _write(path: Path, analysis: Analysis) -> None:
    write_whole(path, json.dumps(analysis.to_json(), indent=1, ensure_ascii=False) + "\n")


def _told_apart(name: str) -> tuple[Method, ...]:
    """The methods of a spec, if it can be told which of them acts where."""
    methods = parse(name)
    named = [layer for method in methods for layer in method.layers or ()]
    if len(methods) > 1 and (len(set(named)) < len(named) or any(method.layers is None for method in methods)):
        raise ValueError(
            f"{name!r} is {len(methods)} methods at once, of which it could not be told which costs what: give them "
            "one by one, or each its own layers (layers=0/2)"
        )
    for method in methods:
        if not method.leaves_a_spectrum:
            raise ValueError(
                f"{spec(method)!r} drops tokens and puts nothing in their place, so there is no spectrum of what stays"
                ": give a method that merges or pools"
            )
        if method.is_identity:
            raise ValueError(f"{spec(method)!r} compresses nothing by its settings: give a larger ratio or factor")
    return methods


def _layers(denoiser: Denoiser, methods: tuple[Method, ...]) -> tuple[int, ...]:
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


def _measure(probe: Probe, methods: tuple[Method, ...], bands: int, done: Callable[[int], object]) -> Piece:
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
        gaps_at=tuple(tuple(each.tolist()) for each, _ in at),
        correct_at=tuple(tuple(each.tolist()) for _, each in at),
        spectra=spectra,
    )


def _look(
    probe: Probe, methods: tuple[Method, ...], bands: int, done: Callable[[int], object]
) -> tuple[float, tuple[Spectrum, ...]]:
    """The change of the prediction under the true class, and the spectrum of every layer."""
    probe.plain(done)
    meter = SpectrumMeter(bands)
    with recorded(probe.denoiser.model, methods, meter.note):
        change = probe.change(done)
    return change, meter.spectra()
