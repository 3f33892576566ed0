"""Adaptive block merging: the smoothest cells of the grid each become one token. No similarity matrix.

Only full cells are candidates, so that every merged cell saves the same number of tokens.

Source: BiGain (arXiv 2603.12240), adaptive block merging.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from bigain.operators.assignment import Assignment, by_representative, mark_first, merged_bounds
from bigain.operators.grid import (
    Cell,
    Grid,
    cell_count,
    cell_index,
    cells_shape,
    check_cell,
    full_cell_count,
    to_cells,
    top_left_tokens,
)

Aggregate = Literal["max", "sum", "mean", "min", "std"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)


def limit(grid: Grid, cell: Cell) -> int:
    """The most tokens that block merging can merge: all but one of every full cell."""
    sy, sx = check_cell(cell)
    return full_cell_count(grid, cell) * (sy * sx - 1)


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


def merge_blocks(aggregated: Tensor, grid: Grid, cell: Cell, merged: int | Tensor) -> Assignment:
    """Merge the cells with the lowest aggregates into one token each.

    Args:
        aggregated: (B, cells), as from :func:`aggregate`; partial cells are ignored.
        merged: how many tokens to merge, in [0, limit]: floor(merged / (sy * sx - 1)) cells are merged, on ties the
            first ones. An int for all rows, or a (B,) integer tensor with one number per row, which synchronises with
            the device and does not compile.

    Returns:
        An assignment whose groups are in raster order of the tokens kept: all tokens outside of merged cells, and the
        top-left token of every merged cell. It is padded if rows merge different numbers of cells.
    """
    _check_aggregated(aggregated, grid, cell)
    least, most = merged_bounds(merged, aggregated.shape[0], limit(grid, cell))
    saved = max(cell[0] * cell[1] - 1, 1)  # cells of one token have the limit 0
    full = _full_cells(grid, cell, aggregated.device)
    order = aggregated.index_select(1, full).argsort(dim=1, stable=True)[:, : most // saved]
    merges = mark_first(full[order], merged // saved, aggregated.shape[1])  # (B, cells)
    cells = cell_index(grid, cell, aggregated.device)
    every = torch.arange(grid.tokens, device=aggregated.device)
    top_left = top_left_tokens(grid, cell, aggregated.device)
    stands_for = torch.where(merges.index_select(1, cells), top_left.index_select(0, cells), every)  # (B, N)
    return by_representative(stands_for, grid.tokens - least // saved * saved, least // saved < most // saved)


def merge_blocks_below(aggregated: Tensor, grid: Grid, cell: Cell, threshold: float) -> Assignment:
    """Merge every full cell whose aggregate (B, cells) lies below a threshold in the units of the score.

    Synchronises with the device and does not compile. The assignment is as from :func:`merge_blocks`, padded if rows
    merge different numbers of cells.
    """
    _check_aggregated(aggregated, grid, cell)
    if math.isnan(threshold):
        raise ValueError(f"threshold must be a number in [-inf, inf], not {threshold!r}")
    full = aggregated.index_select(1, _full_cells(grid, cell, aggregated.device))
    return merge_blocks(aggregated, grid, cell, (full < threshold).sum(1) * (cell[0] * cell[1] - 1))


def _check_aggregated(aggregated: Tensor, grid: Grid, cell: Cell) -> None:
    cells = cell_count(grid, cell)
    if aggregated.dim() != 2 or aggregated.shape[1] != cells:
        raise ValueError(f"aggregated must be (B, cells) with {cells} cells, not {tuple(aggregated.shape)}")


def _full_cells(grid: Grid, cell: Cell, device: torch.device) -> Tensor:
    """Indices of the full cells among all cells, in order: (full_cell_count,) int64."""
    columns = cells_shape(grid, cell)[1]
    row = torch.arange(grid.height // cell[0], device=device)
    column = torch.arange(grid.width // cell[1], device=device)
    return (row[:, None] * columns + column[None, :]).reshape(-1)
