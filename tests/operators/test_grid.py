"""Grids and cells against loops over rows and columns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.operators.grid import (
    Grid,
    cell_count,
    cell_index,
    cell_tokens,
    flat_rows,
    full_cells,
    gather_tokens,
    pack,
    to_cells,
    to_map,
    to_tokens,
)

grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17), st.sampled_from([1, 1, 2, 5]))
cells = st.tuples(st.integers(1, 4), st.integers(1, 3)) | st.tuples(*[st.integers(1, 3)] * 3)


def members(grid: Grid, cell: tuple[int, ...]) -> dict[tuple[int, int, int], list[int]]:
    """Cell coordinates in row-major order, each with its token indices in row-major order."""
    found: dict[tuple[int, int, int], list[int]] = {}
    frames, rows, columns = cell if len(cell) == 3 else (1, *cell)
    for t in range(grid.frames):
        for y in range(grid.height):
            for x in range(grid.width):
                token = (t * grid.height + y) * grid.width + x
                found.setdefault((t // frames, y // rows, x // columns), []).append(token)
    return dict(sorted(found.items()))


@settings(max_examples=40, deadline=None)
@given(grids, cells, st.integers(1, 3))
def test_cells_hold_the_tokens_that_a_loop_finds(grid: Grid, cell: tuple[int, ...], batch: int) -> None:
    found = members(grid, cell)
    assert cell_count(grid, cell) == len(found)

    index = cell_index(grid, cell)
    values = torch.arange(batch * grid.tokens, dtype=torch.float64).view(batch, grid.tokens)
    laid_out = to_cells(values, grid, cell, -1.0)
    assert laid_out.shape == (batch, len(found), math.prod(cell))
    assert full_cells(grid, cell).tolist() == [
        number for number, tokens in enumerate(found.values()) if len(tokens) == math.prod(cell)
    ]
    assert cell_tokens(grid, cell).tolist() == [tokens[0] for tokens in found.values()]
    for number, tokens in enumerate(found.values()):
        assert (index == number).nonzero().flatten().tolist() == tokens
        for row in range(batch):
            real = [value for value in laid_out[row, number].tolist() if value != -1.0]
            assert real == [row * grid.tokens + token for token in tokens]
        assert laid_out[0, number, 0] == tokens[0]


def test_outside_places_of_a_partial_cell_keep_the_layout_of_the_cell() -> None:
    laid_out = to_cells(torch.arange(6).view(1, 6), Grid(2, 3), (2, 2), 9)
    assert laid_out.tolist() == [[[0, 1, 3, 4], [2, 9, 5, 9]]]
    assert laid_out.dtype == torch.int64


@settings(max_examples=20, deadline=None)
@given(st.builds(Grid, st.integers(1, 33), st.integers(1, 17)), st.integers(1, 3), st.integers(1, 4))
def test_maps_index_tokens_by_row_and_column(grid: Grid, batch: int, channels: int) -> None:
    x = torch.randn(batch, grid.tokens, channels, generator=torch.Generator().manual_seed(0))
    feature_map = to_map(x, grid)
    assert feature_map.shape == (batch, channels, grid.height, grid.width)
    y, column = grid.height - 1, grid.width // 2
    assert torch.equal(feature_map[:, :, y, column], x[:, y * grid.width + column])
    assert torch.equal(to_tokens(feature_map), x)
    assert torch.equal(to_tokens(feature_map.contiguous()), x)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 12), st.integers(1, 9))
def test_gather_and_pack_agree_with_loops(seed: int, batch: int, tokens: int, count: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, 3, generator=rng)
    index = torch.randint(tokens, (batch, count), generator=rng)
    gathered = gather_tokens(x, index)
    keep = torch.rand(batch, tokens, generator=rng) < 0.6
    every = torch.arange(tokens).expand(batch, -1)
    packed = pack(every, keep, count, torch.full((batch, 1), -7))
    for row in range(batch):
        for place in range(count):
            assert torch.equal(gathered[row, place], x[row, index[row, place]])
            assert flat_rows(index, tokens)[row * count + place] == row * tokens + index[row, place]
        kept = [token for token in range(tokens) if keep[row, token]]
        assert packed[row].tolist() == (kept + [-7] * count)[:count]


@pytest.mark.parametrize(("height", "width", "field"), [(0, 4, "height"), (4, 0, "width"), (-1, 4, "height")])
def test_an_empty_grid_is_refused_by_name(height: int, width: int, field: str) -> None:
    value = min(height, width)
    with pytest.raises(ValueError, match=rf"{field} must be a whole number from 1, not {value}"):
        Grid(height, width)


@pytest.mark.parametrize("cell", [(0, 2), (2, -1), (2,), (2, 0, 2), (2, 2, 2, 2)])
def test_a_bad_cell_is_refused(cell: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"cell must be two whole numbers \(rows, columns\) from 1, or three with frames, not"
    ):
        cell_count(Grid(4, 4), cell)  # type: ignore[arg-type]


def test_tokens_that_are_not_on_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 4 = 12 tokens, not \(1, 11\)"):
        to_cells(torch.zeros(1, 11), Grid(3, 4), (2, 2), 0.0)
    with pytest.raises(ValueError, match=r"x must be \(B, N, C\) with N = 3 x 4 = 12 tokens, not \(1, 12\)"):
        to_map(torch.zeros(1, 12), Grid(3, 4))
    with pytest.raises(ValueError, match=r"2 x 3 x 4 = 24 tokens, not \(1, 12\)"):
        to_cells(torch.zeros(1, 12), Grid(3, 4, 2), (2, 2), 0.0)


def test_a_video_is_read_frame_by_frame() -> None:
    video = torch.arange(2 * 24 * 3.0).reshape(2, 24, 3)
    frames = to_map(video, Grid(3, 4, 2))
    assert torch.equal(frames[1], to_map(video[:1, 12:], Grid(3, 4))[0])
    assert (Grid(3, 4, 2).frame, Grid(3, 4, 2).sides, str(Grid(3, 4, 2))) == (Grid(3, 4), (2, 3, 4), "2x3x4")
