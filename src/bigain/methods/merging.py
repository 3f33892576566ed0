"""Merging tokens: by cosine similarity (ToMe, L-GTM, SiTo), and by blocks of neighbours (ABM, a quadtree)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bigain import operators
from bigain.methods.base import CellMerging, Context, Method, Score, TokenMerging
from bigain.methods.schedules import is_whole

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.operators.assignment import Assignment
    from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class _Matching(CellMerging):
    """One destination per cell; each source joins its most similar one on the whole grid, the best matches first."""

    _lowest: ClassVar[bool] = (
        True  # whether the token with the lowest score of a cell is its destination, or the highest
    )
    _recovers: ClassVar[bool] = False  # each token that goes from its most similar kept one, destination or not

    def limit(self, grid: Grid) -> int:
        return operators.matching.limit(grid, self.cell)

    def matching_flops(self, grid: Grid, channels: int) -> int:
        """Of the similarities of all sources to all destinations of one sample, multiply-adds counted as two."""
        sources = self.limit(grid)
        return 2 * sources * (grid.tokens - sources) * channels

    def assign(self, x: Tensor, context: Context) -> Assignment:
        return operators.matching.match(x, self._destinations(x, context), self.merged_tokens(context), self._recovers)

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        """One token index per cell: (B, D) int64."""
        scores = self._scores(x, context)
        return operators.matching.destinations_by_score(scores, context.grid, self.cell, self._lowest)

    def _scores(self, x: Tensor, context: Context) -> Tensor:
        """By which destinations are chosen: (B, N)."""
        raise NotImplementedError

    def _keys(self, x: Tensor, context: Context, redraw: bool) -> Tensor:
        """A key per row, int64 (B,): fixed per image and layer, or another for every timestep and draw key too.

        Without image keys all rows count as one image, so that a forward is reproducible whatever the batch.
        """
        image = x.new_zeros(len(x)).long() if context.image_keys is None else context.image_keys
        keys = operators.random.mix_keys(image, context.layer)
        for other in (context.timestep, context.draw_keys) if redraw else ():
            if other is not None:
                keys = operators.random.mix_keys(keys, other.long())
        return keys


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

    @property
    def redraws(self) -> bool:
        return self.redraw == "forward"

    @property
    def words(self) -> dict[str, str]:
        kind = "first of the cell" if self.destinations == "first" else f"random per {self.redraw}"
        fixed = {"destinations=first": kind, "destinations=random": kind, f"redraw={self.redraw}": ""}
        return super().words | fixed

    def _destinations(self, x: Tensor, context: Context) -> Tensor:
        if self.destinations == "first":
            return operators.grid.cell_tokens(context.grid, self.cell, x.device).expand(len(x), -1)
        return super()._destinations(x, context)

    def _scores(self, x: Tensor, context: Context) -> Tensor:
        keys = self._keys(x, context, redraw=self.redraw == "forward")
        return operators.random.random_uniform(keys, x.shape[1])


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
    reads_score: ClassVar[bool] = True

    score: Score = "laplacian_l1"

    def _scores(self, x: Tensor, context: Context) -> Tensor:
        return operators.frequency.score(x, context.grid, self.score)


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
    _lowest: ClassVar[bool] = False
    _recovers: ClassVar[bool] = True

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

    def _scores(self, x: Tensor, context: Context) -> Tensor:
        from torch.nn import functional

        direction = functional.normalize(x.float(), dim=-1)  # (B, N, C)
        # Σ_j cos(i, j) is the product with the sum of all directions, which needs no N×N matrix.
        similarity = (direction @ direction.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # (B, N)
        keys = self._keys(x, context, redraw=False)
        noise = operators.random.random_normal(keys, x.shape[1])
        return self.similarity_weight * similarity + self.noise_weight * noise


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlockMerging(CellMerging):
    """Replaces the smoothest cells by their mean: ABM (arXiv 2603.12240). No similarity matrix.

    Args:
        cell: height and width of the cells; or, in a video, frames, height and width, such as (2, 2, 2). There the
            first frame, which stands for one alone, has cells of its own.
        score: token score, one of `bigain.operators.frequency.SCORES`.
        aggregate: how a cell's scores become one: "max", "sum", "mean", "min" or "std".
        threshold: merge every cell whose aggregate is below it, whatever their number; ``ratio`` must then be 0.
    """

    name: ClassVar[str] = "abm"
    title: ClassVar[str] = "ABM"
    colour: ClassVar[str] = "#E69F00"
    reads_score: ClassVar[bool] = True

    score: Score = "laplacian_l1"
    cell: tuple[int, int] | tuple[int, int, int] = field(  # type: ignore[assignment]
        default=(2, 2), metadata={"expects": "height x width, such as 2x2, or frames x height x width"}
    )
    aggregate: Literal["max", "sum", "mean", "min", "std"] = "max"
    threshold: float | None = field(default=None, metadata={"expects": "a number, or none"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            if not math.isfinite(self.threshold):
                raise ValueError(f"threshold must be finite, not {self.threshold}")
            if self.ratio != 0:
                raise ValueError(f"ratio must be 0 with a threshold, which decides how much merges, not {self.ratio}")

    def _check_cell(self) -> None:
        if len(self.cell) not in (2, 3) or not all(map(is_whole, self.cell)):
            raise ValueError(f"cell must be two whole numbers from 1, or three with frames, not {self.cell}")
        if len(self.cell) == 3 and self.cell[0] == 1:  # so that equal cells are equal configs
            object.__setattr__(self, "cell", self.cell[1:])

    @property
    def over_time(self) -> bool:
        return len(self.cell) == 3

    def within_frame(self) -> Method | None:
        inside = self.cell[-2:]
        return None if inside == (1, 1) else replace(self, cell=inside)

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
    def fewest_tokens(self) -> int:
        return math.prod(self.cell) - 1  # a cell goes whole

    def limit(self, grid: Grid) -> int:
        return operators.blocks.limit(grid, self.cell)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        self.check(context.grid)
        scores = operators.frequency.score(x, context.grid, self.score)
        cells = operators.blocks.aggregate(scores, context.grid, self.cell, self.aggregate)
        if self.threshold is not None:
            return operators.blocks.merge_blocks_below(cells, context.grid, self.cell, self.threshold)
        return operators.blocks.merge_blocks(cells, context.grid, self.cell, self.merged_tokens(context))


@dataclass(frozen=True, kw_only=True)
class QuadtreeMerging(TokenMerging):
    """Replaces blocks of 2×2, 4×4, 8×8 tokens by their mean, the cheapest first. No similarity matrix.

    A block costs the squared error that its mean adds to those of the four blocks within, which must have merged before
    it. Exactly ⌊ratio·N⌋ tokens merge: of the last block only as many parts as are needed. Not in a paper.

    Args:
        depth: how many sizes of blocks there are; the largest have 2^depth tokens a side.
        time_depth: how many of them, from the smallest, span twice as many frames of a video as the size below: with 1
            all blocks span two frames. The first frame, which stands for one alone, has blocks of its own.
    """

    name: ClassVar[str] = "quadtree"
    title: ClassVar[str] = "Quadtree"
    colour: ClassVar[str] = "#882255"
    _limited_by: ClassVar[str] = "a quadtree of depth {self.depth} allows"

    depth: int = field(default=3, metadata={"expects": "a whole number from 1 to 16"})
    time_depth: int = field(default=0, metadata={"expects": "a whole number from 0 to depth"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.depth) or self.depth > 16:
            raise ValueError(f"depth must be a whole number from 1 to 16, not {self.depth!r}")
        if not is_whole(self.time_depth, 0) or self.time_depth > self.depth:
            raise ValueError(
                f"time_depth must be a whole number from 0 to depth, {self.depth}, not {self.time_depth!r}"
            )

    @property
    def over_time(self) -> bool:
        return self.time_depth > 0

    def within_frame(self) -> Method | None:
        return replace(self, time_depth=0)

    def limit(self, grid: Grid) -> int:
        return operators.blocks.quadtree_limit(grid, self.depth, self.time_depth)

    def check(self, grid: Grid) -> None:
        if self.over_time and grid.frames == 1:
            raise ValueError(
                f"time_depth must be 0 where only one frame can be merged over time, not {self.time_depth}"
            )
        super().check(grid)

    def assign(self, x: Tensor, context: Context) -> Assignment:
        merged = self.merged_tokens(context)
        return operators.blocks.merge_quadtree(x, context.grid, self.depth, merged, self.time_depth)
