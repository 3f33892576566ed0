"""Noise levels are spread evenly, and shifted with the size."""

from __future__ import annotations

import torch

from levels import levels, shifted


def test_levels_are_even_and_shifted() -> None:
    drawn = levels(1000, 4, torch.Generator().manual_seed(0)).sort().values
    uniform = (torch.arange(1000) + 0.5) / 1000
    torch.testing.assert_close(drawn, 4 * uniform / (1 + 3 * uniform), atol=2e-3, rtol=0)


def test_a_shift_is_that_of_the_noise_of_averages() -> None:
    level = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    noise = (level / (1 - level)) * 3  # of each pixel, where averages of nine have that of `level`
    torch.testing.assert_close(shifted(level, 3), noise / (1 + noise))
    torch.testing.assert_close(shifted(shifted(level, 2), 3), shifted(level, 6))
