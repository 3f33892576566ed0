"""What layers offer, and which takes which method: the least change of the predictions for the FLOPs to be saved.

Layers differ by orders of magnitude in what their compression costs. Each candidate is therefore measured in each layer
alone, and the layers' choices are put together so that the sum of the costs is least. That costs add up is an
assumption. Not in a paper.

The cost of an offer is the mean squared change of the prediction, and `CONTRAST_WEIGHT` times that of the difference
between two classes' predictions. Classes are told apart by that difference, which is small beside a prediction, so what
changes all classes alike costs a classifier little; and guidance draws by a multiple of such a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method, ToDo, TokenMerging
from bigain.operators.grid import Grid
from bigain.run.cost import flops, forward_of
from bigain.run.files import read_json, write_json
from bigain.run.probe import Probe
from bigain.run.settings import differences

CONTRAST_WEIGHT = 3.0  # of the change of the difference between two classes' predictions; that of the prediction has 1
_STEPS = 4096  # into which the FLOPs to be saved are divided
_PLACES = ("self_attention", "self_attention/mlp")
_BLOCKS = "size_aware=true,features=first"
_MATCHED = "size_aware=true,destinations=random"
CANDIDATES: tuple[str, ...] = (
    *(
        f"quadtree:ratio={ratio},locations={place},{_BLOCKS}"
        for place in _PLACES
        for ratio in (0.3, 0.4, 0.5, 0.6, 0.9)
    ),
    *(f"abm:ratio={ratio},locations={place},{_BLOCKS}" for place in _PLACES for ratio in (0.3, 0.5)),
    *(f"quadtree:ratio={ratio},queries=full,{_BLOCKS}" for ratio in (0.75, 0.9)),
    *(f"tome:ratio={ratio},queries=full,{_MATCHED}" for ratio in (0.5, 0.75)),
    *(f"tome:ratio={ratio},cell=4x4,locations={place},{_MATCHED}" for place in _PLACES for ratio in (0.8, 0.9)),
    *(f"tome:ratio={ratio},locations=self_attention/mlp,{_MATCHED}" for ratio in (0.3, 0.5, 0.7)),
    "avgpool:factor=2",
    "avgpool:factor=4",
    "iekvd:factor=2",
    "iekvd:factor=2,alpha=0.5",
)
"""Each layer's choice, if no others are given: all of the attention, the MLP too, or keys and values alone, merged by
blocks or by matching; and keys and values pooled."""

_FORMAT = "bigain offers 3"


@dataclass(frozen=True)
class Offer:
    """One candidate in one layer."""

    layer: int  # number of the transformer block
    method: str  # spec of the candidate in this layer alone
    saved: int  # FLOPs of a forward of one image; or its nanoseconds, see `Clocked.in_time`
    change: float  # mean squared change of the prediction under the true class
    contrast: float  # and of the difference between the predictions under the true and another class

    def cost(self, contrast_weight: float = CONTRAST_WEIGHT) -> float:
        """What an allocation minimises: ``change + contrast_weight * contrast``."""
        return self.change + contrast_weight * self.contrast

    @property
    def candidate(self) -> Compression:
        """The method without the layer."""
        [method] = Compression.of(self.method)
        return Compression.of(replace(method, layers=None))


@dataclass(frozen=True)
class Allocation:
    """The offers that were taken, one in a layer at most, in the order of the layers."""

    offers: tuple[Offer, ...]

    @property
    def methods(self) -> Compression:
        """The methods that act together, with one config for all layers that take the same."""
        return Compression(method for method, _ in together(self.offers))

    @property
    def saved(self) -> int:
        """In the unit of the offers: FLOPs of a forward of one image."""
        return sum(offer.saved for offer in self.offers)

    @property
    def change(self) -> float:
        """Sum of the changes that each layer's method makes alone."""
        return math.fsum(offer.change for offer in self.offers)

    @property
    def contrast(self) -> float:
        """Sum of the changes of the difference between classes."""
        return math.fsum(offer.contrast for offer in self.offers)


@dataclass(frozen=True)
class Space:
    """Where a method may act: the resolution level of each transformer block, and the grid of level 1, 2, …"""

    levels: tuple[int, ...]
    grids: tuple[Grid, ...]

    @classmethod
    def of(cls, denoiser: Denoiser) -> Space:
        """Of an open model, whose grids one forward shows."""
        where = layout(denoiser.model)
        with compressed(denoiser.model, ToDo(factor=2, levels=tuple(range(1, where.levels + 1)))) as handle:
            forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(1))()
            shown = {row.layer: row for row in handle.summary()}
        grids = {layer.level: Grid(*shown[layer.name].grid) for layer in where.layers}
        return cls(tuple(layer.level for layer in where.layers), tuple(grids[level] for level in sorted(grids)))


@dataclass(frozen=True)
class Offers:
    """What all layers offer, and the FLOPs of a forward of one image without compression."""

    identity: Mapping[str, Any]
    flops: int
    offers: tuple[Offer, ...]

    def in_flops(self, chosen: Allocation) -> Allocation:
        """The same choice, with the FLOPs that its offers save, whatever their unit is."""
        by_method = {offer.method: offer for offer in self.offers}
        return Allocation(tuple(by_method[offer.method] for offer in chosen.offers))


def measure_offers(
    probe: Probe,
    path: Path,
    *,
    candidates: Sequence[str] = CANDIDATES,
    counted: Callable[[int, int], object] = lambda done, of: None,
) -> Offers:
    """Measures every candidate in every layer alone whose grid it suits; goes on where ``path`` (.json), if any, ends.

    ``candidates`` are specs of one method each, whose layers and levels are replaced; ``counted`` is called with the
    offers done and their number after each.

    ValueError for a candidate that is several methods or none, suits no layer, is cached or follows a threshold; a
    change that is not finite; or a file of other measurements.
    """
    denoiser = probe.denoiser
    placed = _in_layers(candidates, Space.of(denoiser))
    fresh = Offers(probe.identity(), flops(denoiser, "none", denoiser.any_condition), ())
    kept = read_offers(path) if path.exists() else fresh
    if differing := differences(kept.identity, fresh.identity):
        raise ValueError(
            f"{path} must hold the offers of these measurements, but {differing}: give another folder with --out"
        )
    by_method = {offer.method: offer for offer in kept.offers}
    for number, (layer, method) in enumerate(placed, start=1):
        name = Compression.of(method).text
        if name not in by_method:
            saved = kept.flops - flops(denoiser, method, denoiser.any_condition)
            by_method[name] = Offer(layer, name, saved, *_changes(probe, method))
            write_json(path, _FORMAT, asdict(replace(kept, offers=tuple(by_method.values()))))
        counted(number, len(placed))
    return replace(kept, offers=tuple(by_method[Compression.of(method).text] for _, method in placed))


def _changes(probe: Probe, method: Method) -> tuple[float, float]:
    """Of the prediction, and of its difference between two classes."""
    probe.plain()
    probe.plain(other=True)
    with compressed(probe.denoiser.model, method):
        change, contrast = probe.changes()
    if not math.isfinite(change + contrast):
        raise ValueError(
            f"the changes of the prediction and of its difference between two classes must be finite, not {change} "
            f"and {contrast}, under {Compression.of(method).text} in {probe.model.dtype}: give another dtype"
        )
    return change, contrast


def read_offers(path: Path) -> Offers:
    """Reads what ``measure_offers`` wrote; anything else is a ValueError."""

    def made(content: Mapping[str, Any]) -> Offers:
        return Offers(content["identity"], content["flops"], tuple(Offer(**one) for one in content["offers"]))

    return read_json(path, _FORMAT, "offers of bigain allocate", made)


def _in_layers(candidates: Sequence[str], space: Space) -> list[tuple[int, Method]]:
    """Every candidate in every layer alone that it suits, once."""
    singles = {text: _single(text) for text in candidates}
    for text, method in singles.items():
        if not any(method.suits(grid) for grid in space.grids):
            grids = ", ".join(f"{grid.height}x{grid.width}" for grid in space.grids)
            raise ValueError(f"candidates must suit a layer of this model, whose grids are {grids}, not {text!r}")
    placed = (
        (layer, replace(method, levels=(1,), layers=(layer,)))
        for layer, level in enumerate(space.levels)
        for method in singles.values()
        if method.suits(space.grids[level - 1])
    )
    return list(dict.fromkeys(placed))


def _single(text: str) -> Method:
    """The one method of a candidate that can act in a layer alone, at a cost that does not depend on the image."""
    methods = Compression.of(text)
    if len(methods) != 1:
        raise ValueError(f"a candidate must be one method, not the {len(methods)} of {text!r}")
    [method] = methods
    if method.depends_on_image:
        raise ValueError(f"a candidate must have a ratio, not a threshold, whose FLOPs depend on the image: {text!r}")
    if isinstance(method, TokenMerging) and method.cached:
        raise ValueError(f"a candidate must not be cached, as a layer alone has no earlier one: {text!r}")
    if method.is_identity:
        raise ValueError(f"a candidate must compress by its ratio or factor, not be the identity: {text!r}")
    return method


def allocate(offers: Iterable[Offer], saving: int, contrast_weight: float = CONTRAST_WEIGHT) -> Allocation:
    """The cheapest choice of at most one offer per layer that saves at least ``saving``, in the unit of the offers.

    Exact (dynamic programming over the layers) where ``saving`` is at most 4,096; above, each layer's saving is
    rounded down to a 4,096th of it, so at least ``saving`` is still saved. Where by that rounding only the strongest
    offer of every layer is enough, these are taken. ``contrast_weight``: see `Offer.cost`; 0 looks at the prediction
    under the true class only.

    ValueError where ``saving`` is not positive, or more than all layers together can save; or the weight is negative or
    not finite.
    """
    if not (math.isfinite(contrast_weight) and contrast_weight >= 0):
        raise ValueError(f"contrast_weight must be finite and at least 0, not {contrast_weight}")
    if saving < 1:
        raise ValueError(f"saving must be at least 1, not {saving}")
    layers: dict[int, list[Offer]] = {}
    for offer in sorted(offers, key=lambda one: one.layer):
        if offer.saved > 0:
            layers.setdefault(offer.layer, []).append(offer)
    strongest = [max(options, key=lambda one: (one.saved, -one.cost(contrast_weight))) for options in layers.values()]
    if saving > (most := sum(offer.saved for offer in strongest)):
        raise ValueError(
            f"saving must be at most {most:,}, which all layers together save, not {saving:,}: ask for less, or give "
            f"stronger candidates"
        )
    return Allocation(tuple(_cheapest([*layers.values()], saving, contrast_weight) or strongest))


def together(offers: Iterable[Offer]) -> list[tuple[Method, list[Offer]]]:
    """Each candidate in all the layers that it has an offer in, and these offers."""
    groups: dict[Compression, list[Offer]] = {}
    for offer in offers:
        groups.setdefault(offer.candidate, []).append(offer)
    return [
        (replace(method, layers=tuple(sorted(offer.layer for offer in members))), members)
        for (method,), members in groups.items()
    ]


def most_saved(offers: Iterable[Offer]) -> int:
    """What the strongest offer of every layer saves, in the unit of the offers."""
    most: dict[int, int] = {}
    for offer in offers:
        most[offer.layer] = max(most.get(offer.layer, 0), offer.saved)
    return sum(most.values())


def _cheapest(layers: Sequence[Sequence[Offer]], saving: int, weight: float) -> list[Offer] | None:
    """At most one offer per layer, by dynamic programming; None if rounding leaves no choice that saves enough."""
    steps = min(saving, _STEPS)
    best = np.full(steps + 1, math.inf)  # least cost at which so many steps are saved
    best[0] = 0.0
    choices = []
    for options in layers:
        moves = [_moved(best, min(offer.saved * steps // saving, steps), offer.cost(weight)) for offer in options]
        rows = np.stack([best, *(row for row, _ in moves)])
        origins = np.stack([np.arange(steps + 1), *(origin for _, origin in moves)])
        choice = rows.argmin(0)
        choices.append((options, choice, np.take_along_axis(origins, choice[None], 0)[0]))
        best = rows.min(0)
    if not math.isfinite(best[steps]):
        return None
    taken, at = [], steps
    for options, choice, origin in reversed(choices):
        if choice[at]:
            taken.append(options[choice[at] - 1])
        at = origin[at]
    return taken[::-1]


def _moved(
    best: npt.NDArray[np.float64], step: int, cost: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The least cost at each number of steps (the last: or more) once an offer is taken, and the steps before it."""
    last = len(best) - 1
    origin = np.arange(last + 1) - step
    origin[last] = last - step + best[last - step :].argmin()
    row = np.where(origin >= 0, best[origin], math.inf)
    return row + cost, origin
