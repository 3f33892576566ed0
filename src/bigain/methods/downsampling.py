"""Downsampled keys and values: ToDo, average pooling, BiGain's interpolate–extrapolate (IE-KVD), and an ablation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from bigain import operators
from bigain.methods.base import Context, Score, TokenDownsampling
from bigain.methods.schedules import Linear, bounds, resolve

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class _Nearest(TokenDownsampling):
    """What takes one token of each window.

    Args:
        nearest: the token at the "centre" of its window, ⌊s/2⌋ down and to the right as in ToDo's published code, or
            the "first" one, at its top left.
    """

    nearest: Literal["centre", "first"] = "centre"


@dataclass(frozen=True, kw_only=True)
class ToDo(_Nearest):
    """Keys and values from one token of each window: ToDo (Smith et al. 2024, arXiv 2402.13573)."""

    name: ClassVar[str] = "todo"
    title: ClassVar[str] = "ToDo"
    colour: ClassVar[str] = "#56B4E9"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        return operators.pooling.nearest(x, context.grid, self.factor, self.nearest)


@dataclass(frozen=True, kw_only=True)
class AveragePooling(TokenDownsampling):
    """Keys and values from the mean of each window."""

    name: ClassVar[str] = "avgpool"
    title: ClassVar[str] = "Average"
    colour: ClassVar[str] = "#7F7F7F"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        return operators.pooling.average(x, context.grid, self.factor)


@dataclass(frozen=True, kw_only=True)
class InterpolateExtrapolateKV(_Nearest):
    """Keys and values from α·nearest + (1 − α)·mean of each window: IE-KVD (arXiv 2603.12240).

    Args:
        alpha: 1 is nearest (ToDo), 0 the mean, above 1 extrapolates away from the mean. A constant (0.9 is the paper's
            for classification) or a schedule (``Linear(0.8, 1.2)`` is the paper's for generation).
    """

    name: ClassVar[str] = "iekvd"
    title: ClassVar[str] = "IE-KVD"
    colour: ClassVar[str] = "#009E73"

    alpha: float | Linear = field(default=0.9, metadata={"expects": "a number or a schedule such as 0.8>1.2"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(value) for value in bounds(self.alpha)):
            raise ValueError(f"alpha must be finite, not {self.alpha}")

    @property
    def words(self) -> dict[str, str]:
        return {"alpha": "α"}

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        alpha = resolve(self.alpha, context.timestep, "alpha")
        return operators.pooling.interpolate_extrapolate(x, context.grid, self.factor, alpha, self.nearest)


@dataclass(frozen=True, kw_only=True)
class FrequencySelection(TokenDownsampling):
    """Keys and values from the tokens with most, or least, detail: table 12 of BiGain (arXiv 2603.12240).

    As many tokens are kept as windows of ``factor`` would leave; no query sees the others. An ablation,
    which shows that neither detail nor smoothness is enough.

    Args:
        keep: the tokens of "high" or of "low" score.
        score: token score, one of `bigain.operators.frequency.SCORES`; high is detail.
    """

    name: ClassVar[str] = "freqsel"
    title: ClassVar[str] = "Frequency selection"
    colour: ClassVar[str] = "#999933"
    reads_score: ClassVar[bool] = True
    leaves_a_spectrum: ClassVar[bool] = False

    keep: Literal["high", "low"] = "high"
    score: Score = "laplacian_l1"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        scores = operators.frequency.score(x, context.grid, self.score)
        count = operators.grid.cell_count(context.grid, self.window)
        return operators.pooling.band_select(x, scores, count, highest=self.keep == "high")

    def sizes(self, grid: Grid, device: torch.device) -> Tensor:
        windows = super().sizes(grid, device)
        return windows.mean().expand_as(windows)  # those that are kept are all alike
