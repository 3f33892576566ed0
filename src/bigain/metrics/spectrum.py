"""Where on the frequency axis the energy of tokens on a grid lies: what balanced retention is about."""

from __future__ import annotations

import torch
from torch import Tensor

from bigain.operators.grid import Grid, to_map


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
    """Power of tokens by radial frequency, the mean over channels.

    Band 0 is the lowest and contains the mean token. By Parseval's theorem the bands sum to the mean square of ``x``.
    A band that contains no bin of a small grid is 0.

    Args:
        x: tokens (B, N, C), N = ``grid.tokens``.
        bands: number of bands, at least 1; see ``band_of_bin``.

    Returns:
        (B, bands), float64 for float64 ``x``, else float32.

    Raises:
        ValueError: N is not the grid's, or ``bands`` is below 1.
    """
    if x.ndim != 3 or x.shape[1] != grid.tokens:
        raise ValueError(f"x must be (B, {grid.tokens}, C) for a grid of {grid.height} x {grid.width}, not {x.shape}")
    band = band_of_bin(grid, bands, x.device).flatten()  # (N,)
    values = x if x.dtype == torch.float64 else x.float()
    spectrum = torch.fft.fft2(to_map(values, grid), norm="ortho").flatten(2)  # (B, C, N)
    power = spectrum.abs().square().mean(dim=1) / grid.tokens  # (B, N)
    members = torch.nn.functional.one_hot(band, bands).to(power.dtype)  # (N, bands); a product is deterministic
    banded: Tensor = power @ members
    return banded
