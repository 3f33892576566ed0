"""Laplacian-gated token merging (L-GTM), BiGain's merging method (arXiv 2603.12240)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bigain.methods.base import Context, check_choice
from bigain.methods.bipartite import BipartiteMerging
from bigain.operators.assignment import Assignment
from bigain.operators.matching import destinations_by_score


@dataclass(frozen=True, kw_only=True)
class LaplacianMerging(BipartiteMerging):
    """Merges into the smoothest token of each cell: L-GTM (arXiv 2603.12240).

    The token with the lowest score of each cell is a destination; every other token is matched by cosine similarity
    to the destinations of the whole grid, and the ⌊ratio·N⌋ best matches merge. Table 8 of the paper compares scores.

    Args:
        destinations: "lowest" (the paper's) or "highest" score of the cell.
    """

    name: ClassVar[str] = "lgtm"

    destinations: Literal["lowest", "highest"] = "lowest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("destinations", self.destinations, ("lowest", "highest"))

    def _assign(self, x: Tensor, context: Context) -> Assignment:
        scores = self.scores(x, context)
        destinations = destinations_by_score(scores, context.grid, self.cell, lowest=self.destinations == "lowest")
        return self.match(x, destinations, context, scores)
