"""How much faster fewer tokens can make a forward at most: its FLOPs before and after, by what is made fewer.

Softmax, norms, rotary embedding, matching and memory are left out of both, so a clock shows less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bigain.backbones.arguments import ARGUMENTS
from bigain.backbones.counting import Count, Product, count
from bigain.operators.grid import Grid
from bigain.zoo.published import Configuration

Where = Literal["attention", "projections", "blocks"]


@dataclass(frozen=True)
class Way:
    """A way to have fewer tokens of image, in all layers in which methods act.

    Args:
        name, title: as files and tables have it.
        where: "attention", fewer keys and values there; "projections", there and in the layers that make them;
            "blocks", fewer tokens in every layer of a block.
        kept: the share of a grid's tokens that is left.
        video: whether it takes several frames.
    """

    name: str
    title: str
    where: Where
    kept: Callable[[Grid], float]
    video: bool = False


def _windows(factor: int, frames: int = 1) -> Callable[[Grid], float]:
    """A token for each window, partial ones at the edges too; the first latent, of a single frame, stays alone."""

    def kept(grid: Grid) -> float:
        count = -(-grid.height // factor) * -(-grid.width // factor)
        return count * (1 + -(-(grid.frames - 1) // frames)) / grid.tokens

    return kept


def _pooled(text: str, name: str, kept: Callable[[Grid], float], video: bool = False) -> tuple[Way, Way]:
    title = f"keys and values pooled {text}"
    return (
        Way(name, title, "attention", kept, video),
        Way(f"{name}-projections", f"{title}, with their projections", "projections", kept, video),
    )


WAYS: tuple[Way, ...] = (
    *_pooled("2×2", "pooled-2", _windows(2)),
    *_pooled("4×4", "pooled-4", _windows(4)),
    *_pooled("2×2×2", "pooled-2x2x2", _windows(2, 2), video=True),
    Way("merged-50", "keys and values merged, 50%", "attention", lambda _: 0.5),
    Way("merged-75", "keys and values merged, 75%", "attention", lambda _: 0.25),
    Way("blocks-50", "tokens merged around whole blocks, 50%", "blocks", lambda _: 0.5),
)


@dataclass(frozen=True)
class Bounds:
    """What a forward costs at one size, and how much faster it can become.

    Args:
        grid: of its image tokens, on the finest level.
        levels: tokens of image in the attentions in which methods act, by level from the finest.
        text: tokens of text.
        flops: of a forward of one sample.
        attention: the share of these attentions, without their projections.
        speed_ups: FLOPs before and after, by the name of a way; None where the model or the size has no such.
        ceiling: as in ``speed_ups``, were these attentions left out.
    """

    grid: Grid
    levels: tuple[int, ...]
    text: int
    flops: float
    attention: float
    speed_ups: Mapping[str, float | None]
    ceiling: float


def bounds(counted: Count, grid: Grid) -> Bounds:
    """The bounds of a model for image tokens on ``grid``; a ValueError where it takes those of another grid alone."""
    if counted.grid not in (None, grid):
        raise ValueError(
            f"size must be one of {_sides(counted.grid)}, the only grid of this {counted.kind}, not of {_sides(grid)}"
        )
    flops = counted.flops(grid.tokens)
    attention = counted.attention(grid.tokens) / flops
    own = [one for one in counted.attentions if one.name in counted.sites]
    return Bounds(
        grid,
        tuple(sorted({round(one.keys.slope * grid.tokens) for one in own}, reverse=True)),
        counted.text,
        flops,
        attention,
        {way.name: _speed_up(counted, grid, way, flops) for way in WAYS},
        1 / (1 - attention),
    )


@dataclass(frozen=True)
class Sized:
    """A model's bounds at a size: width, height and frames, 1 for an image."""

    model: str
    size: tuple[int, int, int]
    bounds: Bounds

    @property
    def size_text(self) -> str:
        """Such as "1024x1024" or "1280x720x81"."""
        width, height, frames = self.size
        return f"{width}x{height}" + (f"x{frames}" if frames > 1 else "")

    @property
    def tokens_text(self) -> str:
        """The tokens of each level, from the finest."""
        return " ".join(f"{tokens:,}" for tokens in self.bounds.levels)


def at_sizes(
    model: Configuration,
    sizes: Sequence[tuple[int, int]] = (),
    *,
    frames: int | None = None,
    text: int | None = None,
) -> list[Sized]:
    """The bounds of a model without weights.

    Args:
        model: its configuration.
        sizes: widths and heights in pixels; those of the model's card, or else what it is made for, if there are none.
        frames: of a video; as many as these have if None.
        text: tokens of text; as many as the family's pipeline gives if None, or its tokenisers where these make fewer.

    Raises:
        ValueError: the class is not supported, the config is not one of it, or a size does not fit it.
    """
    if text is None and model.text is not None and model.kind in ARGUMENTS:
        text = min(ARGUMENTS[model.kind].text, model.text)
    counted = count(model.kind, model.config, text)
    arguments = ARGUMENTS[model.kind]
    scale = replace(arguments, pixels=model.pixels or arguments.pixels, frames=model.frames or arguments.frames).scale(
        counted.config
    )
    usual = model.sizes or (scale.usual,)
    chosen = [(*size, usual[0][2]) for size in sizes] or usual
    chosen = [(width, height, own if frames is None else frames) for width, height, own in chosen]
    return [Sized(model.name, size, bounds(counted, scale.grid(*size))) for size in chosen]


def _sides(grid: Grid) -> str:
    return f"{grid.height}x{grid.width} tokens"


def _speed_up(counted: Count, grid: Grid, way: Way, flops: float) -> float | None:
    if way.video and grid.frames == 1:
        return None
    if way.where == "projections" and not counted.projects_apart:
        return None
    lost = grid.tokens * (1 - way.kept(grid))
    saved = sum(one.flops.slope * lost for one in counted.products if _shortens(counted, way, one))
    for one in counted.attentions:
        queries, keys = one.queries.at(grid.tokens), one.keys.at(grid.tokens)
        fewer_queries, fewer_keys = queries - one.queries.slope * lost, keys - one.keys.slope * lost
        if way.where == "blocks" and counted.in_block(one.name):
            saved += one.flops(queries, keys) - one.flops(fewer_queries, fewer_keys)
        elif one.name in counted.sites:
            saved += one.flops(queries, keys) - one.flops(queries, fewer_keys)
    return flops / (flops - saved)


def _shortens(counted: Count, way: Way, product: Product) -> bool:
    """Whether a linear layer or a convolution has fewer tokens."""
    if way.where == "blocks":
        return counted.in_block(product.name)
    return counted.projects(product.name) and (way.where == "projections" or not counted.jointly)
