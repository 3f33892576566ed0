"""What the methods share that match sources to one destination per cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from bigain.methods.base import Context, TokenMerging, bipartite_flops, check_choice
from bigain.operators.assignment import Assignment
from bigain.operators.frequency import SCORES, score
from bigain.operators.grid import Grid
from bigain.operators.matching import limit, match
from bigain.operators.windows import Windows, comparisons


@dataclass(frozen=True, kw_only=True)
class BipartiteMerging(TokenMerging):
    """Common fields of the methods that match every source to its most similar destination, one per cell.

    ``gate``, ``protect`` and ``window`` are this package's: at 0 and None the methods are as published.

    Args:
        score: token score, one of `bigain.operators.frequency.SCORES`: high is detail.
        gate: sources merge in order of similarity − gate · rank of their score, the rank from 0 (smoothest source of
            the image) to 1; so detail merges later. Finite, from 0.
        protect: share of the sources, those of highest score, that never merges, in [0, 1).
        window: match within windows of window×window tokens, a multiple of the cell's sides, so that the cost grows
            with N instead of N²; None matches over the whole grid.

    Raises:
        ValueError: names the field, its value and the allowed range.
    """

    score: str = "laplacian_l1"
    gate: float = 0.0
    protect: float = 0.0
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score", self.score, SCORES)
        if not (math.isfinite(self.gate) and self.gate >= 0):
            raise ValueError(f"gate must be finite and at least 0, not {self.gate}")
        if not 0 <= self.protect < 1:
            raise ValueError(f"protect must lie in [0, 1), not {self.protect}")
        if self.window is not None:
            whole = isinstance(self.window, int) and not isinstance(self.window, bool) and self.window >= 1
            if not whole or any(self.window % side for side in self.cell):
                raise ValueError(
                    f"window must be a positive multiple of the cell's sides {self.cell}, or None, not {self.window!r}"
                )

    @property
    def _limited_by(self) -> str:
        return super()._limited_by + (f", with protect={self.protect:g}," if self.protect else "")

    def limit(self, grid: Grid) -> int:
        return limit(grid, self.cell) - self._protected(grid)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        if self.window is None:
            return bipartite_flops(grid, self.cell, channels)
        return 2 * comparisons(Windows(grid, self.cell, self.window)) * channels

    def scores(self, x: Tensor, context: Context) -> Tensor:
        """The score of every token: (B, N)."""
        return score(x, context.grid, self.score)

    def match(self, x: Tensor, destinations: Tensor, context: Context, scores: Tensor | None = None) -> Assignment:
        """Assigns tokens x (B, N, C) to destinations (B, D), one per cell; scores (B, N) are made where needed."""
        protected = self._protected(context.grid)
        if scores is None and (self.gate or protected):
            scores = self.scores(x, context)
        return match(
            x,
            destinations,
            self.merged_tokens(context),
            score=scores,
            gate=self.gate,
            protected=protected,
            windows=None if self.window is None else Windows(context.grid, self.cell, self.window),
        )

    def _protected(self, grid: Grid) -> int:
        return math.floor(self.protect * limit(grid, self.cell) + 1e-6)
