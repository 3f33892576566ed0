"""Laplacian-gated token merging (L-GTM), BiGain's merging method (arXiv 2603.12240)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bigain.methods.base import Context, TokenMerging, bipartite_flops, check_choice
from bigain.operators.assignment import Assignment
from bigain.operators.frequency import SCORES, score
from bigain.operators.grid import Grid
from bigain.operators.matching import destinations_by_score, limit, match


@dataclass(frozen=True, kw_only=True)
class LaplacianMerging(TokenMerging):
    """Merges into the smoothest token of each cell: L-GTM (arXiv 2603.12240).

    The token with the lowest score of each cell is a destination; every other token is matched by cosine similarity
    to the destinations of the whole grid, and the ⌊ratio·N⌋ best matches merge.

    Args:
        score: token score, one of `bigain.operators.frequency.SCORES` (table 8 of the paper).
        destinations: "lowest" (the paper's) or "highest" score of the cell.
    """

    name: ClassVar[str] = "lgtm"

    score: str = "laplacian_l1"
    destinations: Literal["lowest", "highest"] = "lowest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score", self.score, SCORES)
        check_choice("destinations", self.destinations, ("lowest", "highest"))

    def limit(self, grid: Grid) -> int:
        return limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        return bipartite_flops(grid, self.cell, channels)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        scores = score(x, context.grid, self.score)
        destinations = destinations_by_score(scores, context.grid, self.cell, lowest=self.destinations == "lowest")
        return match(x, destinations, self.merged_tokens(context))
