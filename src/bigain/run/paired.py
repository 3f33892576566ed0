"""One method against another of the same run: by how much it is better, paired, with 95% intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import fid, resampled_fid
from bigain.metrics.fidelity import decibels, squared_errors
from bigain.run.results import Comparison, Gain
from bigain.run.store import Generated, Store

_RESAMPLES = 200
_CONFIDENCE = 0.95
_Key = TypeVar("_Key")  # of an image: its name, or its number
_Floats = npt.NDArray[np.float64]


class Paired:
    """Compares methods of a results file; keeps what it read and resampled, so that many pairs cost little more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._reference = store.reference()
        self._right = cache(self._find_right)
        self._features = cache(self._find_features)
        self._errors = cache(self._find_errors)
        self._fids = cache(self._resample_fids)
        self._psnrs = cache(self._resample_psnrs)

    def compare(self, method: str, other: str) -> Comparison:
        """All measures of two methods."""
        return Comparison(
            method=method,
            other=other,
            accuracy=self.accuracy(method, other),
            fid=self.fid(method, other),
            psnr=self.psnr(method, other),
            classified=len(_shared(self._right(method), self._right(other))),
            generated=len(self.store.generated_images(method) & self.store.generated_images(other)),
        )

    def accuracy(self, method: str, other: str) -> Gain | None:
        """On the images that both classified."""
        ours, theirs = self._right(method), self._right(other)
        both = _shared(ours, theirs)
        if not both:
            return None
        return Gain(*paired_difference([ours[image] for image in both], [theirs[image] for image in both]))

    def fid(self, method: str, other: str) -> Gain | None:
        """On the images that both generated."""
        both = _shared(self._features(method), self._features(other))
        if self._reference is None or len(both) < 2:
            return None
        return _gain(self._fids(other, both) - self._fids(method, both))

    def psnr(self, method: str, other: str) -> Gain | None:
        """On the images that both and no compression generated; nothing where one of them left these as they were."""
        both = _shared(self._errors(method), self._errors(other))
        if not both:
            return None
        difference = self._psnrs(method, both) - self._psnrs(other, both)
        return _gain(difference) if np.isfinite(difference).all() else None

    @cached_property
    def _plain(self) -> dict[int, npt.NDArray[np.uint8]]:
        return {row.image: row.pixels for row in self.store.generated("none")}

    def _find_right(self, method: str) -> dict[str, bool]:
        return {row.id: row.prediction in row.labels for row in self.store.classified(method)}

    def _find_features(self, method: str) -> dict[int, npt.NDArray[np.float32]]:
        return features_of(self.store.generated(method), method)

    def _find_errors(self, method: str) -> dict[int, float]:
        """Mean squared error of each image to that of no compression."""
        plain = self._plain
        both = [row for row in self.store.generated(method) if row.image in plain]
        if not both:
            return {}
        errors = squared_errors(np.stack([row.pixels for row in both]), np.stack([plain[row.image] for row in both]))
        return {row.image: float(error) for row, error in zip(both, errors, strict=True)}

    def _resample_fids(self, method: str, images: tuple[int, ...]) -> _Floats:
        """Of all images, then of each resample."""
        assert self._reference is not None  # asked before
        kept, real = self._features(method), self._reference[1]
        features = np.stack([kept[image] for image in images])
        return np.array([fid(real, features), *resampled_fid(real, features, _resamples(len(images)))])

    def _resample_psnrs(self, method: str, images: tuple[int, ...]) -> _Floats:
        """Of all images, then of each resample."""
        kept = self._errors(method)
        errors = np.array([kept[image] for image in images])
        return decibels(np.array([errors.mean(), *(errors[index].mean() for index in _resamples(len(images)))]))


def compare(store: Store, methods: Iterable[str]) -> list[Comparison]:
    """Each of ``methods`` against every other of the results file but no compression, which its row is compared with.

    It takes 200 FIDs per method of the file: seconds each with 64 features, hours with Inception's 2,048.

    Args:
        methods: canonical specs.

    Raises:
        ValueError: a method that the file does not have.
    """
    measured, paired, comparisons = store.methods(), Paired(store), []
    for method in methods:
        if method not in measured:
            raise ValueError(f"--against must name methods of {store.path}, {' '.join(measured)}, not {method}")
        comparisons += [paired.compare(method, other) for other in measured if other not in ("none", method)]
    return comparisons


def features_of(rows: Iterable[Generated], method: str) -> dict[int, npt.NDArray[np.float32]]:
    """Features by image; empty where a method's images were generated without.

    Raises:
        ValueError: some images have features and some lack them, or have other sizes; names the first such.
    """
    features = {row.image: row.features for row in rows}
    sizes = {None if one is None else one.shape for one in features.values()}
    if sizes <= {None}:
        return {}
    usual = next(one.shape for one in features.values() if one is not None)
    for image, one in features.items():
        if one is None or one.shape != usual:
            size = "none" if one is None else f"{len(one)}"
            raise ValueError(f"image {image} of {method} must have {usual[0]} features as the others, not {size}")
    return {image: one for image, one in features.items() if one is not None}


def _shared(ours: Mapping[_Key, object], theirs: Mapping[_Key, object]) -> tuple[_Key, ...]:
    return tuple(image for image in ours if image in theirs)


def _resamples(count: int) -> list[npt.NDArray[np.int64]]:
    """The same for all methods, which pairs them."""
    rng = np.random.default_rng(0)
    return [rng.integers(count, size=count) for _ in range(_RESAMPLES)]


def _gain(values: _Floats) -> Gain:
    """Of all images, with the percentiles of the resamples, less the bias of their mean."""
    value, resampled = float(values[0]), values[1:]
    low, high = np.quantile(resampled, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]) - (resampled.mean() - value)
    return Gain(value, float(low), float(high))
