"""Token merging for Stable Diffusion (ToMe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bigain.methods.base import Context, check_choice, row_keys
from bigain.methods.bipartite import BipartiteMerging
from bigain.operators.assignment import Assignment
from bigain.operators.matching import (
    destinations_at,
    destinations_by_score,
    destinations_first,
    places_farthest_first,
    random_scores,
)


@dataclass(frozen=True, kw_only=True)
class ToMe(BipartiteMerging):
    """Merges into one token of each cell by cosine similarity: ToMe (Bolya & Hoffman 2023, arXiv 2303.17604).

    Args:
        destinations: the "first" token of each cell, one at "random", or by "offset": the same place of every cell
            within a layer, which changes with the layer's number among the model's transformer blocks: layer l takes
            the place l mod (places of a cell), farthest first (2×2: top-left, bottom-right, top-right, bottom-left).
            Partial cells take the nearest token that they have. Not in the paper; pointless with ``cached``.
        redraw: "image" draws random destinations once per image and layer, the same for all classes and timesteps
            (a fair baseline for classification); "forward" draws them anew in every forward: for every timestep, and
            where the classifier runs the model for every class.
        seed: of the random draw; no random state of PyTorch is read or written.
    """

    name: ClassVar[str] = "tome"

    destinations: Literal["first", "random", "offset"] = "first"
    redraw: Literal["image", "forward"] = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("destinations", self.destinations, ("first", "random", "offset"))
        check_choice("redraw", self.redraw, ("image", "forward"))

    def _assign(self, x: Tensor, context: Context) -> Assignment:
        return self.match(x, self._destinations(x, context), context)

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        if self.destinations == "first":
            return destinations_first(context.grid, self.cell, x.shape[0], x.device)
        if self.destinations == "offset":
            pattern = places_farthest_first(self.cell)
            place = pattern[context.layer % len(pattern)]
            return destinations_at(context.grid, self.cell, place, x.shape[0], x.device)
        keys = row_keys(self.seed, context, x.shape[0], x.device, redraw=self.redraw == "forward")
        return destinations_by_score(random_scores(keys, x.shape[1]), context.grid, self.cell)
