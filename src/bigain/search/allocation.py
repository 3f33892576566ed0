"""Which layer takes which method: the least change of the predictions for the FLOPs that are to be saved.

Layers differ by orders of magnitude in what their compression costs. Each candidate is therefore measured in each layer
alone, and the layers' choices are put together so that the costs add up to as little as possible. That costs add up is
an assumption: judge the result with `bigain evaluate`. Not in a paper.

The cost of an offer is the mean squared change of the prediction, and `CONTRAST_WEIGHT` times that of the difference
between two classes' predictions. Classes are told apart by that difference, which is small beside a prediction, so what
changes all classes alike costs a classifier little; and guidance draws by a multiple of such a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bigain.methods import Method, parse, spec

_Floats = npt.NDArray[np.float64]
_Whole = npt.NDArray[np.int64]

CONTRAST_WEIGHT = 3.0
"""Of the difference between two classes, beside the prediction."""

_STEPS = 4096  # into which the FLOPs to be saved are divided


@dataclass(frozen=True)
class Offer:
    """One candidate in one layer.

    Args:
        layer: number of the transformer block.
        method: spec of the candidate in this layer alone.
        saved: FLOPs of a forward of one image; or its nanoseconds, see `Clocked.in_time`.
        change: mean squared change of the prediction under the true class.
        contrast: mean squared change of the difference between the predictions under the true and another class.
    """

    layer: int
    method: str
    saved: int
    change: float
    contrast: float

    def cost(self, contrast_weight: float = CONTRAST_WEIGHT) -> float:
        """What it is avoided for."""
        return self.change + contrast_weight * self.contrast

    @property
    def candidate(self) -> str:
        """Its spec without layer and level."""
        [method] = parse(self.method)
        return spec(replace(method, levels=(1,), layers=None))


@dataclass(frozen=True)
class Allocation:
    """The methods that go together, one in a layer at most, and what the offers promise of them.

    Args:
        offers: that were taken, in the order of the layers.
        methods: the same, with one config for all layers that take the same.
    """

    offers: tuple[Offer, ...]
    methods: tuple[Method, ...]

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
        """The same of the difference between classes."""
        return math.fsum(offer.contrast for offer in self.offers)


def allocate(offers: Iterable[Offer], saving: int, contrast_weight: float = CONTRAST_WEIGHT) -> Allocation:
    """The cheapest choice of at most one offer per layer that saves at least ``saving``, in the unit of the offers.

    Exact (dynamic programming over the layers) where ``saving`` is at most 4,096; beyond, each layer's saving is
    rounded down to a 4,096th of it, so that at least ``saving`` is saved all the same. Where only the strongest offer
    of every layer is left enough by that, these are taken.

    Args:
        contrast_weight: see `Offer.cost`; 0 looks at the prediction under the true class alone.

    Raises:
        ValueError: ``saving`` is not positive, or more than all layers together can save; a weight that is negative or
            not finite; says what would be right.
    """
    if not (math.isfinite(contrast_weight) and contrast_weight >= 0):
        raise ValueError(f"the weight of the contrast must be finite and at least 0, not {contrast_weight}")
    if saving < 1:
        raise ValueError(f"the FLOPs to be saved must be at least 1, not {saving}")
    layers: dict[int, list[Offer]] = {}
    for offer in sorted(offers, key=lambda each: each.layer):
        if offer.saved > 0:
            layers.setdefault(offer.layer, []).append(offer)
    strongest = [
        max(several, key=lambda each: (each.saved, -each.cost(contrast_weight))) for several in layers.values()
    ]
    most = sum(offer.saved for offer in strongest)
    if saving > most:
        raise ValueError(f"{saving:,} FLOPs cannot be saved: the candidates save at most {most:,}, give stronger ones")
    steps = min(saving, _STEPS)
    best = np.full(steps + 1, math.inf)  # least cost at which so many steps are saved
    best[0] = 0.0
    ways = []
    for several in layers.values():
        moves = [
            _moved(best, min(offer.saved * steps // saving, steps), offer.cost(contrast_weight)) for offer in several
        ]
        rows = np.stack([best, *(row for row, _ in moves)])
        origins = np.stack([np.arange(steps + 1), *(origin for _, origin in moves)])
        choice = rows.argmin(0)
        ways.append((several, choice, np.take_along_axis(origins, choice[None], 0)[0]))
        best = rows.min(0)
    if not math.isfinite(best[steps]):
        return Allocation(tuple(strongest), _together(strongest))
    taken, at = [], steps
    for several, choice, origin in reversed(ways):
        if choice[at]:
            taken.append(several[choice[at] - 1])
        at = origin[at]
    taken.reverse()
    return Allocation(tuple(taken), _together(taken))


def most_saved(offers: Iterable[Offer]) -> dict[int, int]:
    """Per layer the FLOPs of the offer that saves most."""
    most: dict[int, int] = {}
    for offer in offers:
        most[offer.layer] = max(most.get(offer.layer, 0), offer.saved)
    return most


def _moved(best: _Floats, step: int, cost: float) -> tuple[_Floats, _Whole]:
    """The least cost at each number of steps once an offer is taken, and the number of steps before it.

    More than enough steps count as enough.
    """
    last = len(best) - 1
    origin = np.arange(last + 1) - step
    origin[last] = last - step + best[last - step :].argmin()
    row = np.where(origin >= 0, best[origin], math.inf)
    return row + cost, origin


def _together(offers: Sequence[Offer]) -> tuple[Method, ...]:
    """One method for all layers that take the same."""
    shared: dict[str, list[Method]] = {}
    for offer in offers:
        shared.setdefault(offer.candidate, []).extend(parse(offer.method))
    return tuple(
        replace(
            several[0],
            levels=tuple(sorted({level for each in several for level in each.levels})),
            layers=tuple(sorted(layer for each in several for layer in each.layers or ())),
        )
        for several in shared.values()
    )
