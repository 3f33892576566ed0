"""Radial power against a DFT written out, and against waves whose band is known."""

from __future__ import annotations

from cmath import exp, pi
from math import cos, hypot

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.metrics.spectrum import band_of_bin, radial_power
from bigain.operators.grid import Grid

grids = st.builds(Grid, height=st.integers(1, 9), width=st.integers(1, 9))


def tokens(batch: int, grid: Grid, channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid.tokens, channels, generator=generator, dtype=torch.float64)


def slow_radial_power(x: torch.Tensor, grid: Grid, bands: int) -> torch.Tensor:
    height, width = grid.height, grid.width
    power = torch.zeros(x.shape[0], bands, dtype=torch.float64)
    for b in range(x.shape[0]):
        for u in range(height):
            for v in range(width):
                fy = (u if u < (height + 1) // 2 else u - height) / height * 2  # in units of Nyquist
                fx = (v if v < (width + 1) // 2 else v - width) / width * 2
                band = min(int(hypot(fy, fx) * bands), bands - 1)
                for c in range(x.shape[2]):
                    coefficient = sum(
                        float(x[b, i * width + j, c]) * exp(-2j * pi * (u * i / height + v * j / width))
                        for i in range(height)
                        for j in range(width)
                    )
                    power[b, band] += abs(coefficient) ** 2 / (height * width) ** 2 / x.shape[2]
    return power


@settings(max_examples=12, deadline=None)
@given(st.builds(Grid, height=st.integers(1, 5), width=st.integers(1, 5)), st.integers(1, 4), st.integers(0, 9))
def test_radial_power_is_the_dft_summed_bin_by_bin(grid, bands, seed):
    x = tokens(2, grid, 2, seed)
    torch.testing.assert_close(radial_power(x, grid, bands), slow_radial_power(x, grid, bands), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(grids, st.integers(1, 6), st.integers(0, 9))
def test_bands_sum_to_the_mean_square(grid, bands, seed):
    x = tokens(3, grid, 4, seed)
    power = radial_power(x, grid, bands)
    torch.testing.assert_close(power.sum(dim=1), x.square().mean(dim=(1, 2)))
    assert (power >= 0).all()


def test_a_wave_lies_in_its_band_and_a_constant_in_the_lowest():
    grid = Grid(16, 16)
    for cycles, band in ((0, 0), (1, 0), (3, 1), (5, 2), (7, 3), (8, 3)):
        wave = torch.tensor([cos(2 * pi * cycles * j / 16) for _ in range(16) for j in range(16)])
        power = radial_power(wave.view(1, 256, 1), grid, 4)[0]
        assert power.argmax() == band
        assert power[band] == pytest.approx(float(power.sum()), rel=1e-5)


def test_rows_and_columns_are_not_exchanged():
    grid = Grid(4, 8)
    stripes = torch.tensor([1.0, -1.0]).repeat(16).view(1, 32, 1)  # alternates along each row: Nyquist
    assert radial_power(stripes, grid, 8)[0, 7] == pytest.approx(1.0)
    slow = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat_interleave(8).view(1, 32, 1)  # one cycle down the 4 rows
    assert radial_power(slow, grid, 8)[0, 4] == pytest.approx(1.0)


def test_low_precision_is_reduced_in_float32():
    grid = Grid(6, 5)
    x = tokens(2, grid, 3, 0).to(torch.bfloat16)
    power = radial_power(x, grid, 3)
    assert power.dtype == torch.float32
    torch.testing.assert_close(power, radial_power(x.double(), grid, 3).float())


def test_bad_input_is_refused():
    grid = Grid(4, 4)
    with pytest.raises(ValueError, match="bands must be at least 1, not 0"):
        band_of_bin(grid, 0)
    with pytest.raises(ValueError, match=r"\(B, 16, C\) for a grid of 4 x 4"):
        radial_power(torch.zeros(1, 15, 2), grid, 3)
