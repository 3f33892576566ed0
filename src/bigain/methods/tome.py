"""Token merging for Stable Diffusion (ToMe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bigain.methods.base import Context, TokenMerging, bipartite_flops, check_choice, row_keys
from bigain.operators.assignment import Assignment
from bigain.operators.grid import Grid
from bigain.operators.matching import (
    destinations_by_score,
    destinations_first,
    limit,
    match,
    random_scores,
)


@dataclass(frozen=True, kw_only=True)
class ToMe(TokenMerging):
    """Merges into one token of each cell by cosine similarity: ToMe (Bolya & Hoffman 2023, arXiv 2303.17604).

    Args:
        destinations: the "first" token of each cell, or one at "random".
        redraw: "image" draws random destinations once per image and layer, the same for all classes and timesteps
            (a fair baseline for classification); "forward" draws them anew for every row and timestep.
        seed: of the random draw; no random state of PyTorch is read or written.
    """

    name: ClassVar[str] = "tome"

    destinations: Literal["first", "random"] = "first"
    redraw: Literal["image", "forward"] = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("destinations", self.destinations, ("first", "random"))
        check_choice("redraw", self.redraw, ("image", "forward"))

    def limit(self, grid: Grid) -> int:
        return limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        return bipartite_flops(grid, self.cell, channels)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        if self.destinations == "first":
            destinations = destinations_first(context.grid, self.cell, x.shape[0], x.device)
        else:
            keys = row_keys(self.seed, context, x.shape[0], x.device, redraw=self.redraw == "forward")
            destinations = destinations_by_score(random_scores(keys, x.shape[1]), context.grid, self.cell)
        return match(x, destinations, self.merged_tokens(context))
