"""Adaptive block merging against loops over cells."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigain.operators.assignment import Assignment, group_sizes, merge, unmerge
from bigain.operators.blocks import AGGREGATES, aggregate, limit, merge_blocks, merge_blocks_below
from bigain.operators.grid import Grid

Cell = tuple[int, ...]
grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17), st.sampled_from([1, 1, 2, 5]))
cells = st.tuples(st.integers(1, 4), st.integers(1, 3)) | st.tuples(*[st.integers(1, 3)] * 3)
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)


def members(grid: Grid, cell: Cell) -> list[list[int]]:
    """The tokens of every cell, in row-major order."""
    found: dict[tuple[int, int, int], list[int]] = {}
    frames, rows, columns = cell if len(cell) == 3 else (1, *cell)
    for t in range(grid.frames):
        for y in range(grid.height):
            for x in range(grid.width):
                token = (t * grid.height + y) * grid.width + x
                found.setdefault((t // frames, y // rows, x // columns), []).append(token)
    return [found[key] for key in sorted(found)]


def scores(seed: int, batch: int, grid: Grid) -> Tensor:
    return torch.rand(batch, grid.tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_merges(assignment: Assignment, row: int, grid: Grid, chosen: list[list[int]], groups: int) -> None:
    """The row merges exactly the chosen cells, each into its first token, with its groups in raster order."""
    stands_for = {token: cell[0] for cell in chosen for token in cell}
    kept = [token for token in range(grid.tokens) if stands_for.get(token, token) == token]
    assert assignment.groups == groups
    assert assignment.kept[row, : len(kept)].tolist() == kept
    assert assignment.index[row].tolist() == [kept.index(stands_for.get(token, token)) for token in range(grid.tokens)]
    assert 0 <= int(assignment.kept[row].min()) <= int(assignment.kept[row].max()) < grid.tokens


@pytest.mark.parametrize("how", AGGREGATES)
@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells)
def test_aggregate_agrees_with_a_loop(how: str, seed: int, batch: int, grid: Grid, cell: Cell) -> None:
    score = scores(seed, batch, grid)
    aggregated = aggregate(score, grid, cell, how)  # type: ignore[arg-type]
    for row in range(batch):
        expected = []
        for tokens in members(grid, cell):
            values = [float(score[row, token]) for token in tokens]
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
            expected.append(
                {"max": max(values), "min": min(values), "sum": sum(values), "mean": mean, "std": deviation}[how]
            )
        torch.testing.assert_close(aggregated[row].tolist(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds, batches, grids, cells, st.data())
def test_merge_blocks_agrees_with_a_loop(seed: int, batch: int, grid: Grid, cell: Cell, data: st.DataObject) -> None:
    aggregated = aggregate(scores(seed, batch, grid), grid, cell, "max")
    all_cells, saved = members(grid, cell), math.prod(cell) - 1
    full = [number for number, tokens in enumerate(all_cells) if len(tokens) == saved + 1]
    most = limit(grid, cell)
    assert most == len(full) * saved
    count = data.draw(st.integers(0, most))
    counts = data.draw(st.lists(st.integers(0, most), min_size=batch, max_size=batch))
    for argument, per_row in ((count, [count] * batch), (torch.tensor(counts), counts)):
        assignment = merge_blocks(aggregated, grid, cell, argument)
        blocks = [merged // saved if saved else 0 for merged in per_row]
        assert assignment.padded == (len(set(blocks)) > 1)
        for row in range(batch):
            values = aggregated[row].tolist()
            smoothest = sorted(full, key=lambda number: values[number])[: blocks[row]]
            chosen = [all_cells[number] for number in smoothest]
            assert_merges(assignment, row, grid, chosen, grid.tokens - min(blocks) * saved)


@settings(max_examples=25, deadline=None)
@given(seeds, batches, grids, cells, st.sampled_from([-math.inf, 0.2, 0.6, 0.9, math.inf]))
def test_threshold_agrees_with_a_loop(seed: int, batch: int, grid: Grid, cell: Cell, threshold: float) -> None:
    aggregated = aggregate(scores(seed, batch, grid), grid, cell, "max")
    assignment = merge_blocks_below(aggregated, grid, cell, threshold)
    size = math.prod(cell)
    chosen = [
        [
            tokens
            for number, tokens in enumerate(members(grid, cell))
            if len(tokens) == size and float(aggregated[row, number]) < threshold
        ]
        for row in range(batch)
    ]
    fewest = min(map(len, chosen))
    assert assignment.padded == (size > 1 and max(map(len, chosen)) > fewest)
    for row in range(batch):
        assert_merges(assignment, row, grid, chosen[row], grid.tokens - fewest * (size - 1))


def test_equal_aggregates_merge_the_first_cells() -> None:
    assignment = merge_blocks(torch.zeros(1, 6), Grid(4, 6), (2, 2), 6)
    assert group_sizes(assignment)[0, :2].tolist() == [4.0, 4.0]
    assert assignment.kept[0, :4].tolist() == [0, 2, 4, 5]


def test_the_threshold_itself_is_not_below_it() -> None:
    assignment = merge_blocks_below(torch.tensor([[0.5, 0.25]]), Grid(2, 4), (2, 2), 0.5)
    assert assignment.kept.tolist() == [[0, 1, 2, 4, 5]]


def test_merging_and_unmerging_replaces_smooth_cells_by_their_mean() -> None:
    grid = Grid(4, 4)
    x = torch.arange(16.0).view(1, 16, 1)
    assignment = merge_blocks(torch.tensor([[3.0, 1.0, 2.0, 0.5]]), grid, (2, 2), 7)  # 7 // 3 = 2 cells: 3 and 1
    restored = unmerge(merge(x, assignment), assignment).view(4, 4)
    assert restored.tolist() == [[0, 1, 4.5, 4.5], [4, 5, 4.5, 4.5], [8, 9, 12.5, 12.5], [12, 13, 12.5, 12.5]]


def test_batch_agrees_with_its_rows_and_repeats_its_bits() -> None:
    grid, cell = Grid(7, 9), (2, 2)
    aggregated = aggregate(scores(1, 3, grid).float(), grid, cell, "std")
    assignment = merge_blocks(aggregated, grid, cell, 20)
    assert torch.equal(assignment.index, merge_blocks(aggregated, grid, cell, 20).index)
    for row in range(3):
        alone = merge_blocks(aggregated[row : row + 1], grid, cell, 20)
        assert torch.equal(alone.index, assignment.index[row : row + 1])
        assert torch.equal(alone.kept, assignment.kept[row : row + 1])


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_aggregates_keep_their_dtype(how: str, dtype: torch.dtype) -> None:
    score = scores(2, 2, Grid(5, 3)).to(dtype)
    aggregated = aggregate(score, Grid(5, 3), (2, 2), how)  # type: ignore[arg-type]
    assert aggregated.dtype == dtype
    expected = aggregate(score.double(), Grid(5, 3), (2, 2), how)  # type: ignore[arg-type]
    torch.testing.assert_close(aggregated.double(), expected, rtol=0.02, atol=0.01)


def test_bad_inputs_are_named() -> None:
    grid, cell = Grid(5, 5), (2, 2)
    aggregated = torch.zeros(2, 9)
    with pytest.raises(ValueError, match="how must be one of max, sum, mean, min, std, not 'median'"):
        aggregate(torch.zeros(1, 25), grid, cell, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 12\], .* not 13"):
        merge_blocks(aggregated, grid, cell, 13)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 12\], .* not values from -1 to 3"):
        merge_blocks(aggregated, grid, cell, torch.tensor([3, -1]))
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 0\], .* not 1"):
        merge_blocks(torch.zeros(1, 25), grid, (1, 1), 1)
    with pytest.raises(ValueError, match=r"aggregated must be \(B, cells\) with 9 cells, not \(2, 8\)"):
        merge_blocks(aggregated[:, :8], grid, cell, 3)
    with pytest.raises(ValueError, match=r"threshold must be a number in \[-inf, inf\], not nan"):
        merge_blocks_below(aggregated, grid, cell, math.nan)
