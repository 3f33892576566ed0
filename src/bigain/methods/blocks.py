"""Merging by blocks of neighbours, without a similarity matrix: ABM, and a quadtree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from bigain.methods.base import SCORES, CellMerging, Context, TokenMerging, check_choice

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.operators.assignment import Assignment
    from bigain.operators.grid import Grid

Aggregate = Literal["max", "sum", "mean", "min", "std"]


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlockMerging(CellMerging):
    """Replaces the smoothest cells by their mean: ABM (arXiv 2603.12240). No similarity matrix.

    Args:
        score: token score, one of `bigain.operators.frequency.SCORES`.
        aggregate: how a cell's scores become one: "max", "sum", "mean", "min" or "std".
        threshold: merge every cell whose aggregate is below it, whatever their number; ``ratio`` must then be 0.
    """

    name: ClassVar[str] = "abm"
    title: ClassVar[str] = "ABM"
    colour: ClassVar[str] = "#E69F00"

    score: str = "laplacian_l1"
    aggregate: Aggregate = "max"
    threshold: float | None = field(default=None, metadata={"expects": "a number, or none"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score", self.score, SCORES)
        check_choice("aggregate", self.aggregate, get_args(Aggregate))
        if self.threshold is not None:
            if not math.isfinite(self.threshold):
                raise ValueError(f"threshold must be finite, not {self.threshold}")
            if self.ratio != 0:
                raise ValueError(f"ratio must be 0 with a threshold, which decides how much merges, not {self.ratio}")

    @property
    def is_identity(self) -> bool:
        return self.threshold is None and super().is_identity

    @property
    def is_scheduled(self) -> bool:
        return self.threshold is not None or super().is_scheduled

    @property
    def depends_on_image(self) -> bool:
        return self.threshold is not None

    @property
    def reads_score(self) -> bool:
        return True

    @property
    def fewest_tokens(self) -> int:
        return self.cell[0] * self.cell[1] - 1  # a cell goes whole

    def limit(self, grid: Grid) -> int:
        from bigain.operators.blocks import limit

        return limit(grid, self.cell)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        from bigain.operators.blocks import aggregate, merge_blocks, merge_blocks_below
        from bigain.operators.frequency import score

        self.check(context.grid)
        cells = aggregate(score(x, context.grid, self.score), context.grid, self.cell, self.aggregate)
        if self.threshold is not None:
            return merge_blocks_below(cells, context.grid, self.cell, self.threshold)
        return merge_blocks(cells, context.grid, self.cell, self.merged_tokens(context))


@dataclass(frozen=True, kw_only=True)
class QuadtreeMerging(TokenMerging):
    """Replaces blocks of 2×2, 4×4, 8×8 tokens by their mean, the cheapest first. No similarity matrix.

    A block costs the squared error that its mean adds to those of the four blocks within, which must have merged before
    it. Exactly ⌊ratio·N⌋ tokens merge: of the last block only as many parts as are needed. Not in a paper.

    Args:
        depth: how many sizes of blocks there are; the largest have 2^depth tokens a side.
    """

    name: ClassVar[str] = "quadtree"
    title: ClassVar[str] = "Quadtree"
    colour: ClassVar[str] = "#882255"

    depth: int = field(default=3, metadata={"expects": "a whole number from 1 to 16"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.depth, int) or isinstance(self.depth, bool) or not 1 <= self.depth <= 16:
            raise ValueError(f"depth must be a whole number from 1 to 16, not {self.depth!r}")

    @property
    def _limited_by(self) -> str:
        return f"a quadtree of depth {self.depth} allows"

    def limit(self, grid: Grid) -> int:
        from bigain.operators.quadtree import limit

        return limit(grid, self.depth)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        from bigain.operators.quadtree import merge_quadtree

        return merge_quadtree(x, context.grid, self.depth, self.merged_tokens(context))
