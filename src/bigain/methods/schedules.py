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


def is_whole(value: object, low: int = 1) -> bool:
    """Whether a value is a whole number, not below ``low``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
