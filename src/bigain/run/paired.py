"""One method against another of the same run: by how much it is better, paired, with 95% intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import decibels, fid, resampled_fid, squared_errors
from bigain.run.results import Comparison, Gain
from bigain.run.store import Generated, Store

_RESAMPLES = 200
_TAILS = (0.025, 0.975)  # of a 95% interval
_Key = TypeVar("_Key")  # of an image: its name, or its number
_Floats = npt.NDArray[np.float64]


class Paired:
    """Compares methods of a results file; keeps what it read and resampled, so that many pairs cost little more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._reference = store.reference()
        self._right = cache(lambda method: {row.id: row.prediction in row.labels for row in store.classified(method)})
        self._features = cache(lambda method: features_of(store.generated(method), method))
        self._errors = cache(self._squared_errors)
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

    def psnr_to_plain(self, method: str) -> Gain | None:
        """PSNR in dB to the images of no compression, on those that both generated; infinite where all are the same."""
        errors = np.array([*self._errors(method).values()])
        if not len(errors):
            return None
        low, high = np.quantile([errors[index].mean() for index in _resamples(len(errors))], _TAILS)
        return Gain(*(float(decibels(error)) for error in (errors.mean(), high, low)))  # a larger error has fewer dB

    @cached_property
    def _plain(self) -> dict[int, npt.NDArray[np.uint8]]:
        return {row.image: row.pixels for row in self.store.generated("none")}

    def _squared_errors(self, method: str) -> dict[int, float]:
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
    """Each of ``methods`` (canonical specs) against every other of the results file but no compression.

    It takes 200 FIDs per method of the file: seconds each with 64 features, hours with Inception's 2,048.

    Raises:
        ValueError: a method that the file does not have.
    """
    measured, paired, comparisons = store.methods(), Paired(store), []
    for method in methods:
        if method not in measured:
            raise ValueError(f"against must name methods of {store.path}, {' '.join(measured)}, not {method}")
        comparisons += [paired.compare(method, other) for other in measured if other not in ("none", method)]
    return comparisons


def features_of(rows: Iterable[Generated], method: str) -> dict[int, npt.NDArray[np.float32]]:
    """Features by image; empty where a method's images have none. ValueError where some do, or of another size."""
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
    low, high = np.quantile(resampled, _TAILS) - (resampled.mean() - value)
    return Gain(value, float(low), float(high))
