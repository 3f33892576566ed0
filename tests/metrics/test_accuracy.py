"""Intervals against published and closed forms, ranking measures against slow definitions."""

from __future__ import annotations

from itertools import pairwise
from math import comb, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from bigain.metrics.accuracy import (
    accuracy_interval,
    calibration_error,
    confusion,
    mcnemar,
    mean_per_class_accuracy,
    paired_difference,
    per_class_ap,
    per_class_map,
    per_image_ap,
    reliability,
)

quick = settings(max_examples=40, deadline=None)
counts = st.integers(0, 30)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], sizes), np.repeat([True, False, True, False], sizes)


@quick
@given(st.integers(1, 500), st.data())
def test_wilson_interval_is_where_the_score_test_is_at_its_limit(total, data):
    correct = data.draw(st.integers(0, total))
    low, high = accuracy_interval(correct, total)
    z = 1.959963984540054
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    assert low == pytest.approx(max(0.0, centre - half), abs=1e-12)
    assert high == pytest.approx(min(1.0, centre + half), abs=1e-12)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("correct", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(ValueError, match=r"must (lie in|be at least)"):
        accuracy_interval(correct, total)


@quick
@given(counts, counts)
def test_mcnemar_is_the_binomial_tail_counted_twice(only_a, only_b):
    a, b = outcomes(3, only_a, only_b, 2)
    discordant, smaller = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(discordant, k) for k in range(smaller + 1)) / 2**discordant
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(a, b) == pytest.approx(mcnemar(b, a), rel=1e-12)


def test_mcnemar_without_discordant_images_is_1():
    assert mcnemar([True, False, True], [True, False, True]) == 1.0


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al., Statistics with Confidence (2000), table 6.2
        ((20, 12, 2, 16), 0.0562, 0.3292),  # the positive association that Newcombe corrects for continuity
    ],
)
def test_paired_interval_of_worked_examples(table, low, high):
    difference, found_low, found_high = paired_difference(*outcomes(*table))
    assert difference == pytest.approx((table[1] - table[2]) / sum(table))
    assert (found_low, found_high) == pytest.approx((low, high), abs=6e-4)


@quick
@given(counts, counts, counts, counts)
def test_paired_interval_holds_the_difference_and_turns_with_its_sides(both, only_a, only_b, neither):
    if both + only_a + only_b + neither == 0:
        return
    a, b = outcomes(both, only_a, only_b, neither)
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert -1 - 1e-9 <= low <= difference <= high <= 1 + 1e-9
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low), abs=1e-12)


def test_paired_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    shares = [0.6, 0.12, 0.05, 0.23]  # both, only A, only B, neither
    covered = 0
    for table in rng.multinomial(200, shares, size=150):
        _, low, high = paired_difference(*outcomes(*table))
        covered += low <= shares[1] - shares[2] <= high
    assert 0.90 <= covered / 150 <= 0.99


@pytest.mark.parametrize("compare", [mcnemar, paired_difference])
def test_comparison_refuses_what_is_not_paired(compare):
    with pytest.raises(ValueError, match="equally long"):
        compare([True, False], [True])
    with pytest.raises(ValueError, match="not empty"):
        compare([], [])
    with pytest.raises(ValueError, match=r"correct_b must hold truth values.*3"):
        compare([1, 0], [3, 0])


def test_mean_per_class_weighs_rare_classes_alike():
    labels = [0] * 8 + [2] * 2
    predictions = [0] * 8 + [2, 0]
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx((1 + 0.5) / 2)
    with pytest.raises(ValueError, match="equally long"):
        mean_per_class_accuracy([1], [1, 2])


@st.composite
def ranked_images(draw):
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rankings = [draw(st.permutations(range(classes))) for _ in range(images)]
    labels = [tuple(draw(st.sets(st.integers(0, classes - 1), min_size=1))) for _ in range(images)]
    return rankings, labels


@quick
@given(ranked_images())
def test_per_image_ap_walks_down_the_ranking(example):
    rankings, labels = example
    for value, ranking, own in zip(per_image_ap(rankings, labels), rankings, labels, strict=True):
        precisions = []
        for depth in range(1, len(ranking) + 1):
            if ranking[depth - 1] in own:
                precisions.append(sum(c in own for c in ranking[:depth]) / depth)
        assert value == pytest.approx(sum(precisions) / len(own))


def test_per_image_ap_refuses_broken_rankings():
    with pytest.raises(ValueError, match=r"ranking of image 0 .*\[0, 1\]"):
        per_image_ap([[0, 1]], [(2,)])
    with pytest.raises(ValueError, match="ranking of image 0"):
        per_image_ap([[0, 0, 1]], [(1,)])
    with pytest.raises(ValueError, match="image 0 must have a label, not none"):
        per_image_ap([[0, 1]], [()])
    with pytest.raises(ValueError, match="equally long"):
        per_image_ap([[0, 1]], [(0,), (1,)])


def slow_voc_ap(scores: np.ndarray, shown: np.ndarray) -> float:
    """Integrates max{precision(r') : r' >= r} over the recalls, threshold by threshold."""
    points = []
    for threshold in sorted(set(scores.tolist())):
        taken = scores >= threshold
        points.append(((taken & shown).sum() / shown.sum(), (taken & shown).sum() / taken.sum()))
    recalls = sorted({0.0, *(recall for recall, _ in points)})
    return sum((b - a) * max(p for r, p in points if r >= b) for a, b in pairwise(recalls))


@quick
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_per_class_ap_integrates_the_interpolated_curve(images, classes, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, size=(images, classes)).astype(float)  # with ties
    shown = rng.random((images, classes)) < 0.4
    labels = [tuple(np.flatnonzero(row)) for row in shown]
    found = per_class_ap(scores, labels)
    for k in range(classes):
        if shown[:, k].any():
            assert found[k] == pytest.approx(slow_voc_ap(scores[:, k], shown[:, k]))
        else:
            assert np.isnan(found[k])
    if shown.any():
        assert per_class_map(scores, labels) == pytest.approx(np.mean(found[shown.any(axis=0)]))
        order = rng.permutation(images)
        assert per_class_ap(scores[order], [labels[i] for i in order]) == pytest.approx(found, nan_ok=True)


def test_per_class_ap_by_hand():
    # Ranked: right, wrong, right, wrong. Precision 1 up to recall 1/2, then 2/3.
    assert per_class_ap(np.array([[4.0], [3.0], [2.0], [1.0]]), [(0,), (), (0,), ()])[0] == pytest.approx(5 / 6)


def test_per_class_map_refuses_bad_input():
    with pytest.raises(ValueError, match="NaN"):
        per_class_map(np.array([[np.nan, 1.0]]), [(0,)])
    with pytest.raises(ValueError, match=r"labels of image 0 must lie in \[0, 2\), not 2"):
        per_class_map(np.zeros((1, 2)), [(2,)])
    with pytest.raises(ValueError, match="for the 2 labelled images"):
        per_class_map(np.zeros((1, 2)), [(0,), (1,)])
    with pytest.raises(ValueError, match="at least one image"):
        per_class_map(np.zeros((1, 2)), [()])


def test_the_confusion_matrix_counts_true_by_predicted_classes():
    assert confusion([0, 1, 1, 2], [0, 0, 1, 1], 3).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_the_calibration_error_is_torchmetrics():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(5, 0.4), 300)
    labels = rng.integers(0, 5, 300)
    expected = multiclass_calibration_error(
        torch.from_numpy(shares), torch.from_numpy(labels), num_classes=5, n_bins=15, norm="l1"
    )
    found = calibration_error(shares.max(1), shares.argmax(1) == labels)
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_reliability_by_hand():
    shares, right = [0.95, 0.9, 0.55, 1.0], [True, False, True, True]
    table = reliability(shares, right, bins=4)
    np.testing.assert_allclose(table, [[0.55, 1, 1], [0.95, 2 / 3, 3]])
    assert calibration_error(shares, right, bins=4) == pytest.approx((0.45 + 3 * (0.95 - 2 / 3)) / 4)


def test_reliability_refuses_lists_that_do_not_match():
    for shares, right in (([0.5, 0.6], [True]), ([], [])):
        with pytest.raises(ValueError, match="confidences and right must be equally long and not empty"):
            reliability(shares, right)
