"""What a compression method is: a frozen config that turns tokens on a grid into an assignment, or pools them.

Nothing here imports PyTorch before tokens are given, so that a name can be read or refused at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from bigain.methods.schedules import Linear, bounds, check_range, in_range, is_whole, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from bigain.operators.assignment import Assignment
    from bigain.operators.grid import Grid

Location = Literal["self_attention", "cross_attention", "mlp", "block"]
Score = Literal[
    "laplacian_l1",
    "laplacian_l2",
    "mean_deviation",
    "l1_norm",
    "l2_norm",
    "channel_variance",
    "spectral_dft",
    "spectral_dct",
    "cosine_neighbours",
    "cosine_mean",
]
SCORES: tuple[str, ...] = get_args(Score)
"""Token scores, as `bigain.operators.frequency` has them."""


@dataclass(frozen=True)
class Context:
    """What a method may know of the forward that it acts in.

    Args:
        grid: of the tokens.
        layer: number of the transformer block, which salts random draws.
        timestep: (B,), or None if the model was called without one.
        image_keys: (B,) int64, equal for rows that show the same image, or None.
        draw_keys: (B,) int64, equal for rows that draw alike where they draw anew in every forward, or None.
    """

    grid: Grid
    layer: int = 0
    timestep: Tensor | None = None
    image_keys: Tensor | None = None
    draw_keys: Tensor | None = None

    def rows(self, index: Tensor) -> Context:
        """That of some rows of the batch, ``index`` (R,) int64."""
        timestep, image_keys, draw_keys = (
            None if each is None else each[index] for each in (self.timestep, self.image_keys, self.draw_keys)
        )
        return Context(self.grid, self.layer, timestep, image_keys, draw_keys)


@dataclass(frozen=True, kw_only=True)
class Method:
    """Where a method acts, and how tables and pictures show it.

    Class attributes: ``name`` on the command line, ``title`` and ``colour`` in tables and pictures, ``strength`` the
    field that says how much is compressed, ``strengths`` those that help texts list; ``reads_score`` whether the token
    score ``score`` is used, ``leaves_a_spectrum`` whether every token keeps something in its place, so that there is a
    spectrum of what stays. The metadata ``expects`` of a field says what its text must be, for the error.

    Args:
        levels: resolution levels that take part, 1 = the finest grid at which the model has attention.
        layers: exactly these transformer blocks, whatever their level: their numbers among all of the model's, from 0
            in the order of the forward. None is all of ``levels``.
        timesteps: (low, high), the range of t in which the method acts: low < t <= high, and t = 0 too where low is 0;
            in training timesteps, or thousandths of the noise level in models that attend jointly or over video. At
            any other t it does nothing. All rows of a forward must have the same methods. None is every t.

    A ValueError names the field, what is allowed and the value.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    colour: ClassVar[str]
    strength: ClassVar[str]
    strengths: ClassVar[tuple[str, ...]]
    reads_score: ClassVar[bool] = False
    leaves_a_spectrum: ClassVar[bool] = True

    levels: tuple[int, ...] = field(default=(1,), metadata={"expects": "whole numbers from 1, such as 1 or 1/2"})
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"expects": "whole numbers from 0, such as 0/1/5, or none"}
    )
    timesteps: tuple[int, int] | None = field(
        default=None, metadata={"expects": "two whole numbers from 0, such as 500-1000, or none"}
    )

    def __post_init__(self) -> None:
        for name, kinds in field_kinds(type(self)).items():  # type: ignore[arg-type]  # mypy doubts classes' hashes
            self._check_kind(name, getattr(self, name), kinds)
        _check_numbers("levels", self.levels, 1, "the finest grid with attention")
        if self.layers is not None:
            _check_numbers("layers", self.layers, 0, "the first transformer block")
            if self.levels != (1,):
                raise ValueError(
                    f"levels must be left out where layers are named, whatever their level, not {self.levels}"
                )
        if self.timesteps is not None:
            check_range(self.timesteps)

    def _check_kind(self, name: str, value: object, kinds: tuple[Any, ...]) -> None:
        """Refuses a word that is none of a field's, and turns a list into a tuple, so that equal configs are equal."""
        if value is None and NoneType in kinds:
            return
        if get_origin(kinds[0]) is Literal and value not in get_args(kinds[0]):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kinds[0]))}, not {value!r}")
        if get_origin(kinds[0]) is tuple:
            if not isinstance(value, list | tuple):
                example = getattr(type(self), name, None) or (0, 1)
                raise ValueError(f"{name} must be a tuple such as {example}, not {value!r}")
            object.__setattr__(self, name, tuple(value))

    def __str__(self) -> str:
        from bigain.methods.text import spec

        return spec(self)

    def includes(self, level: int, layer: int) -> bool:
        """Whether the transformer block of this level and number takes part."""
        return level in self.levels if self.layers is None else layer in self.layers

    def acts_at(self, t: float) -> bool:
        """Whether a timestep lies in the range of the method."""
        return in_range(self.timesteps, t)

    @property
    def is_identity(self) -> bool:
        """Whether the method compresses nothing by its settings."""
        raise NotImplementedError

    @property
    def is_scheduled(self) -> bool:
        """Whether the number of tokens depends on the timestep."""
        return False

    @property
    def depends_on_image(self) -> bool:
        """Whether the number of tokens, and so the FLOPs, depends on the image."""
        return False

    @property
    def over_time(self) -> bool:
        """Whether tokens of several frames of a video become one, so that it takes a video to act."""
        return False

    def within_frame(self) -> Method | None:
        """What takes its place in a frame that is not grouped with others; None where that stays whole."""
        return self

    @property
    def words(self) -> dict[str, str]:
        """How tables put some fields into words; an empty one is left out."""
        return {}

    def check(self, grid: Grid) -> None:
        """Raises ValueError where the settings do not fit a grid; names the field and the limit."""

    def suits(self, grid: Grid) -> bool:
        """Whether the settings take away at least a token of a grid, and no more than can go."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TokenMerging(Method):
    """Common fields of the methods that merge tokens; see each method for how it assigns them.

    Args:
        ratio: share of the tokens that is merged away, in [0, 1): ⌊ratio·N⌋ tokens, or a schedule over t.
        locations: where tokens are merged; self-attention always is (BiGain, table 6). In models that attend jointly or
            over video there may also be the MLP alone, ("mlp",), or the whole of each block, ("block",).
        operator: how a group becomes one token: "mean", "mlerp" (mean direction, largest norm) or "prune".
        size_aware: proportional attention (ToMe, arXiv 2210.09461): log group size is added to the keys' logits, so
            that a group weighs what its tokens weighed. None is yes in models that attend jointly or over video, no in
            U-Nets and DiTs, as published.
        queries: "merged", or "full" to merge K and V only, so that there is nothing to un-merge.
        cached: compute the assignment in a level's first block and reuse it for the rest of the forward.
        features: which tokens are scored and matched: the "block"'s input; or the input of the "first" block of the
            level, whether that one takes part or not. There the tokens have seen little of the prompt or class, or
            nothing, so that the classes of an image merge alike. Not in a paper.
    """

    _limited_by: ClassVar[str] = "{self.title} allows"  # for the error: what allows at most the limit
    strength: ClassVar[str] = "ratio"
    strengths: ClassVar[tuple[str, ...]] = ("0.3", "0.5", "0.7")

    ratio: float | Linear = field(default=0.5, metadata={"expects": "a number in [0, 1) or a schedule such as 0.7>0.3"})
    locations: tuple[Location, ...] = ("self_attention",)
    operator: Literal["mean", "mlerp", "prune"] = "mean"
    size_aware: bool | None = None
    queries: Literal["merged", "full"] = "merged"
    cached: bool = False
    features: Literal["block", "first"] = "block"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.ratio, Real | Linear):
            raise ValueError(f"ratio must be a number or a Linear schedule, not {self.ratio!r}")
        low, high = bounds(self.ratio)
        if not 0 <= low <= high < 1:
            raise ValueError(f"ratio must lie in [0, 1), not {self.ratio}")
        allowed = get_args(Location)[:3]
        if self.locations not in (("mlp",), ("block",)) and (
            "self_attention" not in self.locations or {*self.locations} - {*allowed}
        ):
            raise ValueError(
                f"locations must hold 'self_attention' and otherwise only {allowed}, or be ('mlp',) or ('block',), not "
                f"{self.locations}"
            )
        if self.queries == "full" and self.locations != ("self_attention",):
            raise ValueError(
                f"locations must be ('self_attention',) with queries='full', which merges the keys and values of "
                f"self-attention only, not {self.locations}"
            )

    @property
    def is_identity(self) -> bool:
        return bounds(self.ratio) == (0.0, 0.0)

    @property
    def is_scheduled(self) -> bool:
        return isinstance(self.ratio, Linear)

    @property
    def words(self) -> dict[str, str]:
        return {
            "size_aware=true": "size-aware",
            "queries=full": "keys and values only",
            "cached=true": "cached",
            "features=first": "by the level's first tokens",
        }

    @property
    def fewest_tokens(self) -> int:
        """The least number of tokens that can be merged away."""
        return 1

    @property
    def redraws(self) -> bool:
        """Whether rows of one image, timestep and sample may be assigned unlike each other."""
        return False

    def limit(self, grid: Grid) -> int:
        """Most tokens that can be merged away on ``grid``."""
        raise NotImplementedError

    def assign(self, x: Tensor, context: Context) -> Assignment:
        """Assigns tokens x (B, N, C) to groups."""
        raise NotImplementedError

    def matching_flops(self, grid: Grid, channels: int) -> int:
        """Matrix-product FLOPs of one sample's assignment."""
        return 0

    def most_merged(self, grid: Grid) -> int:
        """Tokens merged away where the ratio is at its highest."""
        return _tokens(bounds(self.ratio)[1], grid.tokens)

    def suits(self, grid: Grid) -> bool:
        return self.fewest_tokens <= self.most_merged(grid) <= self.limit(grid)

    def check(self, grid: Grid) -> None:
        highest, limit = self.most_merged(grid), self.limit(grid)
        if highest > limit:
            by = self._limited_by.format(self=self)
            raise ValueError(
                f"ratio must be at most {math.floor(limit / grid.tokens * 1e4) / 1e4:g} on a grid of {grid}, of whose "
                f"{grid.tokens} tokens {by} {limit} to merge, not {self.ratio}, which is {highest}"
            )

    def merged_tokens(self, context: Context) -> int | Tensor:
        """How many tokens to merge away: a number, or int64 (B,) where a scheduled ratio differs between rows."""
        self.check(context.grid)
        tokens = context.grid.tokens
        ratio = resolve(self.ratio, context.timestep, "ratio")
        if isinstance(ratio, float | int):
            return _tokens(ratio, tokens)
        # Not on the ratio's device, which may have no float64; how many tokens are left must be known here anyway.
        counts = (ratio.cpu().double() * tokens + 1e-6).floor().long()
        return int(counts[0]) if bool((counts == counts[0]).all()) else counts.to(ratio.device)


@dataclass(frozen=True, kw_only=True)
class CellMerging(TokenMerging):
    """Merging that goes by the cells of the grid.

    Args:
        cell: height and width of the cells that destinations or blocks are taken from.
    """

    _limited_by: ClassVar[str] = "cells of {self.cell_text} allow"

    cell: tuple[int, int] = field(default=(2, 2), metadata={"expects": "height x width, such as 2x2"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_cell()
        if bounds(self.ratio)[0] > 0 and self.cell == (1, 1):
            raise ValueError("cell must be (2, 2) or larger, not (1, 1), in which every token is a destination")

    def _check_cell(self) -> None:
        if len(self.cell) != 2 or not all(map(is_whole, self.cell)):
            raise ValueError(f"cell must be two whole numbers from 1, not {self.cell}")

    @property
    def cell_text(self) -> str:
        """The sides of a cell, such as 2x2."""
        return "x".join(map(str, self.cell))

    def _fits(self, grid: Grid) -> bool:
        return all(side <= end for side, end in zip((1, *self.cell)[-3:], grid.sides, strict=True))

    def check(self, grid: Grid) -> None:
        if not self._fits(grid):
            raise ValueError(f"cell must fit the grid of {grid} tokens, not {self.cell_text}")
        super().check(grid)

    def suits(self, grid: Grid) -> bool:
        return self._fits(grid) and super().suits(grid)


@cache
def field_kinds(method: type) -> dict[str, tuple[Any, ...]]:
    """The types of each field's values: the members of a union in order, or the one."""
    hints = get_type_hints(method)
    own = {each.name: hints[each.name] for each in fields(method)}
    return {name: get_args(hint) if isinstance(hint, UnionType) else (hint,) for name, hint in own.items()}


def _check_numbers(name: str, numbers: tuple[int, ...], low: int, first: str) -> None:
    whole = bool(numbers) and all(is_whole(number, low) for number in numbers)
    if not whole or len({*numbers}) < len(numbers):
        raise ValueError(f"{name} must be distinct whole numbers from {low} ({first}), not {numbers}")


def _tokens(ratio: float, tokens: int) -> int:
    # The small term keeps a product such as 0.29 * 100 from losing a token to rounding.
    return math.floor(ratio * tokens + 1e-6)
