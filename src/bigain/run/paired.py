"""One method against another of the same run: by how much it is better, paired, with 95% intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import fid, resampled_fid
from bigain.metrics.fidelity import decibels, squared_errors
from bigain.run.store import Store

_RESAMPLES = 200
_CONFIDENCE = 0.95
_MEASURES = ("accuracy", "fid", "psnr")
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """By how much one method is better than another, positive where it is, with its 95% interval.

    Args:
        value, low, high: accuracy as a share, FID, or dB of PSNR.
    """

    value: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method against another, None where it was not measured for both.

    Args:
        method, other: specs.
        accuracy: on the images that both classified (Newcombe 1998).
        fid: the other's minus the method's. The interval is of 200 paired resamples of the generated images, the real
            ones stay (percentile bootstrap, shifted by the bias of the resamples' mean: FID grows as images repeat).
        psnr: to the uncompressed images from the same noise; bootstrap too.
    """

    method: str
    other: str
    accuracy: Gain | None = None
    fid: Gain | None = None
    psnr: Gain | None = None

    @property
    def gains(self) -> dict[str, Gain | None]:
        """By measure."""
        return {name: getattr(self, name) for name in _MEASURES}

    def rounded(self, digits: Callable[[float], float]) -> Comparison:
        """The same with every number rounded by ``digits``."""

        def shorter(gain: Gain | None) -> Gain | None:
            return None if gain is None else Gain(digits(gain.value), digits(gain.low), digits(gain.high))

        return replace(self, accuracy=shorter(self.accuracy), fid=shorter(self.fid), psnr=shorter(self.psnr))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """The reverse of ``dataclasses.asdict``."""
        gains = {name: None if gain is None else Gain(**gain) for name, gain in values.items() if name in _MEASURES}
        return cls(method=values["method"], other=values["other"], **gains)


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
        )

    def accuracy(self, method: str, other: str) -> Gain | None:
        """On the images that both classified."""
        ours, theirs = self._right(method), self._right(other)
        both = [identity for identity in ours if identity in theirs]
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
        return {row.image_id: row.prediction in row.labels for row in self.store.classified(method)}

    def _find_features(self, method: str) -> dict[int, npt.NDArray[np.float32]]:
        return {row.image: row.features for row in self.store.generated(method) if row.features is not None}

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
        found, real = self._features(method), self._reference[1]
        features = np.stack([found[image] for image in images])
        return np.array([fid(real, features), *resampled_fid(real, features, _resamples(len(images)))])

    def _resample_psnrs(self, method: str, images: tuple[int, ...]) -> _Floats:
        """Of all images, then of each resample."""
        found = self._errors(method)
        errors = np.array([found[image] for image in images])
        return decibels(np.array([errors.mean(), *(errors[index].mean() for index in _resamples(len(images)))]))


def compare(store: Store, methods: Iterable[str]) -> list[Comparison]:
    """Each of ``methods`` against every other of the results file but no compression, which its row is compared with.

    It takes 200 FIDs per method of the file: seconds each with 64 features, hours with Inception's 2,048.

    Args:
        methods: canonical specs.

    Raises:
        ValueError: a method that the file does not have.
    """
    known, paired, found = store.methods(), Paired(store), []
    for method in methods:
        if method not in known:
            raise ValueError(f"{method} is not in {store.path}: compare with what it has, {' '.join(known)}")
        for other in known:
            if other not in ("none", method):
                found.append(paired.compare(method, other))
    return found


def _shared(ours: Mapping[int, object], theirs: Mapping[int, object]) -> tuple[int, ...]:
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
