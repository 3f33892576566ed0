"""Which layer takes which method: the least change of the predictions for the FLOPs that are to be saved.

Layers differ by orders of magnitude in what their compression costs. Each candidate is therefore measured in each layer
alone, and the layers' choices are put together so that the sum of the costs is least. That costs add up is an
assumption. Not in a paper.

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

from bigain.methods import Compression, Method

_Floats = npt.NDArray[np.float64]

CONTRAST_WEIGHT = 3.0  # of the change of the difference between two classes' predictions; that of the prediction has 1
_STEPS = 4096  # into which the FLOPs to be saved are divided


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


def _moved(best: _Floats, step: int, cost: float) -> tuple[_Floats, npt.NDArray[np.int64]]:
    """The least cost at each number of steps (the last: or more) once an offer is taken, and the steps before it."""
    last = len(best) - 1
    origin = np.arange(last + 1) - step
    origin[last] = last - step + best[last - step :].argmin()
    row = np.where(origin >= 0, best[origin], math.inf)
    return row + cost, origin
