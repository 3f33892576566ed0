"""Values that follow the diffusion timestep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """A value linear in the timestep: ``noisy`` at the last training timestep, ``clean`` at t = 0.

    ``Linear(0.8, 1.2)`` is the α schedule of BiGain's generation experiments (arXiv 2603.12240, table 16).

    Args:
        noisy: value at ``t = train_timesteps - 1``, finite.
        clean: value at ``t = 0``, finite.
        train_timesteps: length of the model's training schedule, from 1; 1 where the model takes t in [0, 1], so that
            ``noisy`` is the value at t = 1. With the default a t in [0, 1] is one of the last of 1000 steps.
    """

    noisy: float
    clean: float
    train_timesteps: int = 1000

    def __post_init__(self) -> None:
        for name in ("noisy", "clean"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, not {getattr(self, name)}")
        if not is_whole(self.train_timesteps):
            raise ValueError(f"train_timesteps must be a whole number from 1, not {self.train_timesteps!r}")

    def at(self, timestep: Tensor) -> Tensor:
        """Value per row, float32 (B,), for timesteps (B,); held constant outside the training range."""
        share = (timestep.float() / max(self.train_timesteps - 1, 1)).clamp(0.0, 1.0)
        return self.clean + (self.noisy - self.clean) * share


def bounds(value: float | Linear) -> tuple[float, float]:
    """Smallest and largest value of a constant or a schedule."""
    ends = (value.noisy, value.clean) if isinstance(value, Linear) else (value, value)
    return min(ends), max(ends)


def resolve(value: float | Linear, timestep: Tensor | None, what: str) -> float | Tensor:
    """The constant itself, or the schedule's value per row as float32 (B,), for which there must be a timestep."""
    if not isinstance(value, Linear):
        return value
    if timestep is None:
        raise ValueError(f"{what} follows the timestep, but the model was called without one: pass timestep=")
    return value.at(timestep)


def check_range(timesteps: tuple[int, ...]) -> None:
    """Raises ValueError unless these are the two ends of a range of t."""
    whole = len(timesteps) == 2 and all(is_whole(end, 0) for end in timesteps)
    if not whole or timesteps[0] >= timesteps[1]:
        raise ValueError(f"timesteps must be two whole numbers from 0, the lower one first, not {timesteps}")


def in_range(timesteps: tuple[int, int] | None, t: float) -> bool:
    """Whether low < t <= high, or low is 0 and t too; None holds every t.

    So neighbours such as (0, 500) and (500, 1000) share no t, and leave out neither 0 nor 1000, where flow matching
    begins.
    """
    if timesteps is None:
        return True
    low, high = timesteps
    return (t > low or low == 0) and t <= high


def ranges_meet(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two ranges share a t."""
    return one is None or other is None or max(one[0], other[0]) < min(one[1], other[1])


def is_whole(value: object, low: int = 1) -> bool:
    """Whether a value is a whole number, not below ``low``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
