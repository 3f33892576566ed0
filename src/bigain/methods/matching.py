"""Merging by cosine similarity: ToMe, L-GTM and SiTo, which differ in how they choose destinations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bigain.methods.base import SCORES, CellMerging, Context, check_choice, row_keys

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.operators.assignment import Assignment
    from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class _Matching(CellMerging):
    """One destination per cell; each source joins its most similar one on the whole grid, the best matches first."""

    def limit(self, grid: Grid) -> int:
        from bigain.operators.matching import limit

        return limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        """Of the similarities of all sources to all destinations of one sample, multiply-adds counted as two."""
        sources = self.limit(grid)
        return 2 * sources * (grid.tokens - sources) * channels

    def assign(self, x: Tensor, context: Context) -> Assignment:
        from bigain.operators.matching import match

        return match(x, self._destinations(x, context), self.merged_tokens(context))

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        """One token index per cell: (B, D) int64."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ToMe(_Matching):
    """Merges into one token of each cell by cosine similarity: ToMe (Bolya & Hoffman 2023, arXiv 2303.17604).

    Args:
        destinations: the "first" token of each cell, or one at "random".
        redraw: "image" draws random destinations once per image and layer, the same for all classes and timesteps
            (a fair baseline for classification); "forward" draws them anew in every forward: for every timestep, and
            where the classifier runs the model for every class. The draws are hashes of the row keys; PyTorch's random
            state is neither read nor written.
    """

    name: ClassVar[str] = "tome"
    title: ClassVar[str] = "ToMe"
    colour: ClassVar[str] = "#0072B2"

    destinations: Literal["first", "random"] = "first"
    redraw: Literal["image", "forward"] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("destinations", self.destinations, ("first", "random"))
        check_choice("redraw", self.redraw, ("image", "forward"))

    @property
    def words(self) -> dict[str, str]:
        kind = "first of the cell" if self.destinations == "first" else f"random per {self.redraw}"
        fixed = {"destinations=first": kind, "destinations=random": kind, f"redraw={self.redraw}": ""}
        return super().words | fixed

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        from bigain.operators.matching import destinations_by_score, destinations_first
        from bigain.operators.random import random_uniform

        if self.destinations == "first":
            return destinations_first(context.grid, self.cell, x.shape[0], x.device)
        keys = row_keys(context, x.shape[0], x.device, redraw=self.redraw == "forward")
        return destinations_by_score(random_uniform(keys, x.shape[1]), context.grid, self.cell)


@dataclass(frozen=True, kw_only=True)
class LaplacianMerging(_Matching):
    """Merges into the smoothest token of each cell: L-GTM (arXiv 2603.12240).

    The token with the lowest score of each cell is a destination; every other token is matched by cosine similarity
    to the destinations of the whole grid, and the ⌊ratio·N⌋ best matches merge. Table 8 of the paper compares scores.

    Args:
        score: token score, one of `bigain.operators.frequency.SCORES`: high is detail.
    """

    name: ClassVar[str] = "lgtm"
    title: ClassVar[str] = "L-GTM"
    colour: ClassVar[str] = "#D55E00"

    score: str = "laplacian_l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("score", self.score, SCORES)

    @property
    def reads_score(self) -> bool:
        return True

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        from bigain.operators.frequency import score
        from bigain.operators.matching import destinations_by_score

        return destinations_by_score(score(x, context.grid, self.score), context.grid, self.cell)


@dataclass(frozen=True, kw_only=True)
class SiTo(_Matching):
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

    def matching_flops(self, grid: Grid, channels: int) -> int:
        dropped = self.most_merged(grid)
        left = self.limit(grid) - dropped  # sources that stay
        similarity_sum = 2 * grid.tokens * channels
        return similarity_sum + super().matching_flops(grid, channels) + 2 * dropped * left * channels

    def assign(self, x: Tensor, context: Context) -> Assignment:
        from bigain.operators.matching import recover_most_similar

        return recover_most_similar(x, self._destinations(x, context), self.merged_tokens(context))

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        from torch.nn import functional

        from bigain.operators.matching import destinations_by_score
        from bigain.operators.random import random_normal

        direction = functional.normalize(x.float(), dim=-1)  # (B, N, C)
        # Σ_j cos(i, j) is the product with the sum of all directions, which needs no N×N matrix.
        similarity = (direction @ direction.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # (B, N)
        keys = row_keys(context, x.shape[0], x.device, redraw=False)
        scores = self.similarity_weight * similarity + self.noise_weight * random_normal(keys, x.shape[1])
        return destinations_by_score(scores, context.grid, self.cell, lowest=False)
