"""Quadtree merging: adaptive square blocks, the cheapest first by the squared error that they add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bigain.methods.base import Context, TokenMerging
from bigain.operators.assignment import Assignment
from bigain.operators.grid import Grid
from bigain.operators.quadtree import limit, merge_quadtree


@dataclass(frozen=True, kw_only=True)
class QuadtreeMerging(TokenMerging):
    """Replaces blocks of 2×2, 4×4, 8×8 tokens by their mean, the cheapest first. No similarity matrix.

    A block costs the squared error that its mean adds to those of the four blocks within, which must have merged before
    it. Exactly ⌊ratio·N⌋ tokens merge: of the last block only as many parts as are needed. Not in a paper.

    Args:
        depth: how many sizes of blocks there are; the largest have 2^depth tokens a side. ``cell`` must be (2, 2).
    """

    name: ClassVar[str] = "quadtree"

    depth: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.depth, int) or isinstance(self.depth, bool) or not 1 <= self.depth <= 16:
            raise ValueError(f"depth must be a whole number from 1 to 16, not {self.depth!r}")
        if self.cell != (2, 2):
            raise ValueError(f"cell must be (2, 2) in a quadtree, whose larger blocks depth sets, not {self.cell}")

    @property
    def _limited_by(self) -> str:
        return f"a quadtree of depth {self.depth} allows"

    def limit(self, grid: Grid) -> int:
        return limit(grid, self.depth)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        return 0

    def _assign(self, x: Tensor, context: Context) -> Assignment:
        return merge_quadtree(x, context.grid, self.depth, self.merged_tokens(context))
