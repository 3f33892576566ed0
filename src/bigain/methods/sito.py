"""Similarity-based token pruning (SiTo)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bigain.methods.base import CellMerging, Context, bipartite_flops, row_keys

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.operators.assignment import Assignment
    from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class SiTo(CellMerging):
    """Drops the most replaceable tokens, recovers each from its most similar kept one: SiTo (Zhang et al., AAAI 2025).

    The destination of a cell is the token with the largest ``similarity_weight · Σ similarity + noise_weight · noise``,
    where the sum runs over the cosine similarities to all tokens of the image. The noise is Gaussian, as in the
    published code; here it is drawn once per image and layer, there anew in every forward.

    Args:
        similarity_weight: β of the paper.
        noise_weight: a of the paper.
    """

    name: ClassVar[str] = "sito"
    title: ClassVar[str] = "SiTo"
    colour: ClassVar[str] = "#CC79A7"

    operator: Literal["mean", "mlerp", "prune"] = "prune"
    similarity_weight: float = 1.0
    noise_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("similarity_weight", "noise_weight"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, not {getattr(self, name)}")

    def limit(self, grid: Grid) -> int:
        from bigain.operators.matching import limit

        return limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        dropped = self.most_merged(grid)
        left = self.limit(grid) - dropped  # sources that stay
        similarity_sum = 2 * grid.tokens * channels
        return similarity_sum + bipartite_flops(grid, self.cell, channels) + 2 * dropped * left * channels

    def assign(self, x: Tensor, context: Context) -> Assignment:
        from torch.nn import functional

        from bigain.operators.matching import destinations_by_score, recover_most_similar
        from bigain.operators.random import random_normal

        direction = functional.normalize(x.float(), dim=-1)  # (B, N, C)
        # Σ_j cos(i, j) is the product with the sum of all directions, which needs no N×N matrix.
        similarity = (direction @ direction.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # (B, N)
        keys = row_keys(context, x.shape[0], x.device, redraw=False)
        scores = self.similarity_weight * similarity + self.noise_weight * random_normal(keys, x.shape[1])
        destinations = destinations_by_score(scores, context.grid, self.cell, lowest=False)
        return recover_most_similar(x, destinations, self.merged_tokens(context))
