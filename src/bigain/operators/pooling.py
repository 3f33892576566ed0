"""Downsampling of the tokens from which keys and values come: nearest, average, and interpolate-extrapolate pooling.

The grid is cut into windows of ``factor x factor`` tokens from the top left; where the factor does not divide the grid,
the windows at the bottom and right edges are partial, and no token is dropped. The nearest token of a window is the one
at row and column floor(factor / 2) of it, as ``F.interpolate(mode="nearest-exact")`` picks where the factor divides the
grid; in a partial window it is clamped to the last row and column, so that it lies in the window that is averaged.

Source: BiGain (arXiv 2603.12240), interpolate-extrapolate KV downsampling; nearest is ToDo's published code
(arXiv 2402.13573).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, cell_tokens, check_tokens, gather_tokens, to_map, to_tokens

Place = Literal["centre", "first"]
PLACES: tuple[str, ...] = get_args(Place)


def nearest_tokens(
    grid: Grid, factor: int, place: Place = "centre", device: torch.device | str | None = None
) -> Tensor:
    """The token that stands for each window: (M,) int64, in raster order of the windows.

    ``place`` "centre" is row and column floor(factor / 2) of the window, clamped to the grid; "first" its top left.
    """
    _check_factor(factor)
    if place not in PLACES:
        raise ValueError(f"place must be one of {', '.join(PLACES)}, not {place!r}")
    return cell_tokens(grid, (factor, factor), device, offset=factor // 2 if place == "centre" else 0)


def nearest(x: Tensor, grid: Grid, factor: int, place: Place = "centre") -> Tensor:
    """One token of every window: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself."""
    check_tokens(x, grid, 3, "x")
    index = nearest_tokens(grid, factor, place, x.device)
    return x if factor == 1 else x.index_select(1, index)


def average(x: Tensor, grid: Grid, factor: int) -> Tensor:
    """The mean of every window over its real tokens: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself."""
    check_tokens(x, grid, 3, "x")
    _check_factor(factor)
    if factor == 1:
        return x
    # channels-last in memory, so both layouts are views and the sums run along the channels
    return to_tokens(functional.avg_pool2d(to_map(x, grid), factor, factor, ceil_mode=True, count_include_pad=False))


def interpolate_extrapolate(
    x: Tensor, grid: Grid, factor: int, alpha: float | Tensor, place: Place = "centre"
) -> Tensor:
    """alpha * nearest + (1 - alpha) * average, mixed in at least float32.

    Args:
        x: (B, N, C).
        alpha: 1 is exactly :func:`nearest`, 0 exactly :func:`average`, above 1 extrapolates away from the mean. A
            number, or a (B,) tensor with one value per row, whose values are not checked (that would synchronise).
        place: as in :func:`nearest_tokens`.

    Returns:
        (B, M, C) in the dtype of ``x``. Factor 1 returns ``x`` itself.
    """
    if isinstance(alpha, Tensor):
        if alpha.shape != x.shape[:1]:
            raise ValueError(f"alpha must be a number or of shape ({x.shape[0]},), not {tuple(alpha.shape)}")
    elif not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, not {alpha!r}")
    elif alpha == 1:
        return nearest(x, grid, factor, place)
    elif alpha == 0:
        return average(x, grid, factor)
    mean, near = average(x, grid, factor), nearest(x, grid, factor, place)
    if factor == 1:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    if isinstance(alpha, Tensor):
        alpha = alpha.to(device=x.device, dtype=wide)[:, None, None]  # (B, 1, 1)
    # lerp is exact at both of its ends, whatever the rounding in between
    return torch.lerp(mean.to(wide), near.to(wide), alpha).to(x.dtype)


def window_sizes(grid: Grid, factor: int, device: torch.device | str | None = None) -> Tensor:
    """How many tokens lie in each window: (M,) float32, less than ``factor ** 2`` in partial ones."""
    _check_factor(factor)
    sides = [[min(factor, side - start) for start in range(0, side, factor)] for side in (grid.height, grid.width)]
    return torch.outer(*(torch.tensor(side, dtype=torch.float32, device=device) for side in sides)).flatten()


def band_select(x: Tensor, score: Tensor, count: int, highest: bool) -> Tensor:
    """Keep only the tokens with the highest (or lowest) scores, in raster order; on ties the first ones.

    Tokens (B, N, C) with scores (B, N) to (B, count, C).

    Source: BiGain (arXiv 2603.12240), table 12.
    """
    if x.dim() != 3 or score.shape != x.shape[:2]:
        raise ValueError(f"score must be (B, N) for x (B, N, C), not {tuple(score.shape)} for {tuple(x.shape)}")
    if not 1 <= count <= x.shape[1]:
        raise ValueError(f"count must lie in [1, {x.shape[1]}], not {count!r}")
    kept = score.argsort(dim=1, descending=highest, stable=True)[:, :count].sort(dim=1).values
    return gather_tokens(x, kept)


def _check_factor(factor: int) -> None:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ValueError(f"factor must be a whole number from 1, not {factor!r}")
