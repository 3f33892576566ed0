"""Racing: a condition drops out as soon as it is clear that another is better, at a stated rate of error.

Two tests, both for the rate at which the best condition of an image may be lost:

- Without anything fitted, a test by betting. To claim that a condition c is not the best, one bets against every rival
  at every timestep on the paired difference of their errors; the stake 1 is multiplied by 1 + tanh(difference / scale).
  If c is the best, and each difference is spread symmetrically, about a centre in its favour, no bet gains on average;
  so by Ville's inequality the mean of the stakes over all rivals reaches 1 / rate with a probability of at most the
  rate, at whatever round one looks (Waudby-Smith & Ramdas 2024 for betting). Nothing is assumed of the tails.
- With a threshold that was fitted on images (:mod:`bigain.classify.fitting`), a class drops out when its weighted
  errors exceed the leader's by more than that. The rate holds for images like those, whatever their errors (split
  conformal prediction, Vovk et al. 2005), and the test is far cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bigain.classify.elimination import Ask, Contest, survivors

if TYPE_CHECKING:
    from bigain.classify.fitting import Fitted

_BOLDNESS = 4  # of bets: what share of the classes' spread counts as a difference

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Test = Callable[[Contest, Integers, int], Booleans]


@dataclass(frozen=True)
class Racing:
    """Evaluates the conditions that are left at one timestep after the other, and drops those that are clearly worse.

    Args:
        n_samples: timesteps at most.
        error_rate: at most this share of images loses its best condition before all timesteps are evaluated, in (0, 1).
        threshold: fitted: by how much the sum of a condition's weighted errors may exceed the leader's; None for the
            test by betting.
        methods: none, one, or two: the compression while more than ``few`` conditions are left, and from then on.
        few: see methods; at least 2.
    """

    n_samples: int = 20
    error_rate: float = 0.05
    threshold: float | None = None
    methods: tuple[str, ...] = ()
    few: int = 3

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {self.n_samples}")
        if not 0 < self.error_rate < 1:
            raise ValueError(f"error_rate must lie between 0 and 1, not {self.error_rate}")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")
        if len(self.methods) > 2:
            raise ValueError(f"methods must be at most two, for many conditions and for few, not {self.methods}")
        if self.few < 2:
            raise ValueError(f"few must be at least 2 conditions, not {self.few}")

    @property
    def first(self) -> int:
        """How many timesteps the first round takes."""
        return 1

    @property
    def timesteps(self) -> int:
        """At how many timesteps a condition is evaluated at most."""
        return self.n_samples

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError where there are too few training timesteps."""
        if self.n_samples > timesteps:
            raise ValueError(f"n_samples must be at most the model's {timesteps} timesteps, not {self.n_samples}")

    def forwards(self, conditions: int) -> int:
        """Forwards of the model for one image, at most."""
        return self.n_samples * conditions

    def fitted(self, fit: Fitted) -> Racing:
        """The race by the fitted threshold, over at most as many timesteps as were fitted."""
        steps = min(self.n_samples, len(fit.timesteps))
        return replace(self, n_samples=steps, threshold=fit.threshold, error_rate=fit.error_rate)

    def rounds(
        self, contest: Contest, conditions: Sequence[int] | None = None, order: Sequence[int] | None = None
    ) -> Iterator[Ask]:
        """One per timestep, the most telling first; between some of the conditions at some timesteps, where given."""
        alive = np.arange(len(contest.errors)) if conditions is None else np.array(sorted(conditions))
        clear = self._by_betting(alive) if self.threshold is None else self._by_threshold
        for position in contest.order() if order is None else order:
            if len(alive) == 1:
                return
            phase = int(len(self.methods) == 2 and len(alive) <= self.few)
            yield Ask(alive.tolist(), (position,), phase)
            alive = alive[~clear(contest, alive, position)]
            contest.stage[alive] += 1
        if len(alive) > 1:
            contest.stage[survivors(contest.weighted, alive.tolist(), 1)] += 1

    def _by_threshold(self, contest: Contest, alive: Integers, _position: int) -> Booleans:
        assert self.threshold is not None
        sums = np.nansum(contest.weighted[alive], axis=1)
        return sums - sums.min() > self.threshold

    def _by_betting(self, everyone: Integers) -> Test:
        """The stakes of all against all, with which two go on betting while both are evaluated."""
        stakes = np.ones((len(everyone), len(everyone)))

        def clear(contest: Contest, alive: Integers, position: int) -> Booleans:
            errors = contest.weighted[alive, position]
            differences = errors[:, None] - errors
            low, high = np.quantile(errors, (0.25, 0.75))  # a scale that stays when two conditions change places
            scale = max((high - low) / _BOLDNESS, np.finfo(np.float64).tiny)
            places = np.searchsorted(everyone, alive)
            stakes[np.ix_(places, places)] *= 1 + np.tanh(differences / scale)
            means = (stakes[places].sum(1) - 1) / (len(everyone) - 1)  # less the stake against itself, which stays 1
            return (means >= 1 / self.error_rate) & (errors > errors.min())

        return clear
