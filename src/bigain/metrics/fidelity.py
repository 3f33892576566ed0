"""How close images come to others of the same noise, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

_PEAK = 255.0
_SSIM_MARGIN = 5  # pixels that the 11 x 11 window reaches beyond its centre


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image, 10 log10(255^2 / MSE).

    Args:
        a, b: uint8 (N, H, W, C); the MSE is over H, W and C.

    Returns:
        float64 (N,) in dB; infinite where the two images are equal. Do not average it: see ``mean_psnr``.
    """
    return decibels(squared_errors(a, b))


def mean_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of the squared error averaged over all images.

    One pair of equal images would make the mean of the PSNRs infinite; this stays finite unless all pairs are
    equal, and no image is left out. It never exceeds the mean of the PSNRs.

    Args:
        a, b: uint8 (N, H, W, C).
    """
    return float(decibels(squared_errors(a, b).mean()))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of each image, by torchmetrics.

    Gaussian window of standard deviation 1.5 (11 x 11), reflected borders, averaged over pixels and channels.

    Args:
        a, b: uint8 (N, H, W, C), H and W at least 6.

    Returns:
        float64 (N,) in [-1, 1]; 1 where the two images are equal.
    """
    _check(a, b)
    if min(a.shape[1:3]) <= _SSIM_MARGIN:
        raise ValueError(f"images must be at least {_SSIM_MARGIN + 1} pixels high and wide, not {a.shape[1:3]}")
    first, second = (torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2) for x in (a, b))
    values = structural_similarity_index_measure(first, second, reduction="none", data_range=_PEAK)
    assert isinstance(values, torch.Tensor)  # a pair only with return_full_image
    result: np.ndarray = values.numpy()
    return result


def squared_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of images uint8 (N, H, W, C): float64 (N,)."""
    _check(a, b)
    errors: np.ndarray = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(1, 2, 3))
    return errors


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of mean squared errors; infinite where there is none."""
    with np.errstate(divide="ignore"):  # equal images: infinite, as documented
        found: np.ndarray = 10 * np.log10(_PEAK**2 / squared_error)
    return found


def _check(a: np.ndarray, b: np.ndarray) -> None:
    for name, images in (("a", a), ("b", b)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise ValueError(f"{name} must be uint8 images (N >= 1, H, W, C), not {images.dtype} {images.shape}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, not {a.shape} and {b.shape}")
