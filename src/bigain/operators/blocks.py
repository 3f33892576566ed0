"""Merging blocks of neighbours, without a similarity matrix.

Adaptive block merging: the smoothest cells of the grid each become one token. Only full cells are candidates, so that
every merged cell saves the same number of tokens.

Quadtree merging: square blocks of 2 x 2, 4 x 4, 8 x 8 … tokens each become one token, the cheapest first. The merge of
a block makes one group of its (up to four) children, the blocks of half its side, which must each be one group by then;
the children of the smallest blocks are tokens. Its cost is the squared error that it adds: that of replacing its
children's means by its own, which is the energy of the block's Haar details. Where the blocks do not divide the grid,
those at the bottom and right edges hold fewer tokens, and one, two or four children: c children save c - 1 tokens.
In a video the smallest sizes may double over time too: their blocks have up to eight children.

Source: BiGain (arXiv 2603.12240), adaptive block merging; region merging of image quadtrees (Horowitz & Pavlidis 1974),
with the Haar transform's details as its error.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.assignment import Assignment, by_representative, mark_first, merged_bounds
from bigain.operators.grid import (
    Cell,
    Grid,
    cell_count,
    cell_index,
    cell_tokens,
    cells_shape,
    check_tokens,
    full_cells,
    to_cells,
    whole_cell,
)
from bigain.operators.labels import labelled

Aggregate = Literal["max", "sum", "mean", "min", "std"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)


def limit(grid: Grid, cell: Cell) -> int:
    """The most tokens that block merging can merge: all but one of every full cell."""
    st, sy, sx = whole_cell(cell)
    return (grid.frames // st) * (grid.height // sy) * (grid.width // sx) * (st * sy * sx - 1)


@labelled("score")
def aggregate(score: Tensor, grid: Grid, cell: Cell, how: Aggregate) -> Tensor:
    """One score per cell, from the scores (B, N) of the tokens that really lie in it.

    ``how`` is ``max``, ``sum``, ``mean``, ``min`` or ``std`` (of the population: 0 for a cell of one token). The
    result is (B, cells) in the dtype of ``score``, partial cells included.
    """
    if how not in AGGREGATES:
        raise ValueError(f"how must be one of {', '.join(AGGREGATES)}, not {how!r}")
    if how == "max":
        return to_cells(score, grid, cell, -torch.inf).amax(2)
    if how == "min":
        return to_cells(score, grid, cell, torch.inf).amin(2)
    total = to_cells(score, grid, cell, 0).sum(2)
    if how == "sum":
        return total
    sizes = to_cells(torch.ones_like(score[:1]), grid, cell, 0).sum(2)
    mean = total / sizes
    if how == "mean":
        return mean
    deviation = score - mean.index_select(1, cell_index(grid, cell, score.device))
    return (to_cells(deviation.square(), grid, cell, 0).sum(2) / sizes).sqrt()


@labelled("match")
def merge_blocks(aggregated: Tensor, grid: Grid, cell: Cell, merged: int | Tensor) -> Assignment:
    """Merge the cells with the lowest aggregates into one token each.

    Args:
        aggregated: (B, cells), as from :func:`aggregate`; partial cells are ignored.
        merged: how many tokens to merge, in [0, limit], as :func:`merged_bounds` takes it. These are
            floor(merged / (st * sy * sx - 1)) cells, on ties the first ones.

    Returns:
        An assignment whose groups are in raster order of the tokens kept: all tokens outside of merged cells, and the
        first token, the top left, of every merged cell. It is padded if rows merge different numbers of cells.
    """
    _check_aggregated(aggregated, grid, cell)
    least, most = merged_bounds(merged, aggregated.shape[0], limit(grid, cell))
    saved = max(math.prod(cell) - 1, 1)  # cells of one token have the limit 0
    full = full_cells(grid, cell, aggregated.device)
    order = aggregated.index_select(1, full).argsort(dim=1, stable=True)[:, : most // saved]
    merges = mark_first(full[order], merged // saved, aggregated.shape[1])  # (B, cells)
    cells = cell_index(grid, cell, aggregated.device)
    every = torch.arange(grid.tokens, device=aggregated.device)
    first = cell_tokens(grid, cell, aggregated.device)
    stands_for = torch.where(merges.index_select(1, cells), first.index_select(0, cells), every)  # (B, N)
    return by_representative(stands_for, grid.tokens - least // saved * saved, least // saved < most // saved)


@labelled("match")
def merge_blocks_below(aggregated: Tensor, grid: Grid, cell: Cell, threshold: float) -> Assignment:
    """Merge every full cell whose aggregate (B, cells) lies below a threshold in the units of the score.

    Synchronises with the device and does not compile. The assignment is as from :func:`merge_blocks`, padded if rows
    merge different numbers of cells.
    """
    _check_aggregated(aggregated, grid, cell)
    if math.isnan(threshold):
        raise ValueError(f"threshold must be a number in [-inf, inf], not {threshold!r}")
    full = aggregated.index_select(1, full_cells(grid, cell, aggregated.device))
    return merge_blocks(aggregated, grid, cell, (full < threshold).sum(1) * (math.prod(cell) - 1))


def levels(grid: Grid, depth: int, time_depth: int = 0) -> tuple[Grid, ...]:
    """The grid of tokens, and above it that of the blocks of 2, 4, … 2 ** depth tokens a side: depth + 1 grids.

    Blocks span 2, 4, … 2 ** time_depth frames too, and no more of them above.
    """
    if depth < 1:
        raise ValueError(f"depth must be a whole number from 1, not {depth!r}")
    if not 0 <= time_depth <= depth:
        raise ValueError(f"time_depth must be a whole number from 0 to depth, {depth}, not {time_depth!r}")
    grids = [grid]
    for level in range(depth):
        frames, rows, columns = cells_shape(grids[-1], _children(level, time_depth))
        grids.append(Grid(rows, columns, frames))
    return tuple(grids)


def quadtree_limit(grid: Grid, depth: int, time_depth: int = 0) -> int:
    """The most tokens that a quadtree can merge: all but one of each of its largest blocks."""
    return grid.tokens - levels(grid, depth, time_depth)[-1].tokens


@labelled("score")
def merge_costs(x: Tensor, grid: Grid, depth: int, time_depth: int = 0) -> tuple[Tensor, ...]:
    """The squared error that each block's merge adds, once its children are merged, for tokens (B, N, C).

    One (B, blocks) for each level from the smallest blocks to the largest, in raster order, in at least float32: the
    sum over the children of tokens * squared distance of the child's mean to the block's. 0 where there is one child.
    """
    check_tokens(x, grid, 3, "x")
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    means = sums = wide.reshape(x.shape[0], *grid.sides, x.shape[2])
    sizes = means.new_ones(1, *grid.sides, 1)
    costs = []
    for level, blocks in enumerate(levels(grid, depth, time_depth)[1:]):
        frames = _children(level, time_depth)[0]
        children, weights = _by_block(means, blocks, frames), _by_block(sizes, blocks, frames)
        upper, lower = _by_block(sums, blocks, frames).unbind(4)
        left, right = (upper + lower).unbind(5)  # several times faster than a sum over two dimensions
        sums = (left + right).sum(2) if frames > 1 else (left + right).squeeze(2)
        sizes = weights.sum((2, 4, 6))
        means = sums / sizes  # (B, t, h, w, C)
        distances = torch.linalg.vector_norm(children - means[:, :, None, :, None, :, None], dim=7)
        costs.append((distances.square() * weights.squeeze(7)).sum((2, 4, 6)).flatten(1))
    return tuple(costs)


@labelled("match")
def merge_quadtree(x: Tensor, grid: Grid, depth: int, merged: int | Tensor, time_depth: int = 0) -> Assignment:
    """Merge the cheapest blocks of each row, children before parents, until exactly ``merged`` tokens are saved.

    Blocks go by their cost per token saved, or the largest such of the blocks within, if that is more, so that no block
    goes before its children; on ties the smaller blocks first, then in raster order. Where the last block would save
    more tokens than are still asked for, only as many of its children as needed join its first child, in raster order.

    Args:
        x: (B, N, C), compared in at least float32.
        merged: how many tokens to merge, in [0, limit], as :func:`merged_bounds` takes it.
        time_depth: how many of the sizes span twice as many frames as the one below.

    Returns:
        An assignment to M = N - merged groups (the least of the rows) in raster order of the tokens kept: that of a
        group is its top-left one. It is padded if the rows' numbers differ.
    """
    check_tokens(x, grid, 3, "x")
    least, most = merged_bounds(merged, x.shape[0], quadtree_limit(grid, depth, time_depth))
    every = torch.arange(grid.tokens, device=x.device)
    stands_for = every.expand(x.shape[0], -1)
    if most:
        grids = levels(grid, depth, time_depth)
        joined = _joined(merge_costs(x, grid, depth, time_depth), grids, merged, time_depth)
        ancestor = every  # of each token on the level below
        for level, taken in enumerate(joined):
            family = _children(level, time_depth)
            parent = cell_index(grids[level], family, x.device)
            place = _places(grids[level], family, x.device).index_select(0, ancestor)  # among its siblings
            ancestor = parent.index_select(0, ancestor)
            block = (2 ** min(level + 1, time_depth), 2 ** (level + 1), 2 ** (level + 1))
            first = cell_tokens(grid, block, x.device).index_select(0, ancestor)
            merges = taken.index_select(1, ancestor) >= place.clamp(min=1)  # (B, N)
            stands_for = torch.where(merges, first, stands_for)
    return by_representative(stands_for, grid.tokens - least, least < most)


def _check_aggregated(aggregated: Tensor, grid: Grid, cell: Cell) -> None:
    cells = cell_count(grid, cell)
    if aggregated.dim() != 2 or aggregated.shape[1] != cells:
        raise ValueError(f"aggregated must be (B, cells) with {cells} cells, not {tuple(aggregated.shape)}")


def _children(level: int, time_depth: int) -> Cell:
    """The cell of a block's children, whose level is given."""
    return (2 if level < time_depth else 1, 2, 2)


def _by_block(values: Tensor, blocks: Grid, frames: int) -> Tensor:
    """Values (B, T, H, W, C) of the children as (B, t, frames, h, 2, w, 2, C), with zeros outside of the grid."""
    batch, length, height, width, channels = values.shape
    behind, below, right = frames * blocks.frames - length, 2 * blocks.height - height, 2 * blocks.width - width
    if behind or below or right:
        values = functional.pad(values, (0, 0, 0, right, 0, below, 0, behind))
    return values.reshape(batch, blocks.frames, frames, blocks.height, 2, blocks.width, 2, channels)


def _joined(costs: tuple[Tensor, ...], grids: tuple[Grid, ...], merged: int | Tensor, time_depth: int) -> list[Tensor]:
    """How many children join the first of their block: (B, blocks) for each level, from 0 to all but one."""
    device = costs[0].device
    keys: list[Tensor] = []
    savings: list[Tensor] = []
    for level, (cost, children) in enumerate(zip(costs, grids[:-1], strict=True)):
        family = _children(level, time_depth)
        ones = torch.ones(1, children.tokens, dtype=torch.int64, device=device)
        savings.append(to_cells(ones, children, family, 0).sum(2) - 1)  # (1, blocks)
        key = cost / savings[-1].clamp(min=1)
        keys.append(torch.maximum(key, to_cells(keys[-1], children, family, 0).amax(2)) if keys else key)
    order = torch.cat(keys, 1).argsort(dim=1, stable=True)  # (B, all blocks)
    saved = torch.cat(savings, 1).expand_as(order).gather(1, order)
    requested = merged.to(device)[:, None] if isinstance(merged, Tensor) else merged
    taken = torch.minimum((requested - (saved.cumsum(1) - saved)).clamp(min=0), saved)  # what those before leave
    taken = torch.zeros_like(order).scatter(1, order, taken)
    return list(taken.split([cost.shape[1] for cost in costs], dim=1))


def _places(grid: Grid, family: Cell, device: torch.device) -> Tensor:
    """The place of each block (or token) among its siblings, in raster order: (blocks,) int64 from 0."""
    frames, rows, columns = whole_cell(family)
    frame, row, column = (torch.arange(side, device=device) for side in grid.sides)
    wide = (grid.width - (column - column % columns)).clamp(max=columns)  # siblings in a row
    high = (grid.height - (row - row % rows)).clamp(max=rows)  # rows of siblings in a frame
    place = (frame[:, None, None] % frames * high[:, None] + row[:, None] % rows) * wide + column % columns
    return place.reshape(-1)
