"""What every candidate saves and changes in every layer, estimated or measured, in a file that keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from bigain.backbones import compressed
from bigain.methods import Compression, Method
from bigain.run.cost import block_flops, flops
from bigain.run.files import differences, read_json, write_json
from bigain.run.probe import Probe
from bigain.search.estimate import estimate
from bigain.search.offers import Offer, Offers, Space, in_layers, usual_candidates
from bigain.search.ranges import Range

_FORMAT = "bigain offers 5"
Changes: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]  # of the prediction and the difference, at each t


@dataclass(frozen=True)
class Measured:
    """One candidate in one layer, at every t."""

    layer: int
    method: str  # spec of the candidate in this layer alone
    saved: int  # FLOPs of a forward of one image
    change: tuple[float, ...]  # as in `Offer`, at each of the record's timesteps
    contrast: tuple[float, ...]

    def offer(self, place: Range, timesteps: Sequence[int]) -> Offer:
        """In a range of t."""
        [method] = Compression.of(self.method)
        return Offer(
            self.layer,
            Compression.of(replace(method, timesteps=place.timesteps)).text,
            round(place.weight * self.saved),
            place.weight * place.mean(self.change, timesteps),
            place.weight * place.mean(self.contrast, timesteps),
            place.timesteps,
            place.weight,
        )


@dataclass(frozen=True)
class Record:
    """What was measured of a model."""

    identity: Mapping[str, Any]  # what all of it depends on
    flops: int  # of a forward of one image without compression
    timesteps: tuple[int, ...]
    measured: tuple[Measured, ...] = ()
    wholes: Mapping[str, Changes] = field(default_factory=dict)  # of choices as a whole, by spec

    def offers(self, ranges: Iterable[Range] = (Range(),)) -> Offers:
        """What the layers offer in each range.

        ValueError, where there are several ranges, for a ratio that follows t, and for methods around MLPs and around
        blocks, which cannot take turns in a layer.
        """
        ranges = tuple(ranges)
        for one in self.measured if len(ranges) > 1 else ():
            if Compression.of(one.method)[0].is_scheduled:
                raise ValueError(f"a candidate must have one ratio where there are ranges of t, not {one.method!r}")
        places = {getattr(Compression.of(one.method)[0], "locations", ()) for one in self.measured}
        if len(ranges) > 1 and {("mlp",), ("block",)} <= places:
            raise ValueError(
                "candidates must not be both of locations=mlp and locations=block where there are ranges of t"
            )
        found = (one.offer(place, self.timesteps) for one in self.measured for place in ranges)
        return Offers(self.identity, self.flops, tuple(found))


def measure_offers(
    probe: Probe,
    path: Path,
    *,
    candidates: Sequence[str] | None = None,
    exact: bool = False,
    counted: Callable[[int, int], object] = lambda done, of: None,
) -> Record:
    """Every candidate in every layer alone whose grid it suits; what ``path`` (.json), if any, holds is not done again.

    Args:
        candidates: specs of one method each, whose layers and levels are replaced; `usual_candidates` if left out.
        exact: whether changes are measured, one candidate in one layer at a time, and not estimated: see
            `bigain.search.estimate`.
        counted: called with how much is done, and of how much, now and then.

    ValueError for a candidate that is several methods or none, suits no layer, is cached or follows a threshold; a
    change that is not finite; or a file of other measurements.
    """
    denoiser = probe.denoiser
    space = Space.of(denoiser)
    placed = in_layers(usual_candidates(denoiser, space) if candidates is None else candidates, space)
    record = kept_record(probe, path, exact)
    by_method = {one.method: one for one in record.measured}
    missing = [(layer, method) for layer, method in placed if Compression.of(method).text not in by_method]
    if missing:
        saved = _saved(probe, missing)
        separations = probe.separations()
        found = _one_by_one(probe, missing) if exact else estimate(probe, missing, counted)
        changes = (_relative(change, separations) for change in found)
        done = len(placed) - len(missing)
        for number, ((layer, method), change) in enumerate(zip(missing, changes, strict=True), start=1):
            name = Compression.of(method).text
            _check_finite(change, name, probe)
            by_method[name] = Measured(layer, name, saved[layer, method], *change)
            if exact or number == len(missing):
                write_record(path, replace(record, measured=tuple(by_method.values())))
            if exact:
                counted(done + number, len(placed))
    return replace(record, measured=tuple(by_method[Compression.of(method).text] for _, method in placed))


def whole(probe: Probe, path: Path, methods: Compression, exact: bool) -> Changes:
    """What methods change together, measured; or as ``path`` has it."""
    record = kept_record(probe, path, exact)
    if methods.text in record.wholes:
        return record.wholes[methods.text]
    changes = _relative(_changes(probe, methods), probe.separations())
    _check_finite(changes, methods.text, probe)
    write_record(path, replace(record, wholes={**record.wholes, methods.text: changes}))
    return changes


def kept_record(probe: Probe, path: Path, exact: bool) -> Record:
    """What a file holds, or an empty record where there is none; ValueError where it is of other measurements."""
    identity = probe.identity() | {"exact": exact}
    if not path.exists():
        timesteps = tuple(probe.classifier.timesteps.tolist())
        return Record(identity, flops(probe.denoiser, "none", probe.denoiser.any_condition), timesteps)
    kept = read_record(path)
    if differing := differences(kept.identity, identity):
        raise ValueError(
            f"{path} must hold the offers of these measurements, but {differing}: give another folder with --out"
        )
    return kept


def read_record(path: Path) -> Record:
    """Reads what ``measure_offers`` wrote; anything else is a ValueError."""

    def made(content: Mapping[str, Any]) -> Record:
        measured = (
            Measured(**one | {name: tuple(one[name]) for name in ("change", "contrast")}) for one in content["measured"]
        )
        wholes = {name: (tuple(change), tuple(contrast)) for name, (change, contrast) in content["wholes"].items()}
        return Record(content["identity"], content["flops"], tuple(content["timesteps"]), tuple(measured), wholes)

    return read_json(path, _FORMAT, "offers of bigain allocate", made)


def write_record(path: Path, record: Record) -> None:
    """Writes a file that ``read_record`` reads."""
    write_json(path, _FORMAT, asdict(record))


def _saved(probe: Probe, placed: Sequence[tuple[int, Method]]) -> dict[tuple[int, Method], int]:
    """The FLOPs that each candidate saves in its layer, by a forward of each candidate in all of its layers."""
    denoiser = probe.denoiser
    groups: dict[Method, list[int]] = {}
    for layer, method in placed:
        groups.setdefault(replace(method, layers=None), []).append(layer)
    plain = block_flops(denoiser, "none", denoiser.any_condition)
    saved: dict[tuple[int, Method], int] = {}
    for method, layers in groups.items():
        counts = block_flops(denoiser, replace(method, layers=tuple(layers)), denoiser.any_condition)
        saved |= {(layer, replace(method, layers=(layer,))): plain[layer] - counts[layer] for layer in layers}
    return saved


def _one_by_one(probe: Probe, placed: Sequence[tuple[int, Method]]) -> Iterable[Changes]:
    return (_changes(probe, Compression.of(method)) for _, method in placed)


def _changes(probe: Probe, methods: Compression) -> Changes:
    """Of the prediction, and of its difference between two classes."""
    probe.plain()
    probe.plain(other=True)
    with compressed(probe.denoiser.model, methods):
        return probe.changes()


def _relative(changes: Changes, separations: Sequence[float]) -> Changes:
    """Changes as shares of what lies between two classes at the same timestep."""
    change, contrast = (
        tuple(value / whole for value, whole in zip(values, separations, strict=True)) for values in changes
    )
    return change, contrast


def _check_finite(changes: Changes, name: str, probe: Probe) -> None:
    change, contrast = map(math.fsum, changes)
    if not math.isfinite(change + contrast):
        raise ValueError(
            f"the changes of the prediction and of its difference between two classes must be finite, not {change} "
            f"and {contrast}, under {name} in {probe.model.dtype}: give another dtype"
        )
