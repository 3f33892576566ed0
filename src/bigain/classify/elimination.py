"""Staged elimination: few timesteps for all conditions, the rest for the best of them (Li et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stages:
    """After stage k, ``n_samples[k]`` timesteps are evaluated and ``to_keep[k]`` conditions stay.

    ``Stages((5, 1), (5, 20))`` is the schedule that the papers write "5 1 / 5 20": 5 timesteps for all conditions,
    15 more for the best 5, of which the best wins.

    Args:
        to_keep: strictly decreasing, the last is 1.
        n_samples: strictly increasing, as many as ``to_keep``; the last is the number of timesteps in all.
    """

    to_keep: tuple[int, ...] = (5, 1)
    n_samples: tuple[int, ...] = (5, 20)

    def __post_init__(self) -> None:
        for name, values in (("to_keep", self.to_keep), ("n_samples", self.n_samples)):
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
                raise ValueError(f"{name} is {values}; it must hold one integer per stage, each at least 1")
        if len(self.to_keep) != len(self.n_samples):
            raise ValueError(f"to_keep {self.to_keep} and n_samples {self.n_samples} must be equally long")
        if list(self.to_keep) != sorted(set(self.to_keep), reverse=True) or self.to_keep[-1] != 1:
            raise ValueError(f"to_keep is {self.to_keep}; it must decrease from stage to stage and end in 1")
        if list(self.n_samples) != sorted(set(self.n_samples)):
            raise ValueError(f"n_samples is {self.n_samples}; it must increase from stage to stage")

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError where there are too few conditions or training timesteps for these stages."""
        if self.to_keep[0] > conditions:
            raise ValueError(f"to_keep is {self.to_keep}, but there are only {conditions} conditions to keep from")
        if self.n_samples[-1] > timesteps:
            raise ValueError(f"n_samples is {self.n_samples}, but the model has only {timesteps} timesteps")

    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Per stage, the positions among all ``n_samples[-1]`` timesteps that it adds, ascending.

        What is evaluated up to a stage is spread evenly over what is evaluated up to the next:
        for 5 of 20 the positions 2, 6, 10, 14 and 18.
        """
        evaluated = [list(range(self.n_samples[-1]))]
        for count in reversed(self.n_samples[:-1]):
            larger = evaluated[0]
            evaluated.insert(0, [larger[(2 * i + 1) * len(larger) // (2 * count)] for i in range(count)])
        added, before = [], set[int]()
        for positions in evaluated:
            added.append(tuple(p for p in positions if p not in before))
            before.update(positions)
        return tuple(added)

    def forwards(self, conditions: int) -> int:
        """Forwards of the model for one image."""
        alive = (conditions, *self.to_keep)
        new = np.diff((0, *self.n_samples))
        return sum(int(a) * int(n) for a, n in zip(alive, new, strict=False))


def survivors(errors: Floats, alive: Sequence[int], keep: int) -> list[int]:
    """The ``keep`` conditions of ``alive`` with the lowest mean error over what is evaluated, ascending by index.

    Args:
        errors: (conditions, timesteps), NaN where not evaluated; rows of ``alive`` share what is evaluated.
        alive: the conditions to choose from. Of equal means the earlier condition is kept.
    """
    return sorted(sorted(alive, key=lambda c: (_mean(errors[c]), c))[:keep])


def rank(errors: Floats, stage: Sequence[int]) -> list[int]:
    """All conditions, best first: by the stages survived, then by the mean error over the timesteps they share.

    Conditions that survived equally many stages were evaluated at the same timesteps; a mean over 5 timesteps is
    never compared with one over 20.
    """
    return sorted(range(len(stage)), key=lambda c: (-stage[c], _mean(errors[c]), c))


def _mean(row: Floats) -> float:
    return float(np.nanmean(row, dtype=np.float64))
