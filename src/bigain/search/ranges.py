"""The ranges of t in which layers choose apart from each other, and the share that each has of what is done with them.

A classifier and a sampler take their timesteps evenly spaced, or as a scheduler shifts them. What a method saves or
costs in a range counts by the share of these timesteps that lie in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigain.diffusion import Denoiser
from bigain.generate import Sampling
from bigain.methods.schedules import in_range
from bigain.run.cost import spread

_TIMESTEPS = 20  # of the classifier and of the sampler, where nothing else is asked for


@dataclass(frozen=True)
class Range:
    """A range of t, as methods take it, and its share of the timesteps of a use."""

    timesteps: tuple[int, int] | None = None  # None is every t
    weight: float = 1.0

    def mean(self, values: Sequence[float], timesteps: Sequence[int]) -> float:
        """Of the values that belong to timesteps in the range."""
        own = [value for value, t in zip(values, timesteps, strict=True) if in_range(self.timesteps, t)]
        return math.fsum(own) / len(own)


def use_timesteps(denoiser: Denoiser, use: str, spacing: str = "uniform") -> Tensor:
    """The timesteps (n,) at which a model runs when it is to "classify", "generate" or do "both" in equal parts.

    ``spacing`` is the classifier's, as `Denoiser.timesteps` takes it.
    """
    parts = []
    if use in ("classify", "both"):
        parts.append(denoiser.timesteps(min(_TIMESTEPS, denoiser.process.steps), spacing).double())
    if use in ("generate", "both"):
        parts.append(spread(Sampling(_TIMESTEPS).scheduler(denoiser).timesteps.cpu().double(), _TIMESTEPS))
    return torch.cat(parts)


def ranges_of(
    denoiser: Denoiser, ranges: Sequence[int], use: str, measured: Sequence[int], spacing: str = "uniform"
) -> tuple[Range, ...]:
    """The ranges that a number of them, or their bounds, stand for.

    ValueError where the bounds do not rise from 0 to the model's number of timesteps, or a range holds no timestep of
    the use, or none at which something is measured.

    Args:
        ranges: one number for that many equal ranges, or all bounds: (0, 300, 700, 1000).
        use, spacing: see ``use_timesteps``.
        measured: timesteps at which layers' methods are measured.
    """
    steps, bounds = denoiser.process.steps, tuple(ranges)
    if len(bounds) == 1:
        count = bounds[0]
        if not 1 <= count <= steps:
            raise ValueError(f"ranges must be from 1 to {steps}, not {count}")
        bounds = tuple(number * steps // count for number in range(count + 1))
    if bounds[:1] != (0,) or bounds[-1] != steps or sorted({*bounds}) != [*bounds]:
        raise ValueError(f"ranges must be a number of them, or bounds that rise from 0 to {steps}, not {bounds}")
    if len(bounds) == 2:
        return (Range(),)
    taken = use_timesteps(denoiser, use, spacing).tolist()
    found = []
    for low, high in itertools.pairwise(bounds):
        share = sum(in_range((low, high), t) for t in taken) / len(taken)
        if not share or not any(in_range((low, high), t) for t in measured):
            lacks = (
                f"at which layers are measured {[*measured]}: give more --timesteps" if share else f"of the use {use!r}"
            )
            raise ValueError(f"ranges must each hold a timestep, not {low}-{high}, which holds none {lacks}")
        found.append(Range((low, high), share))
    return tuple(found)
