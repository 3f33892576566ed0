"""What a results file comes to: a row per method, and one method against another; no model, no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bigain.metrics.accuracy import (
    accuracy_interval,
    calibration_error,
    mcnemar,
    mean_per_class_accuracy,
    paired_difference,
    per_class_map,
    per_image_ap,
)
from bigain.metrics.distribution import decibels, fid, kid, precision_recall, resampled_fid, squared_errors
from bigain.run.files import identity_hash
from bigain.run.outcomes import Outcome, outcomes
from bigain.run.results import Comparison, Gain, Results, Row, Timing, Timings
from bigain.run.store import Floats, Generated, Store

_DIGITS = 6  # significant, of what is exported: beyond them there is only rounding
_NEIGHBOURS = 3  # of precision and recall, as in Kynkaanniemi et al. 2019
_RESAMPLES = 200
_TAILS = (0.025, 0.975)  # of a 95% interval
_Key = TypeVar("_Key")  # of an image: its name, or its number
_Doubles = npt.NDArray[np.float64]


def summarise(store: Store, against: Sequence[str] = ()) -> Results:
    """Everything that a results file holds, finished or not; ``against``: methods to ``compare`` with the others."""
    real = store.reference()
    return Results(
        hash=identity_hash(store.identity),
        settings=store.identity,
        facts=store.facts,
        versions=store.versions(),
        commands=store.commands(),
        reference=None if real is None else real[0],
        rows=_rows(store, None if real is None else real[1]),
        comparisons=tuple(one.rounded(_rounded) for one in compare(store, against)),
    )


def _rows(store: Store, real: Floats | None) -> tuple[Row, ...]:
    """One per method, each against no compression."""
    flops = store.flops()
    plain = {one.id: one for one in outcomes(store, "none")}
    rows = []
    for spec in store.methods():
        values: dict[str, Any] = {"flops": flops.get(spec)}
        classified = [*plain.values()] if spec == "none" else outcomes(store, spec)
        generated = [replace(row, file=b"") for row in store.generated(spec)]  # the files of all are too much to hold
        if classified:
            values |= _classification(classified, multi_label=store.facts["multi_label"])
        if generated:
            values |= _generation(generated, real, spec)
        if spec != "none":
            values |= _change(classified, plain) | _fidelity(store, spec)
            if spec in flops and "none" in flops:
                values["flops_change"] = flops[spec] / flops["none"] - 1
        rows.append(Row(method=spec, **{name: _rounded(value) for name, value in values.items()}))
    return tuple(rows)


def timings(store: Store) -> Timings:
    """What was timed; without methods where nothing was."""
    environment, milliseconds = store.timing()
    methods = {}
    for spec in store.methods():
        if spec in milliseconds:
            low, middle, high = (_rounded(float(q)) for q in np.quantile(milliseconds[spec], (0.25, 0.5, 0.75)))
            methods[spec] = Timing(median=middle, low=low, high=high, forwards=len(milliseconds[spec]))
    return Timings(environment=environment, methods=methods)


def _classification(images: Sequence[Outcome], multi_label: bool) -> dict[str, Any]:
    right, count = [one.right for one in images], len(images)
    correct = sum(right)
    low, high = accuracy_interval(correct, count)
    values: dict[str, Any] = {"classified": count, "correct": correct}
    values["forwards"] = float(np.mean([one.forwards for one in images]))
    values |= {"accuracy": correct / count, "accuracy_low": low, "accuracy_high": high}
    if multi_label:
        labels, rankings = [one.labels for one in images], [one.ranking for one in images]
        places = np.stack([np.argsort(own).astype(np.int32) for own in rankings])  # (N, K): of each class, best 0
        values["class_map"] = per_class_map(-places, labels)
        values["image_ap"] = float(np.mean(per_image_ap(rankings, labels)))
    else:
        true = [one.labels[0] for one in images]
        values["class_accuracy"] = mean_per_class_accuracy([one.prediction for one in images], true)
        values["calibration_error"] = calibration_error([one.confidence for one in images], right)
    return values


def _change(images: Sequence[Outcome], plain: Mapping[str, Outcome]) -> dict[str, Any]:
    """Against no compression, on the images that both classified."""
    both = [one for one in images if one.id in plain]
    if not both:
        return {}
    ours, theirs = [one.right for one in both], [plain[one.id].right for one in both]
    change, low, high = paired_difference(ours, theirs)
    compared = {"change": change, "change_low": low, "change_high": high}
    return {**compared, "change_images": len(both), "mcnemar_p": mcnemar(ours, theirs)}


def _generation(rows: Sequence[Generated], real: Floats | None, spec: str) -> dict[str, Any]:
    values: dict[str, Any] = {"generated": len(rows)}
    features = list(features_of(rows, spec).values())
    fewest = 0 if real is None else min(len(features), len(real))
    if real is not None and fewest >= 2:
        ours = np.stack(features)
        values["fid"] = fid(real, ours)
        values["kid"], values["kid_deviation"] = kid(real, ours)
        if fewest > _NEIGHBOURS:
            values["precision"], values["recall"] = precision_recall(real, ours, _NEIGHBOURS)
    seen = [row.recognised == row.label for row in rows if row.recognised is not None and row.label is not None]
    if seen:
        low, high = accuracy_interval(sum(seen), len(seen))
        values |= {"recognised": sum(seen) / len(seen), "recognised_low": low, "recognised_high": high}
    return values


def _fidelity(store: Store, spec: str) -> dict[str, Any]:
    """To the images of no compression, on those that both generated."""
    errors = np.array([*_squared_errors(store, spec).values()])
    if not len(errors):
        return {}
    psnr = float(decibels(errors.mean()))  # infinite: the very same images
    return {"psnr": psnr if np.isfinite(psnr) else None, "psnr_images": len(errors)}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


class Paired:
    """Compares methods of a results file; keeps what it read and resampled, so that many pairs cost little more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._reference = store.reference()
        self._right = cache(lambda method: {row.id: row.prediction in row.labels for row in store.classified(method)})
        self._features = lru_cache(2)(lambda method: features_of(store.generated(method), method))  # of a pair
        self._errors = cache(lambda method: _squared_errors(store, method))
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

    def _resample_fids(self, method: str, images: tuple[int, ...]) -> _Doubles:
        """Of all images, then of each resample."""
        assert self._reference is not None  # asked before
        kept, real = self._features(method), self._reference[1]
        features = np.stack([kept[image] for image in images])
        return np.array([fid(real, features), *resampled_fid(real, features, _resamples(len(images)))])

    def _resample_psnrs(self, method: str, images: tuple[int, ...]) -> _Doubles:
        """Of all images, then of each resample."""
        kept = self._errors(method)
        errors = np.array([kept[image] for image in images])
        return decibels(np.array([errors.mean(), *(errors[index].mean() for index in _resamples(len(images)))]))


def compare(store: Store, methods: Iterable[str]) -> list[Comparison]:
    """Each of ``methods`` (canonical specs) against every other of the results file but no compression.

    It takes 200 FIDs per method of the file: seconds each with 64 features, hours with Inception's 2,048.
    ValueError for a method that the file does not have.
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
    known = {image: one for image, one in features.items() if one is not None}
    usual = next((len(one) for one in known.values()), None)
    for image, one in features.items():
        size = "none" if one is None else len(one)
        if known and size != usual:
            raise ValueError(f"image {image} of {method} must have {usual} features as the others, not {size}")
    return known


def _squared_errors(store: Store, method: str) -> dict[int, float]:
    """Mean squared error of each image to that of no compression, where there is one."""
    plain, errors = store.generated("none"), {}
    other = next(plain, None)
    for row in store.generated(method):  # in order, as the others, so that one pair at a time is held
        while other is not None and other.image < row.image:
            other = next(plain, None)
        if other is not None and other.image == row.image:
            errors[row.image] = float(squared_errors(row.frames, other.frames).mean())
    return errors


def _shared(ours: Mapping[_Key, object], theirs: Mapping[_Key, object]) -> tuple[_Key, ...]:
    return tuple(image for image in ours if image in theirs)


def _resamples(count: int) -> list[npt.NDArray[np.int64]]:
    """The same for all methods, which pairs them."""
    rng = np.random.default_rng(0)
    return [rng.integers(count, size=count) for _ in range(_RESAMPLES)]


def _gain(values: _Doubles) -> Gain:
    """Of all images, with the percentiles of the resamples, less the bias of their mean."""
    value, resampled = float(values[0]), values[1:]
    low, high = np.quantile(resampled, _TAILS) - (resampled.mean() - value)
    return Gain(value, float(low), float(high))
