"""Which errors of an image come next, and which conditions drop out; the papers' stages (Li et al., ICCV 2023)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bigain.classify.prediction import Floats, Prediction, mean, rank

if TYPE_CHECKING:
    from bigain.classify.fitting import Fitted


@dataclass(frozen=True)
class Ask:
    """What is to be evaluated next of an image: each of the conditions at each of the positions in the timesteps.

    ``phase`` says under which of the elimination's ``methods``; what has been evaluated already is evaluated again.
    """

    conditions: Sequence[int]
    positions: Sequence[int]
    phase: int = 0


@dataclass(eq=False)
class Contest:
    """Between the conditions of one image.

    Args:
        id: of the image.
        errors: (conditions, timesteps) float32, NaN where not evaluated.
        weights: (timesteps,), about 1.
        telling: whether the timesteps come in the order of how much they tell; else they ascend.
        stage: (conditions,) int64: rounds that each condition has survived.
        forwards: of the model, so far.
    """

    id: str
    errors: Floats
    weights: npt.NDArray[np.float64]
    telling: bool = False
    stage: npt.NDArray[np.int64] = field(init=False)
    forwards: int = 0

    def __post_init__(self) -> None:
        self.stage = np.zeros(len(self.errors), dtype=np.int64)

    @property
    def weighted(self) -> npt.NDArray[np.float64]:
        """The errors times the weights of their timesteps."""
        result: npt.NDArray[np.float64] = self.errors * self.weights
        return result

    def prediction(self, groups: tuple[int, ...], **more: Any) -> Prediction:
        """Of the conditions of classes, which come first; ``more`` are fields of it."""
        stage = self.stage[: len(groups)].tolist()
        order = [groups[condition] for condition in rank(self.weighted[: len(groups)], stage)]
        ranking = tuple(dict.fromkeys(order))  # a class stands where its best condition stands
        return Prediction(
            id=self.id,
            prediction=ranking[0],
            ranking=ranking,
            stage=tuple(stage),
            errors=self.errors[: len(groups)],
            groups=groups,
            forwards=self.forwards,
            weights=tuple(self.weights.tolist()) if self.telling else (),
            **more,
        )

    def order(self) -> list[int]:
        """Positions of the timesteps, the most telling first: from the middle outwards where nothing else is known."""
        count = self.errors.shape[1]
        return list(range(count)) if self.telling else sorted(range(count), key=lambda p: abs(2 * p + 1 - count))


class Elimination(Protocol):
    """How the conditions of an image drop out."""

    @property
    def timesteps(self) -> int:
        """At how many timesteps a condition is evaluated at most."""
        ...

    @property
    def first(self) -> int:
        """How many timesteps the first round takes."""
        ...

    @property
    def methods(self) -> tuple[str, ...]:
        """The compression of each phase; () where the model is used as it is."""
        ...

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError where there are too few conditions or training timesteps."""
        ...

    def forwards(self, conditions: int) -> int:
        """Forwards of the model for one image, at most."""
        ...

    def fitted(self, fit: Fitted) -> Elimination:
        """The same with what was fitted: its threshold, and no more timesteps than it has."""
        ...

    def rounds(self, contest: Contest) -> Iterator[Ask]:
        """What to evaluate, round by round: the errors are in the contest when the next round is asked for."""
        ...


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
        methods: the compression of each stage, such as ("glyphs-dit/balanced", "none"); () where the model is used as
            it is.
    """

    to_keep: tuple[int, ...] = (5, 1)
    n_samples: tuple[int, ...] = (5, 20)
    methods: tuple[str, ...] = ()

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
        if len(self.methods) not in (0, len(self.to_keep)):
            raise ValueError(f"methods must be one for each of the {len(self.to_keep)} stages, not {self.methods}")

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

    @property
    def first(self) -> int:
        """How many timesteps the first round takes."""
        return self.n_samples[0]

    @property
    def timesteps(self) -> int:
        """At how many timesteps a condition is evaluated at most."""
        return self.n_samples[-1]

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError where there are too few conditions or training timesteps for these stages."""
        if self.to_keep[0] > conditions:
            raise ValueError(f"to_keep must keep at most the {conditions} conditions, not {self.to_keep}")
        if self.n_samples[-1] > timesteps:
            raise ValueError(f"n_samples must be at most the model's {timesteps} timesteps, not {self.n_samples}")

    def positions(self, telling: bool = False) -> tuple[tuple[int, ...], ...]:
        """Per stage, the positions among all ``n_samples[-1]`` timesteps that it adds, ascending.

        Of timesteps that are sorted by how much they tell, a stage takes the first that are left. Of ascending ones,
        what is evaluated up to a stage is spread evenly over what is evaluated up to the next: for 5 of 20 the
        positions 2, 6, 10, 14 and 18.
        """
        if telling:
            return tuple(tuple(range(*ends)) for ends in itertools.pairwise((0, *self.n_samples)))
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

    def fitted(self, fit: Fitted) -> Stages:
        """The same stages over at most as many timesteps as were fitted; a ValueError where a stage would add none."""
        return replace(self, n_samples=tuple(min(count, len(fit.timesteps)) for count in self.n_samples))

    def rounds(self, contest: Contest) -> Iterator[Ask]:
        """One per stage."""
        alive = list(range(len(contest.errors)))
        for phase, (keep, positions) in enumerate(zip(self.to_keep, self.positions(contest.telling), strict=True)):
            yield Ask(alive, positions, phase)
            alive = survivors(contest.weighted, alive, keep)
            contest.stage[alive] += 1


def survivors(errors: npt.NDArray[np.floating], alive: Sequence[int], keep: int) -> list[int]:
    """The ``keep`` conditions of ``alive`` with the lowest mean error over what is evaluated, ascending by index.

    Errors are (conditions, timesteps), NaN where not evaluated; of equal means the earlier condition is kept.
    """
    return sorted(sorted(alive, key=lambda c: (mean(errors[c]), c))[:keep])
