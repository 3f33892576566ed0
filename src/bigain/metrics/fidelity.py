"""How close images come to others of the same noise, pixel by pixel: PSNR."""

from __future__ import annotations

import numpy as np

_PEAK = 255.0


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """10 log10(255^2 / MSE) of each pair of uint8 images (N, H, W, C): float64 (N,) in dB.

    Infinite where the two images are equal, so do not average it: see ``mean_psnr``.
    """
    return decibels(squared_errors(a, b))


def mean_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of the squared error averaged over all pairs of uint8 images (N, H, W, C).

    One pair of equal images would make the mean of the PSNRs infinite; this stays finite unless all pairs are
    equal, and no image is left out. It never exceeds the mean of the PSNRs.
    """
    return float(decibels(squared_errors(a, b).mean()))


def squared_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of images uint8 (N, H, W, C): float64 (N,)."""
    _check(a, b)
    errors: np.ndarray = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(1, 2, 3))
    return errors


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of mean squared errors; infinite where there is none."""
    with np.errstate(divide="ignore"):  # equal images: infinite, as documented
        ratio: np.ndarray = 10 * np.log10(_PEAK**2 / squared_error)
    return ratio


def _check(a: np.ndarray, b: np.ndarray) -> None:
    for name, images in (("a", a), ("b", b)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise ValueError(f"{name} must be uint8 images (N >= 1, H, W, C), not {images.dtype} {images.shape}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, not {a.shape} and {b.shape}")
