"""How far a set of generated images lies from a reference set, in the features of a network.

FID, KID and the Inception score are torchmetrics'; precision and recall are computed here. Their values compare
only at the same feature network, reference set and sample counts, so every result carries them.

``network`` says what the arrays are. A string names the network that the given features (N, D) come from. A module
is the network itself, applied here to uint8 images (N, H, W, 3): it maps uint8 (B, 3, H, W) to (B, D) and does
its own resizing, which is torchmetrics' convention. torchmetrics' Inception v3 fits
(``NoTrainInceptionV3("inception-v3-compat", ["2048"])`` of ``torchmetrics.image.fid``; it needs torch-fidelity).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

_LARGEST_SUBSET = 1000  # of KID, as in Binkowski et al. 2018


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a value of this file depends on besides the generated images themselves.

    Args:
        network: the feature network's name.
        dimensions: of its features.
        reference: number of reference images; 0 where none are needed.
        generated: number of generated images.
    """

    network: str
    dimensions: int
    reference: int
    generated: int


@dataclass(frozen=True, kw_only=True)
class FrechetDistance(Provenance):
    """FID: squared Wasserstein-2 distance of two Gaussians fitted to the features; lower is better."""

    value: float

    @property
    def few_samples(self) -> bool:
        """Whether a set has too few images for its covariance to have full rank: no more than dimensions."""
        return min(self.reference, self.generated) <= self.dimensions

    @property
    def note(self) -> str:
        """A caution for the reader of a table; empty where none is due."""
        if not self.few_samples:
            return ""
        return (
            f"few samples: {self.reference} reference and {self.generated} generated images for {self.dimensions}"
            " feature dimensions; biased upwards, compares only at equal counts"
        )


@dataclass(frozen=True, kw_only=True)
class KernelDistance(Provenance):
    """KID: unbiased squared MMD, mean and standard deviation over subsets; lower is better, may be negative."""

    value: float
    deviation: float
    subsets: int
    subset_size: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class InceptionStatistic(Provenance):
    """Inception score in [1, K]: mean and standard deviation over splits (``None`` for one split); higher is better."""

    value: float
    deviation: float | None
    splits: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall(Provenance):
    """Precision: share of generated images in the reference's manifold; recall: the reverse. Both in [0, 1]."""

    precision: float
    recall: float
    neighbours: int


def extract(images: np.ndarray, network: nn.Module, batch_size: int = 64) -> np.ndarray:
    """Features of images by a network in evaluation mode.

    Args:
        images: uint8 (N, H, W, 3), N >= 1.
        network: maps uint8 (B, 3, H, W) to (B, D), on the device of its first parameter (the CPU if it has none).

    Returns:
        float64 (N, D).

    Raises:
        ValueError: the images are no such array, or the network is in training mode.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(f"images must be uint8 (N >= 1, H, W, 3), not {images.dtype} {images.shape}")
    if network.training:
        raise ValueError(f"{network_name(network)} is in training mode: call its eval() first")
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size]))  # a copy: see _features
            rows.append(network(batch.permute(0, 3, 1, 2).to(device)).double().cpu().numpy())
    return np.concatenate(rows)


def network_name(network: str | nn.Module) -> str:
    """The name that results carry: the string, the module's own ``network``, or its class."""
    if isinstance(network, str):
        return network
    own = getattr(network, "network", None)
    return own if isinstance(own, str) else type(network).__name__


def fid(reference: np.ndarray, generated: np.ndarray, network: str | nn.Module) -> FrechetDistance:
    """Frechet Inception distance (Heusel et al. 2017) by torchmetrics, in float64.

    Defined with 2 images or more per set. With no more images than dimensions the covariance is singular and the
    value biased upwards; the result's ``note`` says so.

    Args:
        reference, generated: features (N, D), or uint8 images (N, H, W, 3) if ``network`` is a module.

    Raises:
        ValueError: fewer than 2 images, features that are not finite, or of different dimensions.
    """
    real, fake = _pair(reference, generated, network, least=2)
    [value] = _frechet(real, [fake])
    return FrechetDistance(value=value, **_provenance(real, fake, network))


def resampled_fid(
    reference: np.ndarray, generated: np.ndarray, network: str | nn.Module, resamples: Sequence[np.ndarray]
) -> list[float]:
    """``fid`` of other selections of the generated images, as a bootstrap takes them; the reference stays.

    Args:
        reference, generated: as ``fid``.
        resamples: int64 numbers of generated images, 2 or more each; a number may occur several times.

    Returns:
        One FID for each.

    Raises:
        ValueError: as ``fid``, or a selection of fewer than 2 images.
    """
    real, fake = _pair(reference, generated, network, least=2)
    if any(len(index) < 2 for index in resamples):
        raise ValueError("a resample must have 2 images at least")
    return list(_frechet(real, (fake[torch.as_tensor(index)] for index in resamples)))


def kid(
    reference: np.ndarray,
    generated: np.ndarray,
    network: str | nn.Module,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
) -> KernelDistance:
    """Kernel Inception distance (Binkowski et al. 2018), cubic kernel, by torchmetrics, in float64.

    Unbiased for independent samples. Sets with exactly as many images of each class are more alike than those, which
    shifts it down by a constant over the number of images: compare it at equal counts there.

    Args:
        reference, generated: features (N, D), or uint8 images (N, H, W, 3) if ``network`` is a module.
        subsets: how many random subsets are averaged.
        subset_size: images in each; ``None`` is 1,000, or the smaller set where that has fewer.
        seed: of the subsets; the global random state is left as it was.

    Raises:
        ValueError: as ``fid``; ``subsets`` is below 1, or ``subset_size`` outside [2, the smaller set's count].
    """
    real, fake = _pair(reference, generated, network, least=2)
    smaller = min(len(real), len(fake))
    size = min(_LARGEST_SUBSET, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ValueError(f"subset_size must lie in [2, {smaller}] for {smaller} images in the smaller set, not {size}")
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, not {subsets}")
    with _seeded(seed), _without_buffer_warning():
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=subsets, subset_size=size)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        mean, deviation = metric.compute()
    return KernelDistance(
        value=float(mean),
        deviation=float(deviation),
        subsets=subsets,
        subset_size=size,
        seed=seed,
        **_provenance(real, fake, network),
    )


def inception_score(
    logits: np.ndarray, network: str | nn.Module, *, splits: int = 1, seed: int = 0
) -> InceptionStatistic:
    """Inception score (Salimans et al. 2016) by torchmetrics, in float64.

    Args:
        logits: a classifier's unnormalised log-probabilities (N, K) of the generated images; or the images, uint8
            (N, H, W, 3), if ``network`` is a module, which then must give logits.
        splits: random parts that are scored apart and averaged. 1 is what Barratt and Sharma 2018 advise: the score
            of a part is at most its number of images. Much of the literature has 10.
        seed: of the parts; the global random state is left as it was.

    Raises:
        ValueError: ``splits`` lies outside [1, N], or the logits are not finite.
    """
    given = _features("logits", logits, network, least=1)
    if not 1 <= splits <= len(given):
        raise ValueError(f"splits must lie in [1, {len(given)}], not {splits}")
    with _seeded(seed), _without_buffer_warning():
        metric = InceptionScore(feature=_Given(given.shape[1]), splits=splits)
        metric.update(given)
        mean, deviation = metric.compute()
    return InceptionStatistic(
        value=float(mean),
        deviation=float(deviation) if splits > 1 else None,
        splits=splits,
        seed=seed,
        network=network_name(network),
        dimensions=given.shape[1],
        reference=0,
        generated=len(given),
    )


def precision_recall(
    reference: np.ndarray, generated: np.ndarray, network: str | nn.Module, *, neighbours: int = 3
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, section 2), by exact distances in float64.

    A set's manifold is the union of the balls around its images that reach to their ``neighbours``-th nearest
    other image of the set.

    Args:
        reference, generated: features (N, D), or uint8 images (N, H, W, 3) if ``network`` is a module.

    Raises:
        ValueError: as ``fid``; ``neighbours`` lies outside [1, the smaller set's count - 1].
    """
    real, fake = _pair(reference, generated, network, least=2)
    smaller = min(len(real), len(fake))
    if not 1 <= neighbours < smaller:
        raise ValueError(f"neighbours must lie in [1, {smaller - 1}] for {smaller} images, not {neighbours}")
    return PrecisionRecall(
        precision=_share_inside(fake, real, _radii(real, neighbours)),
        recall=_share_inside(real, fake, _radii(fake, neighbours)),
        neighbours=neighbours,
        **_provenance(real, fake, network),
    )


class _Counts(TypedDict):
    """The fields of ``Provenance``."""

    network: str
    dimensions: int
    reference: int
    generated: int


class _Given(nn.Module):
    """Stands where torchmetrics wants a feature network, for features that are there already."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions

    def forward(self, features: Tensor) -> Tensor:
        return features


def _frechet(real: Tensor, fakes: Iterable[Tensor]) -> Iterator[float]:
    """FID of several sets to one."""
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), reset_real_features=False)
    metric.update(real, real=True)
    for fake in fakes:
        metric.update(fake, real=False)
        # Not below 0 in exact arithmetic, but by a rounding error where the sets are alike.
        yield max(0.0, float(metric.compute()))
        metric.reset()


def _features(name: str, values: np.ndarray, network: str | nn.Module, least: int) -> Tensor:
    """Checked features float64 (N, D)."""
    if isinstance(network, nn.Module):
        values = extract(values, network)
    values = np.array(values, dtype=np.float64)  # a copy: PyTorch warns of read-only memory
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{name} must be features (N, D), not of shape {values.shape}")
    if len(values) < least:
        raise ValueError(f"{name} must hold at least {least} images, not {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite: {int((~np.isfinite(values)).any(axis=1).sum())} rows are not")
    return torch.from_numpy(values)


def _pair(reference: np.ndarray, generated: np.ndarray, network: str | nn.Module, least: int) -> tuple[Tensor, Tensor]:
    real = _features("reference", reference, network, least)
    fake = _features("generated", generated, network, least)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"reference has {real.shape[1]} feature dimensions, generated {fake.shape[1]}")
    return real, fake


def _provenance(real: Tensor, fake: Tensor, network: str | nn.Module) -> _Counts:
    return _Counts(network=network_name(network), dimensions=real.shape[1], reference=len(real), generated=len(fake))


def _distances(queries: Tensor, points: Tensor) -> Iterator[Tensor]:
    """Euclidean distances (B, P) of successive batches of ``queries`` to ``points``."""
    for start in range(0, len(queries), 256):
        # Differences, not inner products: those lose the small distances to cancellation.
        yield torch.cdist(queries[start : start + 256], points, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """Distance of each point to its ``neighbours``-th nearest other point: (N, D) to (N,)."""
    # The nearest of all is the point itself, at distance 0, hence + 1.
    return torch.cat([d.kthvalue(neighbours + 1, dim=1).values for d in _distances(points, points)])


def _share_inside(queries: Tensor, points: Tensor, radii: Tensor) -> float:
    inside = torch.cat([(d <= radii).any(dim=1) for d in _distances(queries, points)])
    return float(inside.double().mean())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torchmetrics draws from PyTorch's global CPU generator: seeded here for a while, then put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _without_buffer_warning() -> Iterator[None]:
    """torchmetrics warns that features are kept in memory, where they are already, and PyTorch of a one-split std."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom", category=UserWarning)
        yield
