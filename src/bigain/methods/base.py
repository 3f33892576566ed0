"""What a compression method is: a frozen config that turns tokens on a grid into an assignment, or pools them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bigain.methods.schedules import Linear, bounds, resolve
from bigain.operators.assignment import Assignment
from bigain.operators.frequency import low_pass
from bigain.operators.grid import Grid, cell_count
from bigain.operators.matching import mix_keys

Location = Literal["self_attention", "cross_attention", "mlp"]
LOCATIONS: tuple[Location, ...] = ("self_attention", "cross_attention", "mlp")
OPERATORS = ("mean", "mlerp", "prune")


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


def _make_tuples(config: object, fields: Mapping[str, str]) -> None:
    """Turns lists in ``fields`` into tuples, so that equal configs are equal.

    Args:
        fields: names, each with an example for the error.

    Raises:
        ValueError: one is neither; names it, its value and the example.
    """
    for field, example in fields.items():
        value = getattr(config, field)
        if not isinstance(value, list | tuple):
            raise ValueError(f"{field} must be a tuple such as {example}, not {value!r}")
        object.__setattr__(config, field, tuple(value))


def _check_places(levels: tuple[int, ...], layers: tuple[int, ...] | None) -> None:
    if not _distinct(levels, 1):
        raise ValueError(f"levels must be distinct whole numbers from 1 (the finest grid with attention), not {levels}")
    if layers is not None and not _distinct(layers, 0):
        raise ValueError(f"layers must be distinct whole numbers from 0 (the first transformer block), not {layers}")


def _distinct(numbers: tuple[int, ...], low: int) -> bool:
    """Whether there is at least one number, and they are whole, not below ``low``, and all different."""
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= low for number in numbers)
    return bool(numbers) and whole and len({*numbers}) == len(numbers)


@dataclass(frozen=True, kw_only=True)
class TokenMerging:
    """Common fields of the methods that merge tokens; see each method for how it assigns them.

    Args:
        ratio: share of the tokens that is merged away, in [0, 1): ⌊ratio·N⌋ tokens, or a schedule over t.
        cell: height and width of the cells that destinations or blocks are taken from.
        levels: resolution levels that take part, 1 = the finest grid at which the model has attention.
        layers: of these levels' transformer blocks, those that take part: their numbers among all of the model's, from
            0 in the order of the forward. None is all.
        locations: where tokens are merged; self-attention always is (BiGain, table 6).
        operator: how a group becomes one token: "mean", "mlerp" (mean direction, largest norm) or "prune".
        size_aware: proportional attention (ToMe, arXiv 2210.09461): log group size is added to the keys' logits.
        size_bias: how it is added: by a "mask", which works everywhere but keeps PyTorch from its flash kernel; or by
            one more "channel" of queries and keys, where the model's attention is plain.
        queries: "merged", or "full" to merge K and V only, so that there is nothing to un-merge.
        cached: compute the assignment in a level's first block and reuse it for the rest of the forward.
        features: which tokens are scored and matched: the "block"'s input; what the "attention" sees after the norm; or
            the input of the "first" block of the level, whether that one takes part or not. There the tokens have seen
            little of the prompt or class, or nothing, so that the classes of an image merge alike. Not in a paper.
        smoothing: passes of a 3×3 binomial filter over these tokens before they are scored and matched, so that noise
            decides less about what merges; 0 to 16. The tokens that merge stay as they are. Not in a paper.

    Raises:
        ValueError: names the field, its value and the allowed range.
    """

    name: ClassVar[str]

    ratio: float | Linear = 0.5
    cell: tuple[int, int] = (2, 2)
    levels: tuple[int, ...] = (1,)
    layers: tuple[int, ...] | None = None
    locations: tuple[Location, ...] = ("self_attention",)
    operator: Literal["mean", "mlerp", "prune"] = "mean"
    size_aware: bool = False
    size_bias: Literal["mask", "channel"] = "mask"
    queries: Literal["merged", "full"] = "merged"
    cached: bool = False
    features: Literal["block", "attention", "first"] = "block"
    smoothing: int = 0

    def __post_init__(self) -> None:
        _make_tuples(self, {"cell": "(2, 2)", "levels": "(1,)", "locations": "('self_attention',)"})
        if self.layers is not None:
            _make_tuples(self, {"layers": "(0, 1)"})
        if not isinstance(self.ratio, Real | Linear):
            raise ValueError(f"ratio must be a number or a Linear schedule, not {self.ratio!r}")
        low, high = bounds(self.ratio)
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high < 1):
            raise ValueError(f"ratio must lie in [0, 1), not {self.ratio}")
        if len(self.cell) != 2 or any(not isinstance(side, int) or side < 1 for side in self.cell):
            raise ValueError(f"cell must be two whole numbers from 1, not {self.cell}")
        if low > 0 and self.cell == (1, 1):
            raise ValueError("cell (1, 1) makes every token a destination, so nothing can merge: use (2, 2) or larger")
        _check_places(self.levels, self.layers)
        if "self_attention" not in self.locations or {*self.locations} - {*LOCATIONS}:
            raise ValueError(
                f"locations must hold 'self_attention' and otherwise only {LOCATIONS}, not {self.locations}"
            )
        check_choice("operator", self.operator, OPERATORS)
        check_choice("queries", self.queries, ("merged", "full"))
        check_choice("features", self.features, ("block", "attention", "first"))
        check_choice("size_bias", self.size_bias, ("mask", "channel"))
        if not isinstance(self.smoothing, int) or isinstance(self.smoothing, bool) or not 0 <= self.smoothing <= 16:
            raise ValueError(f"smoothing must be a whole number from 0 to 16, not {self.smoothing!r}")
        if self.size_bias == "channel" and not self.size_aware:
            raise ValueError("size_bias='channel' is a form of size_aware, which must then be True, not False")
        if self.queries == "full" and self.locations != ("self_attention",):
            raise ValueError(
                f"queries='full' merges the keys and values of self-attention alone, so locations must be "
                f"('self_attention',), not {self.locations}"
            )

    def includes(self, level: int, layer: int) -> bool:
        """Whether the transformer block of this level and number takes part."""
        return level in self.levels and (self.layers is None or layer in self.layers)

    @property
    def is_identity(self) -> bool:
        """Whether the method compresses nothing by its settings."""
        return bounds(self.ratio) == (0.0, 0.0)

    @property
    def is_scheduled(self) -> bool:
        """Whether the number of tokens depends on the timestep."""
        return isinstance(self.ratio, Linear)

    @property
    def _limited_by(self) -> str:
        """What allows at most the limit, and the verb, for the error."""
        return f"cells of {self.cell[0]}x{self.cell[1]} allow"

    def limit(self, grid: Grid) -> int:
        """Most tokens that can be merged away on ``grid``."""
        raise NotImplementedError

    def assign(self, x: Tensor, context: Context) -> Assignment:
        """Assigns tokens x (B, N, C) to groups."""
        return self._assign(low_pass(x, context.grid, self.smoothing), context)

    def _assign(self, x: Tensor, context: Context) -> Assignment:
        raise NotImplementedError

    def matching_flops(self, grid: Grid, channels: int) -> int:
        """Matrix-product FLOPs of one sample's assignment."""
        raise NotImplementedError

    def most_merged(self, grid: Grid) -> int:
        """Tokens merged away where the ratio is at its highest."""
        return _tokens(bounds(self.ratio)[1], grid.tokens)

    def merged_tokens(self, context: Context) -> int | Tensor:
        """How many tokens to merge away: one number, or int64 (B,) where a scheduled ratio differs between rows.

        Raises:
            ValueError: if the ratio asks for more than the method allows; names the limit.
        """
        tokens, limit = context.grid.tokens, self.limit(context.grid)
        highest = self.most_merged(context.grid)
        if highest > limit:
            raise ValueError(
                f"ratio {self.ratio} asks to merge {highest} of the {tokens} tokens of a "
                f"{context.grid.height}x{context.grid.width} grid, but {self._limited_by} at most {limit}, "
                f"a ratio of {math.floor(limit / tokens * 1e4) / 1e4:g}"
            )
        ratio = resolve(self.ratio, context.timestep, "ratio")
        if isinstance(ratio, Tensor):
            # Not on the ratio's device, which may have no float64; how many tokens are left must be known here anyway.
            counts = (ratio.to("cpu", torch.float64) * tokens + 1e-6).floor().long()
            return int(counts[0]) if bool((counts == counts[0]).all()) else counts.to(ratio.device)
        return _tokens(ratio, tokens)


@dataclass(frozen=True, kw_only=True)
class TokenDownsampling:
    """Common fields of the methods that downsample keys and values.

    Args:
        factor: side s of the s×s windows; N tokens become about N / s².
        levels: resolution levels that take part, 1 = the finest grid at which the model has attention.
        layers: of these levels' transformer blocks, those that take part: their numbers among all of the model's, from
            0 in the order of the forward. None is all.

    Raises:
        ValueError: names the field, its value and the allowed range.
    """

    name: ClassVar[str]

    factor: int = 2
    levels: tuple[int, ...] = (1,)
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int) or isinstance(self.factor, bool) or self.factor < 1:
            raise ValueError(f"factor must be a whole number from 1, not {self.factor!r}")
        _make_tuples(self, {"levels": "(1,)"} if self.layers is None else {"levels": "(1,)", "layers": "(0, 1)"})
        _check_places(self.levels, self.layers)

    def includes(self, level: int, layer: int) -> bool:
        """Whether the transformer block of this level and number takes part."""
        return level in self.levels and (self.layers is None or layer in self.layers)

    @property
    def is_identity(self) -> bool:
        """Whether the method compresses nothing by its settings."""
        return self.factor == 1

    def pool(self, x: Tensor, context: Context) -> Tensor:
        """Downsamples tokens x (B, N, C) to (B, M, C)."""
        raise NotImplementedError


def _tokens(ratio: float, tokens: int) -> int:
    # The small term keeps a product such as 0.29 * 100 from losing a token to rounding.
    return math.floor(ratio * tokens + 1e-6)


def check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError naming ``field`` and the ``allowed`` values if ``value`` is none of them."""
    if value not in allowed:
        raise ValueError(f"{field} must be one of {allowed}, not {value!r}")


def bipartite_flops(grid: Grid, cell: tuple[int, int], channels: int) -> int:
    """Multiply-adds, counted as two, of the similarities of all sources to all destinations of one sample."""
    destinations = cell_count(grid, cell)
    return 2 * (grid.tokens - destinations) * destinations * channels


def row_keys(seed: int, context: Context, batch: int, device: torch.device, redraw: bool) -> Tensor:
    """A seed per row, int64 (B,): fixed per image and layer, or drawn anew for every timestep and draw key too.

    Rows without image keys count as one image, so that a forward is reproducible whatever the batch.
    """
    keys = torch.zeros(batch, dtype=torch.long, device=device)
    keys = mix_keys(keys, seed, context.layer)
    if context.image_keys is not None:
        keys = mix_keys(keys, context.image_keys)
    if redraw:
        if context.timestep is not None:
            keys = mix_keys(keys, context.timestep.long())
        if context.draw_keys is not None:
            keys = mix_keys(keys, context.draw_keys)
    return keys
