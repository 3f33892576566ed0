"""PSNR against its definition, pixel by pixel."""

from __future__ import annotations

from math import log10

import numpy as np
import pytest
import torch
from torchmetrics.image import PeakSignalNoiseRatio

from bigain.metrics.fidelity import mean_psnr, psnr


def images(count: int, height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def near(a: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-20, 21, a.shape)
    return np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8)


def test_psnr_image_by_image():
    a = images(3, 7, 9, 0)
    b = near(a, 1)
    for value, x, y in zip(psnr(a, b), a.tolist(), b.tolist(), strict=True):
        squares = [
            (u - v) ** 2
            for row_x, row_y in zip(x, y, strict=True)
            for pixel_x, pixel_y in zip(row_x, row_y, strict=True)
            for u, v in zip(pixel_x, pixel_y, strict=True)
        ]
        assert value == pytest.approx(10 * log10(255**2 / (sum(squares) / len(squares))))


def test_psnr_of_a_constant_difference_in_closed_form():
    a = np.full((1, 4, 4, 3), 100, dtype=np.uint8)
    assert psnr(a, a + 5)[0] == pytest.approx(20 * log10(255 / 5))
    assert psnr(a + 5, a)[0] == pytest.approx(20 * log10(255 / 5))  # unsigned subtraction would wrap around


def test_equal_images_are_infinite_alone_and_finite_among_others():
    a = images(2, 8, 8, 0)
    b = a.copy()
    b[1] = near(a, 1)[1]
    values = psnr(a, b)
    assert np.isinf(values[0])
    assert np.isfinite(values[1])
    assert mean_psnr(a, b) == pytest.approx(values[1] + 10 * log10(2))  # half of its squared error
    assert mean_psnr(a, a) == np.inf


def test_mean_psnr_is_torchmetrics_psnr_of_the_whole_set():
    a = images(4, 8, 8, 0)
    b = near(a, 1)
    expected = PeakSignalNoiseRatio(data_range=255.0)(torch.from_numpy(b).double(), torch.from_numpy(a).double())
    assert mean_psnr(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert mean_psnr(a, b) <= psnr(a, b).mean()


@pytest.mark.parametrize("measure", [psnr, mean_psnr])
def test_bad_images_are_refused(measure):
    a = images(2, 8, 8, 0)
    with pytest.raises(ValueError, match="one shape"):
        measure(a, a[:1])
    with pytest.raises(ValueError, match=r"b must be uint8 images.*float64"):
        measure(a, a / 255)
    with pytest.raises(ValueError, match="a must be uint8 images"):
        measure(a[0], a)
    with pytest.raises(ValueError, match="a must be uint8 images"):
        measure(a[:0], a[:0])
