"""Downsampling of the tokens from which keys and values come: nearest, average, and interpolate-extrapolate pooling.

The grid is cut into windows of ``factor x factor`` tokens from the top left; where the factor does not divide the grid,
the windows at the bottom and right edges are partial, and no token is dropped. The nearest token of a window is its
top-left one: it is what ``F.interpolate(mode="nearest")`` picks where the factor divides the grid, and it lies in the
window that is averaged also where it does not.

Source: BiGain (arXiv 2603.12240), interpolate-extrapolate KV downsampling; nearest is ToDo (arXiv 2402.13573).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, check_tokens, gather_tokens, to_map, to_tokens


def pooled_grid(grid: Grid, factor: int) -> Grid:
    """The grid of windows, partial windows included.

    Raises:
        ValueError: if the factor is below 1.
    """
    _check_factor(factor)
    return Grid((grid.height + factor - 1) // factor, (grid.width + factor - 1) // factor)


def nearest(x: Tensor, grid: Grid, factor: int) -> Tensor:
    """The top-left token of every window: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself.

    Raises:
        ValueError: if ``x`` is not (B, N, C) for this grid, or the factor is below 1.
    """
    check_tokens(x, grid, 3, "x")
    pooled = pooled_grid(grid, factor)
    if factor == 1:
        return x
    batch, _, channels = x.shape
    laid_out = x.reshape(batch, grid.height, grid.width, channels)
    return laid_out[:, ::factor, ::factor].reshape(batch, pooled.tokens, channels)


def average(x: Tensor, grid: Grid, factor: int) -> Tensor:
    """The mean of every window over its real tokens: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself.

    Raises:
        ValueError: if ``x`` is not (B, N, C) for this grid, or the factor is below 1.
    """
    check_tokens(x, grid, 3, "x")
    _check_factor(factor)
    if factor == 1:
        return x
    # channels-last in memory, so both layouts are views and the sums run along the channels
    return to_tokens(functional.avg_pool2d(to_map(x, grid), factor, factor, ceil_mode=True, count_include_pad=False))


def interpolate_extrapolate(x: Tensor, grid: Grid, factor: int, alpha: float | Tensor) -> Tensor:
    """alpha * nearest + (1 - alpha) * average, mixed in at least float32.

    Args:
        x: (B, N, C).
        alpha: 1 is exactly :func:`nearest`, 0 exactly :func:`average`, above 1 extrapolates away from the mean. A
            number, or a (B,) tensor with one value per row, whose values are not checked (that would synchronise).

    Returns:
        (B, M, C) in the dtype of ``x``. Factor 1 returns ``x`` itself.

    Raises:
        ValueError: if ``x`` is not (B, N, C) for this grid, the factor is below 1, or alpha is not finite or not (B,).
    """
    check_tokens(x, grid, 3, "x")
    _check_factor(factor)
    if isinstance(alpha, Tensor):
        if alpha.shape != x.shape[:1]:
            raise ValueError(f"alpha must be a number or of shape ({x.shape[0]},), got shape {tuple(alpha.shape)}")
    elif not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha!r}")
    if factor == 1:
        return x
    if not isinstance(alpha, Tensor) and alpha == 1:
        return nearest(x, grid, factor)
    if not isinstance(alpha, Tensor) and alpha == 0:
        return average(x, grid, factor)
    wide = torch.promote_types(x.dtype, torch.float32)
    if isinstance(alpha, Tensor):
        alpha = alpha.to(device=x.device, dtype=wide)[:, None, None]  # (B, 1, 1)
    # lerp is exact at both of its ends, whatever the rounding in between
    return torch.lerp(average(x, grid, factor).to(wide), nearest(x, grid, factor).to(wide), alpha).to(x.dtype)


def band_select(x: Tensor, score: Tensor, count: int, highest: bool) -> Tensor:
    """Keep only the tokens with the highest (or lowest) scores, in raster order; on ties the first ones.

    Args:
        x: (B, N, C).
        score: (B, N).
        count: how many tokens to keep, in [1, N].

    Returns:
        (B, count, C).

    Raises:
        ValueError: if the shapes disagree or the count lies outside of [1, N].

    Source: BiGain (arXiv 2603.12240), table 12.
    """
    if x.dim() != 3 or score.shape != x.shape[:2]:
        raise ValueError(f"score must be (B, N) for x (B, N, C), got {tuple(score.shape)} for {tuple(x.shape)}")
    if not 1 <= count <= x.shape[1]:
        raise ValueError(f"count must lie in [1, {x.shape[1]}], got {count!r}")
    kept = score.argsort(dim=1, descending=highest, stable=True)[:, :count].sort(dim=1).values
    return gather_tokens(x, kept)


def _check_factor(factor: int) -> None:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ValueError(f"factor must be an integer >= 1, got {factor!r}")
