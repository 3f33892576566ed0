"""Matching within windows against matching over the whole grid with the other windows masked out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, cell_count, cell_index
from bigain.operators.matching import destinations_by_score, destinations_first, limit, match
from bigain.operators.windows import Windows, best_in_windows, comparisons, regions

Cell = tuple[int, int]
grids = st.builds(Grid, st.integers(1, 19), st.integers(1, 13))
cells = st.sampled_from([(1, 1), (2, 2), (1, 2), (4, 2), (3, 3)])
seeds = st.integers(0, 2**31)


def tokens(seed: int, batch: int, count: int) -> Tensor:
    return torch.randn(batch, count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked_similarity(x: Tensor, destinations: Tensor, grid: Grid, side: int) -> Tensor:
    """Cosine similarities of all tokens to all destinations, -inf outside of the token's window: (B, N, D)."""
    unit = functional.normalize(x, dim=2)
    window = cell_index(grid, (side, side)).expand(x.shape[0], -1)
    others = window[:, :, None] != window.gather(1, destinations)[:, None, :]
    picked = unit.gather(1, destinations[..., None].expand(-1, -1, x.shape[2]))
    return (unit @ picked.transpose(1, 2)).masked_fill(others, -torch.inf)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 3), grids, cells, st.integers(1, 4), st.data())
def test_it_equals_full_matching_with_the_other_windows_masked(
    seed: int, batch: int, grid: Grid, cell: Cell, cells_a_side: int, data: st.DataObject
) -> None:
    side = cells_a_side * max(cell)
    x = tokens(seed, batch, grid.tokens)
    destinations = destinations_by_score(x[..., 0], grid, cell)
    is_source = torch.ones(batch, grid.tokens, dtype=torch.bool).scatter(1, destinations, False)
    sources = torch.arange(grid.tokens).expand(batch, -1)[is_source].view(batch, -1)
    windows = Windows(grid, cell, side)
    similarity, place = best_in_windows(functional.normalize(x, dim=2), sources, destinations, windows)
    masked = masked_similarity(x, destinations, grid, side)[is_source].view(
        batch, sources.shape[1], destinations.shape[1]
    )
    best = masked.max(dim=2)
    torch.testing.assert_close(similarity, best.values)
    assert torch.equal(place, best.indices)

    merged = data.draw(st.integers(0, limit(grid, cell)))
    assignment = match(x, destinations, merged, windows=windows)
    stands_for = assignment.kept.gather(1, assignment.index)
    going = best.values.argsort(dim=1, descending=True, stable=True)[:, :merged]  # over the whole grid
    expected = torch.arange(grid.tokens).repeat(batch, 1)
    joined = destinations.gather(1, best.indices.gather(1, going))
    assert torch.equal(stands_for, expected.scatter(1, sources.gather(1, going), joined))


@settings(max_examples=30, deadline=None)
@given(grids, cells, st.integers(1, 4))
def test_regions_hold_every_token_once_and_cost_no_more_than_the_grid(
    grid: Grid, cell: Cell, cells_a_side: int
) -> None:
    windows = Windows(grid, cell, cells_a_side * max(cell))
    found = regions(windows)
    assert sum(region.windows * region.height * region.width for region in found) == grid.tokens
    assert sum(region.windows * region.destinations for region in found) == cell_count(grid, cell)
    assert comparisons(windows) <= limit(grid, cell) * cell_count(grid, cell)


def test_comparisons_grow_with_the_tokens_and_not_with_their_square() -> None:
    small, large = (comparisons(Windows(Grid(side, side), (2, 2), 8)) for side in (16, 64))
    assert small == 4 * 48 * 16
    assert large == 16 * small


def test_a_window_over_the_whole_grid_is_plain_matching() -> None:
    grid, x = Grid(7, 9), tokens(1, 2, 63)
    destinations = destinations_first(grid, (2, 2), 2)
    plain, windowed = match(x, destinations, 30), match(x, destinations, 30, windows=Windows(grid, (2, 2), 16))
    assert torch.equal(plain.index, windowed.index)
    assert torch.equal(plain.kept, windowed.kept)


def test_equal_similarities_merge_in_raster_order_across_windows() -> None:
    grid = Grid(2, 4)
    destinations = destinations_first(grid, (2, 2), 1)
    assignment = match(torch.ones(1, 8, 1), destinations, 3, windows=Windows(grid, (2, 2), 2))
    assert assignment.kept[0].tolist() == [5, 6, 7, 0, 2]  # 1, 3 and 4 went


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="must be a multiple of the cell 2 x 4, got 6"):
        Windows(Grid(8, 8), (2, 4), 6)
    with pytest.raises(ValueError, match="must be a multiple of the cell 2 x 2, got 0"):
        Windows(Grid(8, 8), (2, 2), 0)
    x, windows = tokens(2, 1, 16), Windows(Grid(4, 4), (2, 2), 2)
    with pytest.raises(ValueError, match=r"need its 16 tokens .* each of its 4 cells, got 16 tokens and 3 dest"):
        match(x, torch.tensor([[0, 2, 8]]), 3, windows=windows)
    with pytest.raises(ValueError, match="got 12 tokens and 4 destinations"):
        match(x[:, :12], torch.tensor([[0, 2, 8, 10]]), 3, windows=windows)
