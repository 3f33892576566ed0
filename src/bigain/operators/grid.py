"""The token grid, and the rectangular cells that tile it.

Tokens are row-major: token ``i`` of an ``H x W`` grid sits at row ``i // W`` and column ``i % W``. Cells of ``sy x sx``
tokens tile the grid from the top left and are numbered row-major too. Where a cell does not divide the grid, the cells
at the bottom and right edges are partial: they hold fewer tokens, but they are cells like any other.

The grid of a video has frames, one after the other, and its cells of ``st x sy x sx`` tokens may span several of them,
from the first one on. A cell of two numbers lies in one frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Cell = tuple[int, ...]  # (sy, sx) or (st, sy, sx): rows and columns of one cell, and its frames


@dataclass(frozen=True)
class Grid:
    """The height and width of a token grid, in tokens, from 1; and the frames, each of them such a grid."""

    height: int
    width: int
    frames: int = 1

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width), ("frames", self.frames)):
            if side < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {side!r}")

    @property
    def tokens(self) -> int:
        """Number of tokens, N = frames * height * width."""
        return self.frames * self.height * self.width

    @property
    def frame(self) -> Grid:
        """The grid of one frame."""
        return Grid(self.height, self.width)

    @property
    def sides(self) -> tuple[int, int, int]:
        """Frames, height and width: in the order in which tokens count them."""
        return self.frames, self.height, self.width

    def __str__(self) -> str:
        sides = self.sides if self.frames > 1 else self.sides[1:]
        return "x".join(map(str, sides))


def whole_cell(cell: Cell) -> tuple[int, int, int]:
    """Frames, rows and columns of a cell; ValueError unless these, or the last two, are whole numbers from 1."""
    if len(cell) not in (2, 3) or min(cell) < 1:
        raise ValueError(f"cell must be two whole numbers (rows, columns) from 1, or three with frames, not {cell!r}")
    frames, rows, columns = (1, *cell)[-3:]
    return frames, rows, columns


def check_tokens(values: Tensor, grid: Grid, dims: int, name: str) -> None:
    """Check that ``values`` has ``dims`` dimensions, of which the second holds the tokens of ``grid``."""
    if values.dim() != dims or values.shape[1] != grid.tokens:
        expected = "(B, N)" if dims == 2 else "(B, N, C)"
        raise ValueError(
            f"{name} must be {expected} with N = {str(grid).replace('x', ' x ')} = {grid.tokens} tokens, "
            f"not {tuple(values.shape)}"
        )


def cells_shape(grid: Grid, cell: Cell) -> tuple[int, int, int]:
    """Frames, rows and columns of cells on the grid, partial cells included."""
    frames, rows, columns = (-(-side // step) for side, step in zip(grid.sides, whole_cell(cell), strict=True))
    return frames, rows, columns


def cell_count(grid: Grid, cell: Cell) -> int:
    """Number of cells on the grid, partial cells included."""
    frames, rows, columns = cells_shape(grid, cell)
    return frames * rows * columns


def cell_tokens(
    grid: Grid,
    cell: Cell,
    device: torch.device | str | None = None,
    offset: tuple[int, int, int] = (0, 0, 0),
) -> Tensor:
    """The token ``offset`` frames, rows and columns into each cell, at most the grid's last: (cells,) int64."""
    frame, row, column = (
        (torch.arange(0, side, step, device=device) + shift).clamp(max=side - 1)
        for side, step, shift in zip(grid.sides, whole_cell(cell), offset, strict=True)
    )
    return _numbered(frame, row, column, grid.height, grid.width)


def cell_index(grid: Grid, cell: Cell, device: torch.device | str | None = None) -> Tensor:
    """The cell that each token lies in: (N,) int64 in [0, cell_count), partial cells included."""
    _, rows, columns = cells_shape(grid, cell)
    frame, row, column = (
        torch.arange(side, device=device) // step for side, step in zip(grid.sides, whole_cell(cell), strict=True)
    )
    return _numbered(frame, row, column, rows, columns)


def full_cells(grid: Grid, cell: Cell, device: torch.device | str | None = None) -> Tensor:
    """Indices of the full cells among all cells, in order: int64."""
    _, rows, columns = cells_shape(grid, cell)
    frame, row, column = (
        torch.arange(side // step, device=device) for side, step in zip(grid.sides, whole_cell(cell), strict=True)
    )
    return _numbered(frame, row, column, rows, columns)


def _numbered(frame: Tensor, row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """The numbers of the places at all (frame, row, column), in raster order, among frames of rows and columns."""
    return ((frame[:, None, None] * rows + row[:, None]) * columns + column).reshape(-1)


def to_cells(values: Tensor, grid: Grid, cell: Cell, fill: float) -> Tensor:
    """Lay the values (B, N) of the tokens out cell by cell: (B, cells, st * sy * sx), in raster order within the cell.

    ``fill`` stands in the places of partial cells that lie outside of the grid; the first place of every cell is a
    token.
    """
    check_tokens(values, grid, 2, "values")
    st, sy, sx = whole_cell(cell)
    frames, rows, columns = cells_shape(grid, cell)
    behind, below, right = frames * st - grid.frames, rows * sy - grid.height, columns * sx - grid.width
    laid_out = values.reshape(-1, *grid.sides)
    if behind or below or right:
        laid_out = functional.pad(laid_out, (0, right, 0, below, 0, behind), value=fill)
    laid_out = laid_out.reshape(-1, frames, st, rows, sy, columns, sx).permute(0, 1, 3, 5, 2, 4, 6)
    return laid_out.reshape(-1, frames * rows * columns, st * sy * sx)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, C) as a feature map (B, C, H, W), or (B * T, C, H, W) of T frames.

    It is a view where ``x`` is contiguous, in channels-last memory.
    """
    check_tokens(x, grid, 3, "x")
    return x.reshape(-1, grid.height, grid.width, x.shape[2]).permute(0, 3, 1, 2)


def to_tokens(feature_map: Tensor) -> Tensor:
    """A feature map (B, C, H, W) as tokens (B, H * W, C), row-major: the inverse of :func:`to_map`."""
    batch, channels, height, width = feature_map.shape
    return feature_map.permute(0, 2, 3, 1).reshape(batch, height * width, channels)


def flat_rows(index: Tensor, length: int) -> Tensor:
    """Indices (B, K) into the tokens of (B, length, C), as indices (B * K,) into the rows of (B * length, C)."""
    batch = index.shape[0]
    if batch == 1:
        return index.reshape(-1)
    return (index + torch.arange(0, batch * length, length, device=index.device)[:, None]).reshape(-1)


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """x[b, index[b, k]]: tokens (B, N, C) at index (B, K) int64 as (B, K, C), by one gather of whole rows."""
    batch, tokens, channels = x.shape
    picked = x.reshape(-1, channels).index_select(0, flat_rows(index, tokens))  # several times faster than gather
    return picked.view(batch, index.shape[1], channels)


def pack(values: Tensor, keep: Tensor, count: int, fill: Tensor) -> Tensor:
    """The values (B, K) where ``keep`` (B, K) is true, in order, packed to the left of (B, count).

    Unlike boolean indexing its shape does not depend on the data. Places left over take ``fill`` (B, 1); kept values
    beyond ``count`` are dropped.
    """
    place = (keep.cumsum(1) - 1).clamp(max=count)
    place = torch.where(keep, place, count)  # one place more than is returned takes what is not kept
    return fill.repeat(1, count + 1).scatter(1, place, values)[:, :count]
