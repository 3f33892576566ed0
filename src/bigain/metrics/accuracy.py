"""Accuracy of a classifier: intervals, paired comparison, and ranking measures for several labels per image."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

Truths = Sequence[bool] | np.ndarray  # of N images: whether each was classified rightly


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927), ``(low, high)`` in [0, 1]."""
    from scipy.stats import binomtest  # late: it takes a second

    if total < 1:
        raise ValueError(f"total must be at least 1, not {total}")
    if not 0 <= correct <= total:
        raise ValueError(f"correct must lie in [0, {total}], not {correct}")
    interval = binomtest(int(correct), int(total)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(correct_a: Truths, correct_b: Truths) -> float:
    """Two-sided p-value of McNemar's exact test that A and B are right equally often on the same (N,) images.

    The images on which just one of the two is right fall to A with probability 1/2; without such images p is 1.
    """
    from scipy.stats import binomtest  # late: it takes a second

    _, only_a, only_b, _ = _paired_counts(correct_a, correct_b)
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_difference(correct_a: Truths, correct_b: Truths) -> tuple[float, float, float]:
    """Accuracy of A minus accuracy of B on the same (N,) images, with its 95% interval: ``(difference, low, high)``.

    Method 10 of Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998) 2635-2650: the two Wilson intervals are combined by square-and-add,
    with a continuity-corrected estimate of the correlation between A and B.
    """
    both, only_a, only_b, neither = _paired_counts(correct_a, correct_b)
    total = both + only_a + only_b + neither
    share_a, share_b = (both + only_a) / total, (both + only_b) / total
    low_a, high_a = accuracy_interval(both + only_a, total)
    low_b, high_b = accuracy_interval(both + only_b, total)
    correlation = _corrected_phi(both, only_a, only_b, neither)

    def combined(of_a: float, of_b: float) -> float:
        # max: the sum of squares is zero where both terms are equal and fully correlated, less a rounding error
        return sqrt(max(0.0, of_a**2 - 2 * correlation * of_a * of_b + of_b**2))

    difference = (only_a - only_b) / total
    below, above = combined(share_a - low_a, high_b - share_b), combined(high_a - share_a, share_b - low_b)
    return difference, difference - below, difference + above


def _paired_counts(correct_a: Truths, correct_b: Truths) -> tuple[int, int, int, int]:
    """How many images both, only A, only B and neither got right."""
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"correct_a and correct_b must be equally long and not empty, not {a.shape} and {b.shape}")
    for name, values in (("correct_a", a), ("correct_b", b)):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{name} must hold truth values (or 0 and 1), not {np.unique(values)[:5].tolist()}")
    a, b = a.astype(bool), b.astype(bool)
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())


def _corrected_phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Newcombe's continuity-corrected correlation of two truth values; 0 where one of them is constant."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    association = float(both * neither - only_a * only_b)
    if association > 0:
        association = max(0.0, association - (both + only_a + only_b + neither) / 2)
    return association / sqrt(margins)


def mean_per_class_accuracy(predictions: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Accuracy within each class, averaged with equal weight over the classes in ``labels``; both are (N,)."""
    predicted, actual = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != actual.shape or actual.ndim != 1 or actual.size == 0:
        raise ValueError(
            f"predictions and labels must be equally long and not empty, not {predicted.shape} and {actual.shape}"
        )
    _, inverse, sizes = np.unique(actual, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, weights=predicted == actual)
    return float((hits / sizes).mean())


def confusion(predictions: Sequence[int], labels: Sequence[int], classes: int) -> np.ndarray:
    """Images by true class (row) and predicted class (column): int64 (classes, classes)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    return counts


def reliability(confidences: Sequence[float] | np.ndarray, right: Truths, bins: int = 15) -> np.ndarray:
    """Whether the probability of the predicted class is the share of images in which it is right (Guo et al. 2017).

    Args:
        confidences: (N,) the probabilities of the predicted classes.
        right: (N,) whether each is the true one.
        bins: of equal width over [0, 1]; empty ones are left out.

    Returns:
        float64 (at most bins, 3): mean probability, share that is right, and images of each bin.
    """
    sure, hits = np.asarray(confidences), np.asarray(right)
    if sure.shape != hits.shape or sure.ndim != 1 or sure.size == 0:
        raise ValueError(f"confidences and right must be equally long and not empty, not {sure.shape} and {hits.shape}")
    places = np.minimum((sure * bins).astype(int), bins - 1)
    return np.array([[sure[own].mean(), hits[own].mean(), own.sum()] for own in (places == b for b in range(bins))
                     if own.any()])  # fmt: skip


def calibration_error(confidences: Sequence[float] | np.ndarray, right: Truths, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017) in [0, 1]: the mean gap of :func:`reliability`, by images."""
    table = reliability(confidences, right, bins)
    return float(np.average(np.abs(table[:, 0] - table[:, 1]), weights=table[:, 2]))


def per_image_ap(
    rankings: Sequence[Sequence[int] | np.ndarray] | np.ndarray, labels: Sequence[Sequence[int]]
) -> np.ndarray:
    """Average precision of each image's ranking of the classes, float64 (N,) in (0, 1].

    The precision among the classes down to each of the image's labels, averaged over its labels. Its mean over the
    images is what the BiGain paper calls mAP.

    Args:
        rankings: (N, K) per image all class indices, best first.
        labels: per image its class indices, at least one.
    """
    if len(rankings) != len(labels):
        raise ValueError(f"rankings and labels must be equally long, not {len(rankings)} and {len(labels)}")
    precisions = np.empty(len(labels))
    for image, (ranking, own) in enumerate(zip(rankings, labels, strict=True)):
        if len(own) == 0:
            raise ValueError(f"image {image} must have a label, not none: leave it out")
        place = {int(label): rank for rank, label in enumerate(ranking, start=1)}  # from 1
        missing = set(own) - place.keys()
        if missing or len(place) != len(ranking):
            raise ValueError(
                f"the ranking of image {image} must hold each class once, its labels {sorted(set(own))} among them,"
                f" not {[int(label) for label in ranking]}"
            )
        ranks = sorted(place[label] for label in set(own))
        precisions[image] = np.mean([hits / rank for hits, rank in enumerate(ranks, start=1)])
    return precisions


def per_class_ap(scores: np.ndarray, labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Average precision of each class over the images, float64 (K,) in [0, 1]; NaN for a class that no image shows.

    In the style of PASCAL VOC since 2010: all images are ranked by their score for the class, those of equal score as
    one step. The precision at a recall is the highest at that or a greater recall, and the average is the area under
    it. The joint run scores a class by minus its place among the classes of an image, with many ties: its values
    compare with one another, not with those of detectors that give confidences.

    Args:
        scores: (N, K), higher means that the image shows the class more surely; comparable between images.
        labels: per image its class indices in [0, K); an image may have none.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or len(scores) != len(labels) or scores.size == 0:
        raise ValueError(f"scores must be (N, K) for the {len(labels)} labelled images, not {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores must be numbers, not NaN: give eliminated classes a score below all others")
    shown = np.zeros(scores.shape, dtype=bool)
    for image, own in enumerate(labels):
        for label in own:
            if not 0 <= label < scores.shape[1]:
                raise ValueError(f"the labels of image {image} must lie in [0, {scores.shape[1]}), not {label}")
            shown[image, label] = True
    # A class at a time as float64: scores of many classes come as small integers.
    return np.array([_voc_ap(scores[:, k].astype(np.float64), shown[:, k]) for k in range(scores.shape[1])])


def per_class_map(scores: np.ndarray, labels: Sequence[Sequence[int]]) -> float:
    """Mean of ``per_class_ap`` over the classes that some image shows (mAP in the style of PASCAL VOC)."""
    precisions = per_class_ap(scores, labels)
    if np.isnan(precisions).all():
        raise ValueError("labels must name a class for at least one image, not for none")
    return float(np.nanmean(precisions))


def _voc_ap(scores: np.ndarray, shown: np.ndarray) -> float:
    """Area under the interpolated precision-recall curve of one class: scores (N,), shown bool (N,)."""
    if not shown.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # last of each run of equal scores
    hits = np.cumsum(shown[order])[ends]
    recall = hits / shown.sum()
    precision = np.maximum.accumulate((hits / (ends + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
