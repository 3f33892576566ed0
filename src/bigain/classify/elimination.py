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

    Timesteps are nested: a stage evaluates what the stages before it have not. So 50, 100, 500 and 1000 add 50, 50, 400
    and 500 timesteps, where the released code of Li et al. (2023) adds 50, 100, 400 and 450.

    Args:
        to_keep: strictly decreasing, the last is 1.
        n_samples: strictly increasing, as many as ``to_keep``; the last is the number of timesteps in all.
    """

    to_keep: tuple[int, ...] = (5, 1)
    n_samples: tuple[int, ...] = (5, 20)

    def __post_init__(self) -> None:
        for name, values in (("to_keep", self.to_keep), ("n_samples", self.n_samples)):
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
                raise ValueError(f"{name} must hold one integer per stage, each at least 1, not {values}")
        if len(self.to_keep) != len(self.n_samples):
            raise ValueError(f"n_samples must be as long as to_keep {self.to_keep}, not {self.n_samples}")
        if list(self.to_keep) != sorted(set(self.to_keep), reverse=True) or self.to_keep[-1] != 1:
            raise ValueError(f"to_keep must decrease from stage to stage and end in 1, not {self.to_keep}")
        if list(self.n_samples) != sorted(set(self.n_samples)):
            raise ValueError(f"n_samples must increase from stage to stage, not {self.n_samples}")

    @classmethod
    def of(
        cls, conditions: int, to_keep: Sequence[int] | None = None, n_samples: Sequence[int] | None = None
    ) -> Stages:
        """The stages for a number of conditions, with what is left out filled in.

        With both left out: the papers' "5 1 / 5 20" for more than 5 conditions, and 20 timesteps for all of up to 5.
        With one left out: its part of whichever of these has as many stages as the other, so not for three or more.
        """
        given = n_samples if to_keep is None else to_keep
        stages = (2 if conditions > 5 else 1) if given is None else len(given)
        usual = {1: ((1,), (20,)), 2: ((min(5, conditions), 1), (5, 20))}.get(stages)
        if usual is None:
            if to_keep is None or n_samples is None:
                raise ValueError(f"to_keep and n_samples must both be given for {stages} stages, not only one of them")
            usual = (), ()
        keep, samples = (
            default if values is None else tuple(values)
            for default, values in zip(usual, (to_keep, n_samples), strict=True)
        )
        return cls(keep, samples)

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError where there are too few conditions or training timesteps for these stages."""
        if self.to_keep[0] > conditions:
            raise ValueError(f"to_keep must keep at most the {conditions} conditions, not {self.to_keep}")
        if self.n_samples[-1] > timesteps:
            raise ValueError(f"n_samples must be at most the model's {timesteps} timesteps, not {self.n_samples}")

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

    Errors are (conditions, timesteps), NaN where not evaluated; of equal means the earlier condition is kept.
    """
    return sorted(sorted(alive, key=lambda c: (_mean(errors[c]), c))[:keep])


def rank(errors: Floats, stage: Sequence[int]) -> list[int]:
    """All conditions, best first: by the stages survived, then by the mean error over the timesteps they share.

    Conditions that survived equally many stages were evaluated at the same timesteps; a mean over 5 timesteps is
    never compared with one over 20.
    """
    return sorted(range(len(stage)), key=lambda c: (-stage[c], _mean(errors[c]), c))


def probabilities(
    errors: npt.NDArray[np.floating], stage: Sequence[int], temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """A probability for each condition, (conditions,) float64 of sum 1, from errors and stages as in :func:`rank`.

    The softmax of the negative mean errors, divided by the temperature. All conditions share the timesteps of the
    first stage only, so it is taken stage by stage: what the survivors of a stage have together is divided among them
    anew, by the timesteps that they share. The condition that :func:`rank` puts first has the highest probability.
    """
    survived = np.asarray(stage)
    result = np.ones(len(survived))
    for number in range(max(survived)):
        alive = np.flatnonzero(survived >= number)
        shared = np.isfinite(errors[alive]).all(0)
        logits = -errors[alive][:, shared].mean(1, dtype=np.float64) / temperature
        share = np.exp(logits - logits.max())
        result[alive] = result[alive].sum() * share / share.sum() if number else share / share.sum()
    return result


def _mean(row: Floats) -> float:
    return float(np.nanmean(row, dtype=np.float64))
