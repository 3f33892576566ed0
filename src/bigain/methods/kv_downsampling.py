"""Downsampled keys and values: ToDo, average pooling, and BiGain's interpolate–extrapolate (IE-KVD)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bigain.methods.base import Context, TokenDownsampling
from bigain.methods.schedules import Linear, bounds, resolve
from bigain.operators.pooling import average, interpolate_extrapolate, nearest


@dataclass(frozen=True, kw_only=True)
class ToDo(TokenDownsampling):
    """Keys and values from the first token of each window: ToDo (Smith et al. 2024, arXiv 2402.13573)."""

    name: ClassVar[str] = "todo"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        return nearest(x, context.grid, self.factor)


@dataclass(frozen=True, kw_only=True)
class AveragePooling(TokenDownsampling):
    """Keys and values from the mean of each window."""

    name: ClassVar[str] = "avgpool"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        return average(x, context.grid, self.factor)


@dataclass(frozen=True, kw_only=True)
class InterpolateExtrapolateKV(TokenDownsampling):
    """Keys and values from α·nearest + (1 − α)·mean of each window: IE-KVD (arXiv 2603.12240).

    Args:
        alpha: 1 is nearest (ToDo), 0 the mean, above 1 extrapolates away from the mean. A constant (0.9 is the paper's
            for classification) or a schedule (``Linear(0.8, 1.2)`` is the paper's for generation).
    """

    name: ClassVar[str] = "iekvd"

    alpha: float | Linear = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(value) for value in bounds(self.alpha)):
            raise ValueError(f"alpha must be finite, not {self.alpha}")

    def pool(self, x: Tensor, context: Context) -> Tensor:
        alpha = resolve(self.alpha, context.timestep, "alpha")
        return interpolate_extrapolate(x, context.grid, self.factor, alpha)
