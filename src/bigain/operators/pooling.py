"""Downsampling of the tokens from which keys and values come: nearest, average, and interpolate-extrapolate pooling.

The grid is cut into windows of ``factor x factor`` tokens from the top left, or of ``(rows, columns)``, or of
``(frames, rows, columns)`` from the first frame on; where they do not divide the grid, the windows at the far edges are
partial, and no token is dropped. The nearest token of a window is the one at floor(factor / 2) of each of its sides, as
``F.interpolate(mode="nearest-exact")`` picks where the factor divides the grid; in a partial window it is clamped to
the last one, so that it lies in the window that is averaged.

Source: BiGain (arXiv 2603.12240), interpolate-extrapolate KV downsampling; nearest is ToDo's published code
(arXiv 2402.13573). Windows over frames are this package's.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, cell_tokens, check_tokens, gather_tokens, to_map, to_tokens
from bigain.operators.labels import labelled

Place = Literal["centre", "first"]
PLACES: tuple[str, ...] = get_args(Place)

Factor = int | tuple[int, ...]
"""The sides of a window: an s is (1, s, s), a (rows, columns) is (1, rows, columns)."""


def window_of(factor: Factor) -> tuple[int, int, int]:
    """Frames, rows and columns of the windows; ValueError unless ``factor`` is one to three whole numbers from 1."""
    sides = factor if isinstance(factor, tuple) else (factor, factor)
    if len(sides) not in (2, 3) or not all(type(side) is int and side >= 1 for side in sides):
        which = "two or three whole numbers" if isinstance(factor, tuple) else "a whole number"
        raise ValueError(f"factor must be {which} from 1, not {factor!r}")
    frames, rows, columns = (1, *sides)[-3:]
    return frames, rows, columns


def nearest_tokens(
    grid: Grid, factor: Factor, place: Place = "centre", device: torch.device | str | None = None
) -> Tensor:
    """The token that stands for each window: (M,) int64, in raster order of the windows.

    ``place`` "centre" is floor(side / 2) of each of the window's sides, clamped to the grid; "first" its top left.
    """
    window = window_of(factor)
    if place not in PLACES:
        raise ValueError(f"place must be one of {', '.join(PLACES)}, not {place!r}")
    frames, rows, columns = window
    offset = (frames // 2, rows // 2, columns // 2) if place == "centre" else (0, 0, 0)
    return cell_tokens(grid, window, device, offset)


@labelled("pool")
def nearest(x: Tensor, grid: Grid, factor: Factor, place: Place = "centre") -> Tensor:
    """One token of every window: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself."""
    check_tokens(x, grid, 3, "x")
    index = nearest_tokens(grid, factor, place, x.device)
    return x if window_of(factor) == (1, 1, 1) else x.index_select(1, index)


@labelled("pool")
def average(x: Tensor, grid: Grid, factor: Factor) -> Tensor:
    """The mean of every window over its real tokens: (B, N, C) to (B, M, C). Factor 1 returns ``x`` itself."""
    check_tokens(x, grid, 3, "x")
    frames, *window = window_of(factor)
    if (frames, *window) == (1, 1, 1):
        return x
    dtype = x.dtype
    if frames > 1:  # first over time, where it is a sum of whole frames, in at least float32
        x = _over_frames(x.to(torch.promote_types(dtype, torch.float32)), grid, frames)
        grid = Grid(grid.height, grid.width, -(-grid.frames // frames))
    # channels-last in memory, so both layouts are views and the sums run along the channels
    pooled = functional.avg_pool2d(to_map(x, grid), window, window, ceil_mode=True, count_include_pad=False)
    return to_tokens(pooled).reshape(x.shape[0], -1, x.shape[2]).to(dtype)


def _over_frames(x: Tensor, grid: Grid, frames: int) -> Tensor:
    """The mean of every ``frames`` frames, the last of what is left: (B, T * N, C) to (B, ceil(T / frames) * N, C)."""
    by_frame = x.reshape(x.shape[0], grid.frames, -1)
    full = grid.frames // frames
    means = [by_frame[:, : full * frames].reshape(x.shape[0], full, frames, -1).mean(2)] if full else []
    if full * frames < grid.frames:
        means.append(by_frame[:, full * frames :].mean(1, keepdim=True))
    return torch.cat(means, 1).reshape(x.shape[0], -1, x.shape[2])


@labelled("pool")
def interpolate_extrapolate(
    x: Tensor, grid: Grid, factor: Factor, alpha: float | Tensor, place: Place = "centre"
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
    if window_of(factor) == (1, 1, 1):
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    if isinstance(alpha, Tensor):
        alpha = alpha.to(device=x.device, dtype=wide)[:, None, None]  # (B, 1, 1)
    # lerp is exact at both of its ends, whatever the rounding in between
    return torch.lerp(mean.to(wide), near.to(wide), alpha).to(x.dtype)


def window_sizes(grid: Grid, factor: Factor, device: torch.device | str | None = None) -> Tensor:
    """How many tokens lie in each window: (M,) float32, fewer in partial ones."""
    frames, rows, columns = (
        torch.tensor([min(step, side - start) for start in range(0, side, step)], dtype=torch.float32, device=device)
        for side, step in zip(grid.sides, window_of(factor), strict=True)
    )
    return (frames[:, None, None] * rows[:, None] * columns).flatten()


@labelled("pool")
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
