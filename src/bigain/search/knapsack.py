"""Which layer takes which offer, in which range of t: a multiple-choice knapsack, by dynamic programming."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from bigain.search.offers import CONTRAST_WEIGHT, Allocation, Offer, Place

_STEPS = 16384  # into which what is to be saved is divided


def allocate(offers: Iterable[Offer], saving: int, contrast_weight: float = CONTRAST_WEIGHT) -> Allocation:
    """The cheapest choice of at most one offer per layer and range that saves at least ``saving``, in the offers' unit.

    Exact (dynamic programming over layers and ranges) where ``saving`` is at most 16,384; above, each saving is
    rounded down to a 16,384th of it, so at least ``saving`` is still saved. Where by that rounding only the strongest
    offer of every place is enough, these are taken. ``contrast_weight``: see `Offer.cost`; 0 looks at the prediction
    under the true class only.

    ValueError where ``saving`` is not positive, or more than all layers together can save; or the weight is negative or
    not finite.
    """
    if not (math.isfinite(contrast_weight) and contrast_weight >= 0):
        raise ValueError(f"contrast_weight must be finite and at least 0, not {contrast_weight}")
    if saving < 1:
        raise ValueError(f"saving must be at least 1, not {saving}")
    places: dict[Place, list[Offer]] = {}
    for offer in sorted(offers, key=lambda one: one.place):
        if offer.saved > 0:
            places.setdefault(offer.place, []).append(offer)
    strongest = [max(options, key=lambda one: (one.saved, -one.cost(contrast_weight))) for options in places.values()]
    if saving > (most := sum(offer.saved for offer in strongest)):
        raise ValueError(
            f"saving must be at most {most:,}, which all layers together save, not {saving:,}: ask for less, or give "
            f"stronger candidates"
        )
    return Allocation(tuple(_cheapest([*places.values()], saving, contrast_weight) or strongest))


def most_saved(offers: Iterable[Offer]) -> int:
    """What the strongest offer of every layer and range saves, in the unit of the offers."""
    most: dict[Place, int] = {}
    for offer in offers:
        most[offer.place] = max(most.get(offer.place, 0), offer.saved)
    return sum(most.values())


def _cheapest(places: Sequence[Sequence[Offer]], saving: int, weight: float) -> list[Offer] | None:
    """At most one offer per place, by dynamic programming; None if rounding leaves no choice that saves enough."""
    steps = min(saving, _STEPS)
    best = np.full(steps + 1, math.inf)  # least cost at which so many steps are saved
    best[0] = 0.0
    choices = []
    for options in places:
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
