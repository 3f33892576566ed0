"""Quadtree merging against a greedy loop over blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigain.operators.assignment import Assignment, group_sizes, merge, unmerge
from bigain.operators.blocks import levels, merge_costs, merge_quadtree, quadtree_limit
from bigain.operators.grid import Grid

Place = tuple[int, int, int, int]  # level, frame, row and column of a block; level 0 is a token
grids = st.builds(Grid, st.integers(1, 11), st.integers(1, 9))
videos = st.builds(Grid, st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
depths = st.integers(1, 4)
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)


def tokens(seed: int, batch: int, grid: Grid) -> Tensor:
    return torch.randn(batch, grid.tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def members(grid: Grid, place: Place, time_depth: int = 0) -> list[int]:
    """The tokens of a block, in raster order."""
    level, *at = place
    sides = [2 ** min(level, time_depth), 2**level, 2**level]
    frames, rows, columns = (
        range(start * side, min((start + 1) * side, end))
        for start, side, end in zip(at, sides, (grid.frames, grid.height, grid.width), strict=True)
    )
    return [(t * grid.height + y) * grid.width + x for t in frames for y in rows for x in columns]


def children(grid: Grid, place: Place, time_depth: int = 0) -> list[Place]:
    """The blocks (or tokens) of half the side that a block is made of, in raster order."""
    level, frame, row, column = place
    frames = [2 * frame, 2 * frame + 1] if level <= time_depth else [frame]
    places = [(level - 1, t, 2 * row + down, 2 * column + right) for t in frames for down in (0, 1) for right in (0, 1)]
    return [child for child in places if members(grid, child, time_depth)]


def blocks(grid: Grid, level: int, time_depth: int = 0) -> list[Place]:
    side, frames = 2**level, 2 ** min(level, time_depth)
    return [
        (level, t, y, x)
        for t in range(-(-grid.frames // frames))
        for y in range(-(-grid.height // side))
        for x in range(-(-grid.width // side))
    ]


def squared_error(x: Tensor, block: list[int]) -> float:
    return float((x[block] - x[block].mean(0)).square().sum())


def added_error(x: Tensor, grid: Grid, place: Place, time_depth: int = 0) -> float:
    """The squared error of a block's mean, less that of its children's means."""
    parts = children(grid, place, time_depth)
    within = sum(squared_error(x, members(grid, child, time_depth)) for child in parts)
    return squared_error(x, members(grid, place, time_depth)) - within


def merge_by_loop(x: Tensor, grid: Grid, depth: int, merged: int, time_depth: int = 0) -> list[int]:
    """The token that stands for each token of one row: the cheapest block that may merge, again and again."""
    keys: dict[Place, float] = {}
    for level in range(1, depth + 1):
        for place in blocks(grid, level, time_depth):
            parts = children(grid, place, time_depth)
            within = [keys[child] for child in parts if level > 1]
            saved = len(parts) - 1
            keys[place] = max([added_error(x, grid, place, time_depth) / saved if saved else 0.0, *within])
    done = set(blocks(grid, 0, time_depth))
    stands_for = list(range(grid.tokens))
    left = merged
    while left:
        allowed = [place for place in keys if place not in done and {*children(grid, place, time_depth)} <= done]
        cheapest = min(allowed, key=lambda place: (keys[place], place))
        joining = children(grid, cheapest, time_depth)[1 : left + 1]
        for token in [token for child in joining for token in members(grid, child, time_depth)]:
            stands_for[token] = members(grid, cheapest, time_depth)[0]
        done.add(cheapest)
        left -= len(joining)
    return stands_for


def assert_merges(assignment: Assignment, row: int, stands_for: list[int]) -> None:
    kept = sorted({*stands_for})
    assert assignment.kept[row, : len(kept)].tolist() == kept
    assert assignment.index[row].tolist() == [kept.index(token) for token in stands_for]
    assert 0 <= int(assignment.kept[row].min()) <= int(assignment.kept[row].max()) < len(stands_for)


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids | videos, depths, st.integers(0, 2))
def test_costs_are_the_squared_error_that_a_merge_adds(
    seed: int, batch: int, grid: Grid, depth: int, time_depth: int
) -> None:
    x, time_depth = tokens(seed, batch, grid), min(time_depth, depth)
    costs = merge_costs(x, grid, depth, time_depth)
    assert [cost.shape[1] for cost in costs] == [level.tokens for level in levels(grid, depth, time_depth)[1:]]
    for row in range(batch):
        for level, cost in enumerate(costs, start=1):
            places = blocks(grid, level, time_depth)
            expected = [added_error(x[row], grid, place, time_depth) for place in places]
            torch.testing.assert_close(cost[row].tolist(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, batches, grids | videos, depths, st.integers(0, 2), st.data())
def test_it_agrees_with_a_greedy_loop(
    seed: int, batch: int, grid: Grid, depth: int, time_depth: int, data: st.DataObject
) -> None:
    time_depth = min(time_depth, depth)
    x, most = tokens(seed, batch, grid), quadtree_limit(grid, depth, time_depth)
    count = data.draw(st.integers(0, most))
    counts = data.draw(st.lists(st.integers(0, most), min_size=batch, max_size=batch))
    for argument, per_row in ((count, [count] * batch), (torch.tensor(counts), counts)):
        assignment = merge_quadtree(x, grid, depth, argument, time_depth)
        assert assignment.groups == grid.tokens - min(per_row)
        assert assignment.padded == (len(set(per_row)) > 1)
        for row in range(batch):
            assert_merges(assignment, row, merge_by_loop(x[row], grid, depth, per_row[row], time_depth))


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 7), Grid(5, 6), Grid(8, 8), Grid(9, 3)])
def test_every_number_up_to_the_limit_is_met_exactly_by_blocks(grid: Grid) -> None:
    depth, x = 3, tokens(1, 2, grid)
    whole = {tuple(members(grid, place)) for level in range(depth + 1) for place in blocks(grid, level)}
    assert quadtree_limit(grid, depth) == grid.tokens - len(blocks(grid, depth))
    for count in range(quadtree_limit(grid, depth) + 1):
        assignment = merge_quadtree(x, grid, depth, count)
        assert assignment.groups == grid.tokens - count
        assert int(group_sizes(assignment).min()) >= 1
        for row in assignment.index:
            groups = [tuple((row == group).nonzero().flatten().tolist()) for group in range(assignment.groups)]
            assert sum(group not in whole for group in groups) <= 1  # the last block, where only a part is needed
    merged = merge(x, assignment)
    for group, place in enumerate(blocks(grid, depth)):
        torch.testing.assert_close(merged[:, group], x[:, members(grid, place)].mean(1))


def test_no_block_goes_before_its_children() -> None:
    """A 4 x 4 block whose four means are equal adds no error itself, but its children do."""
    grid = Grid(4, 8)
    rough = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)  # every 2 x 2 mean is 0
    smooth = torch.arange(4.0)[:, None] * 0.1 + torch.arange(4.0) * 0.1
    x = torch.cat([rough, smooth], 1).reshape(1, 32, 1)
    cheap = merge_quadtree(x, grid, 3, 15)  # the smooth half has 15 tokens to save
    assert group_sizes(cheap)[0].tolist() == [1.0] * 4 + [16.0] + [1.0] * 12
    assert merge_quadtree(x, grid, 3, 16).index[0].bincount().max() == 16


def test_equal_costs_merge_the_smaller_blocks_first_in_raster_order() -> None:
    grid = Grid(4, 4)
    x = torch.ones(1, 16, 2)
    assert group_sizes(merge_quadtree(x, grid, 2, 6))[0].tolist() == [4, 4] + [1] * 8
    assert group_sizes(merge_quadtree(x, grid, 2, 12))[0].tolist() == [4, 4, 4, 4]
    assert merge_quadtree(x, grid, 2, 1).index[0, :6].tolist() == [0, 0, 1, 2, 3, 4]  # a part: its first two tokens
    part = merge_quadtree(x, grid, 2, 14)  # of the largest block: its first three children
    assert part.kept[0].tolist() == [0, 10]
    assert group_sizes(part)[0].tolist() == [12, 4]


def test_a_piecewise_constant_map_comes_back_whole() -> None:
    grid = Grid(8, 8)
    x = torch.zeros(1, 8, 8, 1)
    x[:, :4, :4], x[:, 4:, 4:], x[:, 0:2, 6:8] = 2.0, -1.0, 5.0
    x = x.reshape(1, 64, 1)
    assignment = merge_quadtree(x, grid, 3, 64 - 7)  # three 4 x 4 blocks, and four 2 x 2 blocks of the fourth
    assert torch.equal(unmerge(merge(x, assignment), assignment), x)
    assert sorted(group_sizes(assignment)[0].tolist()) == [4, 4, 4, 4, 16, 16, 16]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_merges_as_its_values_do_in_float32(dtype: torch.dtype) -> None:
    x = tokens(2, 2, Grid(7, 9)).to(dtype)
    assert torch.equal(merge_quadtree(x, Grid(7, 9), 3, 31).index, merge_quadtree(x.float(), Grid(7, 9), 3, 31).index)


def test_batch_agrees_with_its_rows_and_repeats_its_bits() -> None:
    grid, x = Grid(7, 9), tokens(3, 3, Grid(7, 9)).float()
    assignment = merge_quadtree(x, grid, 3, 40)
    assert torch.equal(assignment.index, merge_quadtree(x, grid, 3, 40).index)
    for row in range(3):
        alone = merge_quadtree(x[row : row + 1], grid, 3, 40)
        assert torch.equal(alone.index, assignment.index[row : row + 1])
        assert torch.equal(alone.kept, assignment.kept[row : row + 1])


def test_the_assignment_carries_no_gradient() -> None:
    x = tokens(4, 1, Grid(4, 4)).requires_grad_()
    assignment = merge_quadtree(x, Grid(4, 4), 2, 9)
    unmerge(merge(x, assignment), assignment).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_bad_inputs_are_named() -> None:
    x, grid = torch.zeros(2, 20, 3), Grid(4, 5)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 14\], the most that can merge here, not 15"):
        merge_quadtree(x, grid, 1, 15)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 19\], .* not values from -1 to 3"):
        merge_quadtree(x, grid, 3, torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="time_depth must be a whole number from 0 to depth, 1, not 2"):
        merge_quadtree(x, grid, 1, 1, 2)
    with pytest.raises(ValueError, match="depth must be a whole number from 1, not 0"):
        merge_quadtree(x, grid, 0, 1)
    with pytest.raises(ValueError, match=r"x must be \(B, N, C\) with N = 4 x 4 = 16 tokens, not \(2, 20, 3\)"):
        merge_costs(x, Grid(4, 4), 1)
