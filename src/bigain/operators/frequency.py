"""Token scores: how much detail there is at each token. High is an edge or texture, low is smooth.

All scores map (B, N, C) to (B, N), in float32 (float64 stays float64), each row of the batch, and of a video each
frame, on its own.

Source: BiGain (arXiv 2603.12240), Laplacian-gated token merging and table 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid, check_tokens, to_map
from bigain.operators.labels import labelled

CUTOFF = 0.5  # of the Nyquist frequency: what lies above counts as detail in the spectral scores


@labelled("score")
def score(x: Tensor, grid: Grid, kind: str) -> Tensor:
    """Score every token by how much detail it carries.

    Args:
        x: (B, N, C).
        kind: one of :data:`SCORES`:
            ``laplacian_l1``, ``laplacian_l2``: norm over the channels of the 5-point Laplacian of the token grid, with
            replicate padding (with zeros every token at the border would look like an edge);
            ``mean_deviation``: Euclidean distance to the image's mean token;
            ``l1_norm``, ``l2_norm``: norm of the token;
            ``channel_variance``: (population) variance of the token's channels;
            ``spectral_dft``, ``spectral_dct``: Euclidean norm of the token after a high-pass over the grid that keeps
            the radial frequencies above half of Nyquist, by a real DFT or an orthonormal DCT-II;
            ``cosine_neighbours``: 1 - mean cosine to the 4 neighbours (a token at the border is its own neighbour);
            ``cosine_mean``: 1 - cosine to the image's mean token.

    Returns:
        (B, N) float32, or float64 for float64 input.
    """
    if kind not in _SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, not {kind!r}")
    check_tokens(x, grid, 3, "x")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return _SCORES[kind](wide.reshape(-1, grid.height, grid.width, x.shape[2])).reshape(x.shape[:2])


def laplacian(image: Tensor) -> Tensor:
    """The 5-point Laplacian of (B, H, W, C) over H and W, with replicate padding, in the same shape.

    Each of the four neighbours contributes its difference, and none where it lies outside of the grid: this is what
    replicate padding amounts to. So a constant image gives exact zeros.
    """
    result = torch.zeros_like(image)  # and in place from here on: a pass over memory costs more than the arithmetic
    across_rows = image[:, 1:] - image[:, :-1]
    result[:, :-1] += across_rows
    result[:, 1:] -= across_rows
    across_columns = image[:, :, 1:] - image[:, :, :-1]
    result[:, :, :-1] += across_columns
    result[:, :, 1:] -= across_columns
    return result


def _l1_norm(image: Tensor) -> Tensor:
    return image.abs().sum(3)  # several times faster than vector_norm of order 1


def _l2_norm(image: Tensor) -> Tensor:
    return torch.linalg.vector_norm(image, dim=3)


def _above_cutoff(rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Where sqrt((row / height)^2 + (column / width)^2) > CUTOFF, in integers so that no bin depends on rounding."""
    radius = (rows * width)[:, None] ** 2 + (columns * height)[None, :] ** 2
    return radius > math.floor((CUTOFF * height * width) ** 2)


def _spectral_dft(image: Tensor) -> Tensor:
    height, width = image.shape[1:3]
    cycles = torch.arange(height, device=image.device)
    rows = 2 * torch.minimum(cycles, height - cycles)  # Nyquist is half a cycle per token: 2 * cycles = height
    columns = 2 * torch.arange(width // 2 + 1, device=image.device)
    spectrum = torch.fft.rfft2(image, dim=(1, 2))
    spectrum = spectrum * _above_cutoff(rows, columns, height, width)[None, :, :, None]
    return _l2_norm(torch.fft.irfft2(spectrum, s=(height, width), dim=(1, 2)))


def _spectral_dct(image: Tensor) -> Tensor:
    height, width = image.shape[1:3]
    rows, columns = _dct(height, image), _dct(width, image)
    half_cycles = torch.arange(max(height, width), device=image.device)  # Nyquist = length
    keep = _above_cutoff(half_cycles[:height], half_cycles[:width], height, width)
    spectrum = _separable(rows, columns, image) * keep[None, :, :, None]
    return _l2_norm(_separable(rows.T, columns.T, spectrum))


def _separable(rows: Tensor, columns: Tensor, image: Tensor) -> Tensor:
    """Apply one matrix along H and another along W of (B, H, W, C)."""
    return torch.matmul(columns, torch.matmul(rows, image.flatten(2)).view(image.shape))


def _dct(length: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix (frequency, position) in the dtype and on the device of ``like``."""
    step = torch.arange(length, device=like.device)
    # the angle is (2 n + 1) k pi / (2 length); reduced modulo 4 length in integers first, to keep its precision
    turns = ((2 * step[None, :] + 1) * step[:, None]) % (4 * length)
    basis = torch.cos(turns.to(like.dtype) * (math.pi / (2 * length))) * math.sqrt(2 / length)
    return torch.where(step[:, None] == 0, math.sqrt(1 / length), basis)


def _cosine_neighbours(image: Tensor) -> Tensor:
    unit = functional.normalize(image, dim=3)
    itself = unit.square().sum(3)  # 1, or 0 for a zero token
    rows = (unit[:, 1:] * unit[:, :-1]).sum(3)  # cosine across each row boundary
    columns = (unit[:, :, 1:] * unit[:, :, :-1]).sum(3)
    up, down = torch.cat([itself[:, :1], rows], 1), torch.cat([rows, itself[:, -1:]], 1)
    left, right = torch.cat([itself[:, :, :1], columns], 2), torch.cat([columns, itself[:, :, -1:]], 2)
    return 1 - (up + down + left + right) / 4


def _cosine_mean(image: Tensor) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return 1 - (functional.normalize(image, dim=3) * functional.normalize(mean, dim=3)).sum(3)


_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "laplacian_l1": lambda image: _l1_norm(laplacian(image)),
    "laplacian_l2": lambda image: _l2_norm(laplacian(image)),
    "mean_deviation": lambda image: _l2_norm(image - image.mean((1, 2), keepdim=True)),
    "l1_norm": _l1_norm,
    "l2_norm": _l2_norm,
    "channel_variance": lambda image: (image - image.mean(3, keepdim=True)).square().mean(3),
    "spectral_dft": _spectral_dft,
    "spectral_dct": _spectral_dct,
    "cosine_neighbours": _cosine_neighbours,
    "cosine_mean": _cosine_mean,
}
SCORES: tuple[str, ...] = tuple(_SCORES)


def band_of_bin(grid: Grid, bands: int, device: torch.device | None = None) -> Tensor:
    """The band of each bin of the 2-D DFT of a grid: int64 (H, W) in [0, bands).

    A bin's radius is the Euclidean length of its (row, column) frequency in units of Nyquist (half a cycle per
    token). The bands have equal widths over [0, 1]; the corners beyond 1 count to the last, which holds 1 too.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, not {bands}")
    # On the CPU, so that bins on the edge of a band fall to the same side on every device.
    rows = torch.fft.fftfreq(grid.height, d=0.5, dtype=torch.float64)  # d = 0.5: Nyquist is 1
    columns = torch.fft.fftfreq(grid.width, d=0.5, dtype=torch.float64)
    radius = torch.hypot(rows[:, None], columns[None, :])
    return (radius * bands).long().clamp(max=bands - 1).to(device)


def radial_power(x: Tensor, grid: Grid, bands: int) -> Tensor:
    """Power of tokens (B, N, C) by radial frequency, the mean over channels: (B, bands), in at least float32.

    Band 0 is the lowest and contains the mean token; see ``band_of_bin``. By Parseval's theorem the bands sum to the
    mean square of ``x``. A band that contains no bin of a small grid is 0.
    """
    band = band_of_bin(grid, bands, x.device).flatten()  # (N,)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    spectrum = torch.fft.fft2(to_map(wide, grid), norm="ortho").flatten(2)  # (B, C, N)
    power = spectrum.abs().square().mean(dim=1) / grid.tokens  # (B, N)
    members = functional.one_hot(band, bands).to(power.dtype)  # (N, bands); a product is deterministic
    return power @ members
