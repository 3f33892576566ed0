"""Adaptive block merging (ABM), BiGain's matching-free variant (arXiv 2603.12240)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bigain.methods.base import Context, TokenMerging, check_choice
from bigain.operators.assignment import Assignment
from bigain.operators.blocks import AGGREGATES, Aggregate, aggregate, limit, merge_blocks, merge_blocks_below
from bigain.operators.frequency import SCORES, score
from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlockMerging(TokenMerging):
    """Replaces the smoothest cells by their mean: ABM (arXiv 2603.12240). No similarity matrix.

    Args:
        score: token score, one of `bigain.operators.frequency.SCORES`.
        aggregate: how a cell's scores become one: "max", "sum", "mean", "min" or "std".
        threshold: merge every cell whose aggregate is below it, whatever their number; ``ratio`` must then be 0.
    """

    name: ClassVar[str] = "abm"

    score: str = "laplacian_l1"
    aggregate: Aggregate = "max"
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score", self.score, SCORES)
        check_choice("aggregate", self.aggregate, AGGREGATES)
        if self.threshold is not None:
            if not math.isfinite(self.threshold):
                raise ValueError(f"threshold must be finite, not {self.threshold}")
            if self.ratio != 0:
                raise ValueError(f"threshold and ratio exclude each other: set ratio=0, not {self.ratio}")

    @property
    def is_identity(self) -> bool:
        return self.threshold is None and super().is_identity

    @property
    def is_scheduled(self) -> bool:
        return self.threshold is not None or super().is_scheduled

    def limit(self, grid: Grid) -> int:
        return limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        return 0

    def _assign(self, x: Tensor, context: Context) -> Assignment:
        scores = score(x, context.grid, self.score)
        cells = aggregate(scores, context.grid, self.cell, self.aggregate)
        if self.threshold is not None:
            return merge_blocks_below(cells, context.grid, self.cell, self.threshold)
        return merge_blocks(cells, context.grid, self.cell, self.merged_tokens(context))
