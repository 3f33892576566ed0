"""Matching within windows: every source is compared with the destinations of its own window alone.

Windows of ``side x side`` tokens tile the grid from the top left, a whole number of cells each, so that every source
has a destination in its window. Where they do not divide the grid, the windows at the bottom and right edges are
smaller. With N tokens the similarities cost O(N * side ** 2) instead of O(N ** 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bigain.operators.grid import Cell, Grid, cells_shape, check_cell, gather_tokens, pack


@dataclass(frozen=True)
class Windows:
    """Windows of ``side x side`` tokens on a grid whose cells have one destination each.

    Raises:
        ValueError: if the side is not a positive multiple of both sides of the cell.
    """

    grid: Grid
    cell: Cell
    side: int

    def __post_init__(self) -> None:
        sy, sx = check_cell(self.cell)
        if self.side < 1 or self.side % sy or self.side % sx:
            raise ValueError(f"the side of a window must be a multiple of the cell {sy} x {sx}, got {self.side!r}")


@dataclass(frozen=True)
class Region:
    """A rectangle of the grid that holds windows of one size: the inside, the right edge, the bottom or the corner.

    Attributes:
        top, left: its first row and column, in tokens; multiples of the side.
        rows, columns: of windows.
        height, width: of each window, in tokens.
        cells: rows and columns of cells in each window, partial ones included.
    """

    top: int
    left: int
    rows: int
    columns: int
    height: int
    width: int
    cells: Cell

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.rows * self.columns

    @property
    def destinations(self) -> int:
        """Destinations in each window: one per cell."""
        return self.cells[0] * self.cells[1]

    @property
    def sources(self) -> int:
        """Sources in each window: all other tokens."""
        return self.height * self.width - self.destinations


def regions(windows: Windows) -> tuple[Region, ...]:
    """The regions of equal windows, which together hold every token once."""
    (sy, sx), grid = windows.cell, windows.grid
    return tuple(
        Region(top, left, rows, columns, height, width, (-(-height // sy), -(-width // sx)))
        for top, rows, height in _runs(grid.height, windows.side)
        for left, columns, width in _runs(grid.width, windows.side)
    )


def comparisons(windows: Windows) -> int:
    """How many pairs of a source and a destination one sample compares."""
    return sum(region.windows * region.sources * region.destinations for region in regions(windows))


def best_in_windows(unit: Tensor, sources: Tensor, destinations: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The highest similarity of each source to a destination of its window, and which destination that is.

    Args:
        unit: (B, N, C), tokens of unit length.
        sources: (B, S) int64, all tokens that are no destination.
        destinations: (B, D) int64, one per cell in cell order.

    Returns:
        Two (B, S): the similarity, and the place among the D destinations, int64.

    Raises:
        ValueError: if the tokens are not those of the grid, or the destinations not as many as its cells.
    """
    (batch, tokens, channels), grid = unit.shape, windows.grid
    rows, columns = cells_shape(grid, windows.cell)
    if tokens != grid.tokens or destinations.shape[1] != rows * columns:
        raise ValueError(
            f"windows on a grid of {grid.height} x {grid.width} need its {grid.tokens} tokens and a destination in "
            f"each of its {rows * columns} cells, got {tokens} tokens and {destinations.shape[1]} destinations"
        )
    found = regions(windows)
    order = _by_window(grid.height, grid.width, found, (1, 1), unit.device)  # of tokens
    cells = _by_window(rows, columns, found, windows.cell, unit.device)
    is_source = torch.zeros((batch, tokens), dtype=torch.bool, device=unit.device).scatter(1, sources, True)
    ordered = pack(order.expand(batch, -1), is_source.index_select(1, order), sources.shape[1], destinations[:, :1])
    asking = gather_tokens(unit, ordered)
    answering = gather_tokens(unit, destinations.index_select(1, cells))
    similarities, places = [], []
    source = destination = 0
    for region in found:
        many, few = region.windows * region.sources, region.windows * region.destinations
        similarity, place = _best(
            asking[:, source : source + many].reshape(batch * region.windows, region.sources, channels),
            answering[:, destination : destination + few].reshape(
                batch * region.windows, region.destinations, channels
            ),
        )
        first = torch.arange(destination, destination + few, region.destinations, device=unit.device)
        similarities.append(similarity.view(batch, many))
        places.append((place.view(batch, region.windows, region.sources) + first[:, None]).reshape(batch, many))
        source, destination = source + many, destination + few
    similarity, place = torch.cat(similarities, 1), cells[torch.cat(places, 1)]
    # Back from the order of windows to that of the sources.
    similarity = similarity.new_zeros(batch, tokens).scatter(1, ordered, similarity).gather(1, sources)
    return similarity, place.new_zeros(batch, tokens).scatter(1, ordered, place).gather(1, sources)


def _best(sources: Tensor, destinations: Tensor) -> tuple[Tensor, Tensor]:
    best = torch.bmm(sources, destinations.transpose(1, 2)).max(dim=2)
    return best.values, best.indices


def _runs(length: int, side: int) -> Iterator[tuple[int, int, int]]:
    """Runs of equal windows along one axis: where they start, how many, and how long each is."""
    whole = length // side
    if whole:
        yield 0, whole, side
    if length % side:
        yield whole * side, 1, length % side


def _by_window(height: int, width: int, found: tuple[Region, ...], unit: Cell, device: torch.device) -> Tensor:
    """Indices of all ``height x width`` units (tokens, or cells of ``unit`` tokens), window by window."""
    index = torch.arange(height * width, device=device).view(height, width)
    parts = []
    for region in found:
        top, left = region.top // unit[0], region.left // unit[1]
        tall, wide = -(-region.height // unit[0]), -(-region.width // unit[1])
        part = index[top : top + region.rows * tall, left : left + region.columns * wide]
        parts.append(part.reshape(region.rows, tall, region.columns, wide).transpose(1, 2).reshape(-1))
    return torch.cat(parts)
