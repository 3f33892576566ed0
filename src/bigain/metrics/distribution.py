"""How far generated images lie from others: from a reference set in features, from their counterparts in pixels.

Features are (N, D), as ``bigain.metrics.features`` makes them; their values compare only at the same feature network,
reference set and counts. FID and KID are torchmetrics'; precision and recall, which it lacks, are computed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # late: tables of finished runs must not wait for torch
    from torch import Tensor

_LARGEST_SUBSET = 1000  # of KID, as in Binkowski et al. 2018
_ROWS = 256  # of a block of distances

Features = np.ndarray | Sequence[Any]


def fid(reference: Features, generated: Features) -> float:
    """Frechet Inception distance (Heusel et al. 2017) of features (N, D), N >= 2, by torchmetrics, in float64.

    Lower is better. With no more images than dimensions the covariance is singular and the value biased upwards.
    """
    real, fake = _pair(reference, generated)
    return _frechet(real, [fake])[0]


def resampled_fid(reference: Features, generated: Features, resamples: Sequence[np.ndarray]) -> list[float]:
    """``fid`` of other selections of the generated images, as a bootstrap takes them; the reference stays.

    A resample is int64 numbers of generated images, 2 or more; a number may occur several times.
    """
    real, fake = _pair(reference, generated)
    for index in resamples:
        if len(index) < 2:
            raise ValueError(f"a resample must have at least 2 images, not {len(index)}")
        if index.min() < 0 or index.max() >= len(fake):
            raise ValueError(f"a resample must number images in [0, {len(fake)}), not {index.min()} to {index.max()}")
    return _frechet(real, (fake[index] for index in resamples))


def kid(
    reference: Features, generated: Features, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Kernel Inception distance (Binkowski et al. 2018), cubic kernel, by torchmetrics, in float64.

    The unbiased squared MMD, its mean and standard deviation over random subsets; lower is better, may be negative.
    Unbiased for independent samples: sets with exactly as many images of each class are more alike than those, which
    shifts it down by a constant over the number of images, so compare it at equal counts there.

    Args:
        reference, generated: (N, D), N >= 2.
        subsets: how many random subsets are averaged.
        subset_size: images in each; ``None`` is 1,000, or the smaller set where that has fewer.
        seed: of the subsets; the global random state is left as it was.
    """
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = _pair(reference, generated)
    smaller = min(len(real), len(fake))
    size = min(_LARGEST_SUBSET, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ValueError(f"subset_size must lie in [2, {smaller}] for {smaller} images in the smaller set, not {size}")
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, not {subsets}")
    # torchmetrics draws from PyTorch's global generator, and warns that features are kept, where they are already.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer", category=UserWarning)
        metric = KernelInceptionDistance(feature=_given(real.shape[1]), subsets=subsets, subset_size=size)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(fake), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def precision_recall(reference: Features, generated: Features, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, section 2), by exact distances in float64.

    A set's manifold is the union of the balls around its images that reach to their ``k``-th nearest other image of
    the set. Precision is the share of the generated images in the reference's manifold, recall the reverse, both in
    [0, 1]; they depend on the counts of both sets. Features are (N, D), N > k.
    """
    real, fake = _pair(reference, generated)
    smaller = min(len(real), len(fake))
    if not 1 <= k < smaller:
        raise ValueError(f"k must lie in [1, {smaller - 1}] for {smaller} images in the smaller set, not {k}")
    return _share_inside(fake, real, _radii(real, k)), _share_inside(real, fake, _radii(fake, k))


def mean_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of the squared error averaged over all pairs of uint8 images (N, H, W, C).

    It never exceeds the mean of the PSNRs, which one pair of equal images would make infinite.
    """
    return float(decibels(squared_errors(a, b).mean()))


def squared_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error of each pair of images uint8 (N, H, W, C): float64 (N,)."""
    for name, images in (("a", a), ("b", b)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise ValueError(f"{name} must be uint8 images (N >= 1, H, W, C), not {images.dtype} {images.shape}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, not {a.shape} and {b.shape}")
    return np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(1, 2, 3))


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of mean squared errors; infinite where there is none."""
    with np.errstate(divide="ignore"):  # equal images: infinite, as documented
        return np.asarray(10 * np.log10(255.0**2 / squared_error))


def _pair(reference: Features, generated: Features) -> tuple[np.ndarray, np.ndarray]:
    real, fake = _checked("reference", reference), _checked("generated", generated)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"generated must have the {real.shape[1]} dimensions of reference, not {fake.shape[1]}")
    return real, fake


def _checked(name: str, features: Features) -> np.ndarray:
    """As float64 (N, D); a copy, since PyTorch warns of read-only memory."""
    missing = sum(row is None for row in features)
    if missing:
        raise ValueError(f"{name} must have features for all {len(features)} images, not none for {missing} of them")
    values = np.array(features, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"{name} must hold at least 2 images, not {len(values)}")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{name} must be features (N, D), not of shape {values.shape}")
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{name} must be finite, not NaN or infinite in {bad} rows")
    return values


def _given(dimensions: int) -> Any:
    """Stands where torchmetrics asks for a feature network: features pass through."""
    from torch import nn

    network = nn.Identity()
    network.num_features = dimensions  # type: ignore[assignment]
    return network


def _frechet(real: np.ndarray, fakes: Iterable[np.ndarray]) -> list[float]:
    """FID of each of ``fakes`` to one set."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_given(real.shape[1]), reset_real_features=False)
    metric.update(torch.from_numpy(real), real=True)
    values = []
    for fake in fakes:
        metric.update(torch.from_numpy(fake), real=False)
        # Not below 0 in exact arithmetic, but by a rounding error where the sets are alike.
        values.append(max(0.0, float(metric.compute())))
        metric.reset()
    return values


def _distances(queries: np.ndarray, points: np.ndarray) -> Iterator[Tensor]:
    """Euclidean distances (B, P) of successive blocks of ``queries`` to ``points``."""
    import torch

    points_ = torch.from_numpy(points)
    for block in torch.from_numpy(queries).split(_ROWS):
        # Differences, not inner products: those lose the small distances to cancellation.
        yield torch.cdist(block, points_, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Distance of each point to its ``k``-th nearest other point: (N, D) to (N,)."""
    # The nearest of all is the point itself, at distance 0, hence + 1.
    return np.concatenate([block.kthvalue(k + 1, dim=1).values.numpy() for block in _distances(points, points)])


def _share_inside(queries: np.ndarray, points: np.ndarray, radii: np.ndarray) -> float:
    """Share of ``queries`` (Q, D) within the radius (P,) of one of ``points`` (P, D)."""
    inside = [(block.numpy() <= radii).any(axis=1) for block in _distances(queries, points)]
    return float(np.concatenate(inside).mean())
