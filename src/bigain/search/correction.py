"""One round that mends the assumption that costs add up: the choice is measured as a whole, and layers choose again.

Two layers can cost more, or less, together than the sum of what each costs alone. So a choice is measured as a whole,
and without each of its layers in turn. What a layer adds to the others, less what it costs alone, is due to it and to
them: half of it is put on its cost, so that where layers meet in pairs the costs of the choice add up to what it costs.
Its offers are scaled accordingly, the layers choose again, and of both choices the one that changes less as a whole is
taken. Not in a paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bigain.methods import Compression
from bigain.search.knapsack import allocate
from bigain.search.measuring import Changes
from bigain.search.offers import Allocation, Offer, Place
from bigain.search.ranges import Range

_MOST = 10.0  # times by which an offer's cost is raised or lowered; a layer may seem to add nothing, or less


@dataclass(frozen=True)
class Settled:
    """A choice, and what it changes as a whole: the means over a use's timesteps, as in `Offer`."""

    allocation: Allocation  # its offers cost what they were corrected to
    change: float
    contrast: float


@dataclass(frozen=True)
class Judge:
    """Measures choices as a whole.

    Args:
        measure: what methods change together, see `bigain.search.measuring.whole`.
        timesteps: at which that is measured.
        ranges: of t, all of them.
        contrast_weight: see `Offer.cost`.
    """

    measure: Callable[[Compression], Changes]
    timesteps: Sequence[int]
    ranges: Sequence[Range]
    contrast_weight: float

    def costs(self, chosen: Allocation) -> dict[tuple[int, ...], float]:
        """By range, or () for every t, what a choice costs there, times its share."""
        changes = self._of(chosen)
        return {
            one.timesteps or (): one.weight
            * (one.mean(changes[0], self.timesteps) + self.contrast_weight * one.mean(changes[1], self.timesteps))
            for one in self.ranges
        }

    def settled(self, chosen: Allocation) -> Settled:
        """A choice with what it changes."""
        change, contrast = (
            sum(one.weight * one.mean(values, self.timesteps) for one in self.ranges) for values in self._of(chosen)
        )
        return Settled(chosen, change, contrast)

    def _of(self, chosen: Allocation) -> Changes:
        if not chosen.offers:
            nothing = (0.0,) * len(self.timesteps)
            return nothing, nothing
        return self.measure(chosen.methods)


def settle(
    offers: Sequence[Offer],
    saving: int,
    judge: Judge,
    counted: Callable[[int, int], object] = lambda done, of: None,
) -> Settled:
    """The choice that saves at least ``saving``, in the unit of the offers, after one round of correction.

    Takes a measurement for the choice, one for each of its layers and one for the second choice; ``counted`` is called
    with those done and their number. ValueError as `allocate`.
    """
    first = allocate(offers, saving, judge.contrast_weight)
    factors = _factors(first, judge, counted)
    corrected = []
    for offer in offers:
        factor = factors.get(offer.place, 1.0)
        corrected.append(replace(offer, change=factor * offer.change, contrast=factor * offer.contrast))
    second = allocate(corrected, saving, judge.contrast_weight)
    choices = [judge.settled(first), judge.settled(second)]
    steps = len({offer.layer for offer in first.offers}) + 2
    counted(steps, steps)
    return min(choices, key=lambda one: one.change + judge.contrast_weight * one.contrast)


def _factors(chosen: Allocation, judge: Judge, counted: Callable[[int, int], object]) -> dict[Place, float]:
    """By what the costs of each place's offers are multiplied."""
    layers = sorted({offer.layer for offer in chosen.offers})
    if len(layers) < 2:
        return {}  # a layer's ranges do not meet: nothing acts together
    together = judge.costs(chosen)
    factors = {}
    for number, layer in enumerate(layers, start=1):
        counted(number, len(layers) + 2)
        without = judge.costs(Allocation(tuple(offer for offer in chosen.offers if offer.layer != layer)))
        for offer in chosen.offers:
            alone = offer.cost(judge.contrast_weight)
            if offer.layer == layer and alone > 0:
                place = offer.timesteps or ()
                added = together[place] - without[place]
                factors[offer.place] = min(_MOST, max(1 / _MOST, (alone + added) / (2 * alone)))
    return factors
