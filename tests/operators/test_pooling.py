"""Pooling against loops over windows."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, cell_count, cell_index, to_map, to_tokens
from bigain.operators.pooling import (
    Factor,
    Place,
    average,
    band_select,
    interpolate_extrapolate,
    nearest,
    nearest_tokens,
    window_sizes,
)

grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17))
videos = st.builds(Grid, st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
factors = st.integers(1, 5)
windows = factors | st.tuples(factors, factors) | st.tuples(factors, factors, factors)
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)
alphas = st.floats(-2.0, 2.0)


def tokens(seed: int, batch: int, grid: Grid, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid.tokens, 3, generator=rng, dtype=torch.float64).to(dtype)


def sides_of(factor: Factor) -> tuple[int, int, int]:
    if isinstance(factor, int):
        return 1, factor, factor
    return (1, *factor)[-3:]  # type: ignore[return-value]


def windows_by_loop(grid: Grid, factor: Factor) -> list[list[tuple[int, int, int]]]:
    """The places (frame, row, column) in each window."""
    frames, rows, columns = sides_of(factor)
    return [
        [
            (t, y, x)
            for t in range(start, min(start + frames, grid.frames))
            for y in range(top, min(top + rows, grid.height))
            for x in range(left, min(left + columns, grid.width))
        ]
        for start in range(0, grid.frames, frames)
        for top in range(0, grid.height, rows)
        for left in range(0, grid.width, columns)
    ]


def token_at(grid: Grid, place: tuple[int, int, int]) -> int:
    return (place[0] * grid.height + place[1]) * grid.width + place[2]


def pool_by_loop(x: Tensor, grid: Grid, factor: Factor, alpha: list[float], first: bool = False) -> Tensor:
    rows = []
    offset = [0 if first else side // 2 for side in sides_of(factor)]
    for row in range(x.shape[0]):
        pooled = []
        for window in windows_by_loop(grid, factor):
            tokens = [x[row, token_at(grid, place)] for place in window]
            mean = sum(tokens[1:], tokens[0]) / len(tokens)
            near = [min(window[0][i] + offset[i], window[-1][i]) for i in range(3)]
            pooled.append(alpha[row] * x[row, token_at(grid, (near[0], near[1], near[2]))] + (1 - alpha[row]) * mean)
        rows.append(torch.stack(pooled))
    return torch.stack(rows)


@settings(max_examples=40, deadline=None)
@given(seeds, batches, grids | videos, windows, alphas)
def test_pooling_agrees_with_a_loop(seed: int, batch: int, grid: Grid, factor: Factor, alpha: float) -> None:
    x = tokens(seed, batch, grid)
    pooled = interpolate_extrapolate(x, grid, factor, alpha)
    assert pooled.shape[1] == cell_count(grid, sides_of(factor))
    assert window_sizes(grid, factor).tolist() == [len(window) for window in windows_by_loop(grid, factor)]
    torch.testing.assert_close(pooled, pool_by_loop(x, grid, factor, [alpha] * batch), rtol=1e-10, atol=1e-10)
    by_first = interpolate_extrapolate(x, grid, factor, alpha, "first")
    expected = pool_by_loop(x, grid, factor, [alpha] * batch, first=True)
    torch.testing.assert_close(by_first, expected, rtol=1e-10, atol=1e-10)
    per_row = torch.linspace(alpha, 1.5, batch, dtype=torch.float64)
    by_row = interpolate_extrapolate(x, grid, factor, per_row)
    torch.testing.assert_close(by_row, pool_by_loop(x, grid, factor, per_row.tolist()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids | videos, windows)
def test_alpha_one_is_nearest_and_zero_is_average(
    dtype: torch.dtype, seed: int, batch: int, grid: Grid, factor: Factor
) -> None:
    x = tokens(seed, batch, grid, dtype)
    near, mean = nearest(x, grid, factor), average(x, grid, factor)
    assert near.dtype == mean.dtype == dtype
    for alpha, expected in ((1.0, near), (0.0, mean)):
        per_row = torch.full((batch,), alpha)
        assert torch.equal(interpolate_extrapolate(x, grid, factor, alpha), expected)
        assert torch.equal(interpolate_extrapolate(x, grid, factor, per_row), expected)
        assert interpolate_extrapolate(x, grid, factor, per_row).dtype == dtype


@settings(max_examples=25, deadline=None)
@given(seeds, batches, st.integers(1, 8), st.integers(1, 6), factors)
def test_nearest_is_that_of_todos_published_code_where_the_factor_divides_the_grid(
    seed: int, batch: int, rows: int, columns: int, factor: int
) -> None:
    grid = Grid(rows * factor, columns * factor)
    x = tokens(seed, batch, grid)
    published = functional.interpolate(to_map(x, grid), size=(rows, columns), mode="nearest-exact")
    assert torch.equal(nearest(x, grid, factor), to_tokens(published))
    first = functional.interpolate(to_map(x, grid), size=(rows, columns), mode="nearest")
    assert torch.equal(nearest(x, grid, factor, "first"), to_tokens(first))


@settings(max_examples=40, deadline=None)
@given(grids | videos, st.integers(1, 40) | windows, st.sampled_from(["centre", "first"]))
def test_the_nearest_token_lies_in_the_window_that_is_averaged(grid: Grid, factor: Factor, place: Place) -> None:
    window = cell_index(grid, sides_of(factor))
    index = nearest_tokens(grid, factor, place)
    assert torch.equal(window[index], torch.arange(cell_count(grid, sides_of(factor))))


def test_the_nearest_token_is_at_half_the_factor_clamped_in_partial_windows() -> None:
    assert nearest_tokens(Grid(4, 4), 2).tolist() == [5, 7, 13, 15]
    assert nearest_tokens(Grid(3, 7), 3).tolist() == [8, 11, 13]  # the last window has one column
    assert nearest_tokens(Grid(1, 1), 4).tolist() == [0]
    with pytest.raises(ValueError, match="place must be one of centre, first, not 'last'"):
        nearest_tokens(Grid(4, 4), 2, "last")  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seeds, batches, grids | videos, windows)
def test_no_token_is_dropped(seed: int, batch: int, grid: Grid, factor: Factor) -> None:
    x = tokens(seed, batch, grid)
    sizes = [len(window) for window in windows_by_loop(grid, factor)]
    total = (average(x, grid, factor) * torch.tensor(sizes)[None, :, None]).sum(1)
    torch.testing.assert_close(total, x.sum(1), rtol=1e-10, atol=1e-10)


def test_factor_one_returns_its_input() -> None:
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    assert nearest(x, Grid(2, 3), 1) is x
    assert average(x, Grid(2, 3), 1) is x
    assert interpolate_extrapolate(x, Grid(2, 3), 1, 0.9) is x
    assert interpolate_extrapolate(x, Grid(2, 3), 1, torch.tensor([0.8, 1.2])) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_averages_in_float32(dtype: torch.dtype) -> None:
    grid = Grid(40, 40)
    assert average(torch.ones(1, 1600, 1, dtype=dtype), grid, 40).item() == 1.0  # a sum in bfloat16 sticks at 256
    x = tokens(0, 1, grid, dtype)
    assert torch.equal(average(x, grid, 7), average(x.float(), grid, 7).to(dtype))
    video = Grid(8, 40, 5)
    x = tokens(0, 1, video, dtype)
    assert torch.equal(average(x, video, (2, 3, 3)), average(x.float(), video, (2, 3, 3)).to(dtype))


def test_batch_agrees_with_its_rows_and_repeats_its_bits() -> None:
    grid, alpha = Grid(7, 5), torch.tensor([0.8, 1.0, 1.2])
    x = tokens(3, 3, grid, torch.float32)
    pooled = interpolate_extrapolate(x, grid, 2, alpha)
    assert torch.equal(pooled, interpolate_extrapolate(x, grid, 2, alpha))
    for row in range(3):
        alone = interpolate_extrapolate(x[row : row + 1], grid, 2, alpha[row : row + 1])
        assert torch.equal(pooled[row : row + 1], alone)
        torch.testing.assert_close(interpolate_extrapolate(x[row : row + 1], grid, 2, alpha[row].item()), alone)


@settings(max_examples=25, deadline=None)
@given(seeds, batches, grids, st.booleans(), st.data())
def test_band_select_agrees_with_a_loop(seed: int, batch: int, grid: Grid, highest: bool, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, grid.tokens))
    x = tokens(seed, batch, grid)
    score = torch.randint(5, (batch, grid.tokens), generator=torch.Generator().manual_seed(seed)).double()  # with ties
    kept = band_select(x, score, count, highest)
    for row in range(batch):
        values = score[row].tolist()
        order = sorted(range(grid.tokens), key=lambda token: (-values[token] if highest else values[token], token))
        assert torch.equal(kept[row], x[row, sorted(order[:count])])


@pytest.mark.parametrize("factor", [0, -2, 1.5, True, (2,), (2, 0), (1, 2, 2, 2), (2, True)])
def test_a_bad_factor_is_refused(factor: Factor) -> None:
    x = torch.zeros(1, 6, 3)
    for pool in (nearest, average):
        with pytest.raises(ValueError, match=re.escape(f"from 1, not {factor}")):
            pool(x, Grid(2, 3), factor)
    with pytest.raises(ValueError, match=r"factor must be (a|two or three) whole numbers? from 1"):
        interpolate_extrapolate(x, Grid(2, 3), factor, 0.9)


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_alpha_must_be_finite(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha must be finite, not {alpha}"):
        interpolate_extrapolate(torch.zeros(1, 6, 3), Grid(2, 3), 2, alpha)


def test_shapes_that_disagree_are_refused() -> None:
    x = torch.zeros(2, 6, 3)
    with pytest.raises(ValueError, match=r"alpha must be a number or of shape \(2,\), not \(3,\)"):
        interpolate_extrapolate(x, Grid(2, 3), 2, torch.ones(3))
    with pytest.raises(ValueError, match=r"3 x 3 = 9 tokens, not \(2, 6, 3\)"):
        average(x, Grid(3, 3), 2)
    with pytest.raises(ValueError, match=r"score must be \(B, N\) for x \(B, N, C\), not \(2, 5\) for \(2, 6, 3\)"):
        band_select(x, torch.zeros(2, 5), 1, highest=True)
    with pytest.raises(ValueError, match=r"count must lie in \[1, 6\], not 7"):
        band_select(x, torch.zeros(2, 6), 7, highest=True)
