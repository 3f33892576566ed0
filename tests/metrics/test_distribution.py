"""The FID family against closed forms and slow definitions; no trace left in the global random state."""

from __future__ import annotations

import time
import warnings
from math import log10

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics.image import PeakSignalNoiseRatio

from bigain.metrics.distribution import decibels, fid, kid, mean_psnr, precision_recall, resampled_fid, squared_errors
from bigain.metrics.features import extract


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, dimensions)) @ rng.standard_normal((dimensions, dimensions)) + shift


class Moments(nn.Module):
    """A feature network without weights: the mean and deviation of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        values = images.float().flatten(2)
        return torch.cat([values.mean(2), values.std(2)], dim=1)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real))


def test_fid_is_the_distance_of_the_fitted_gaussians():
    a, b = features(60, 8, 0), features(90, 8, 1, shift=0.7)
    result = fid(a, b)
    assert result == pytest.approx(frechet(a, b), rel=1e-8)


def test_fid_of_one_dimension_in_closed_form():
    a, b = features(50, 1, 0), features(40, 1, 1, shift=2.0)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)


def test_fid_of_a_set_to_itself_is_0():
    a = features(60, 8, 0)
    assert 0 <= fid(a, a) < 1e-6


def test_fid_of_fewer_images_than_dimensions_is_finite():
    a, b = features(500, 64, 0), features(40, 64, 0)
    result = fid(a, b)
    assert np.isfinite(result)
    assert result == pytest.approx(frechet(a, b), rel=1e-4)


def slow_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD of the kernel (x.y / D + 1)^3, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)]
    return float(sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def test_kid_of_whole_sets_is_the_unbiased_mmd():
    a, b = features(12, 5, 0), features(12, 5, 1, shift=0.3)
    value, deviation = kid(a, b, subsets=2)
    assert value == pytest.approx(slow_kid(a, b), rel=1e-9)
    assert deviation == pytest.approx(0.0, abs=1e-9)


def test_kid_over_all_subsets_of_a_seed_is_repeatable_and_recorded():
    a, b = features(40, 5, 0), features(30, 5, 1)
    first, again = (kid(a, b, subsets=5, subset_size=20, seed=3) for _ in range(2))
    assert first == again
    assert kid(a, b, subsets=5, subset_size=20, seed=4) != first
    assert kid(a, b, subsets=1) == kid(a, b, subsets=1, subset_size=30)


def test_kid_subsets_average_to_the_mmd_of_the_whole():
    a, b = features(60, 3, 0), features(60, 3, 1, shift=1.0)
    value, deviation = kid(a, b, subsets=400, subset_size=30)
    assert abs(value - slow_kid(a, b)) < 4 * deviation / np.sqrt(400)


@pytest.mark.parametrize("size", [0, 1, 31])
def test_kid_refuses_a_subset_that_cannot_be_drawn(size):
    with pytest.raises(ValueError, match=rf"subset_size must lie in \[2, 30\] .*not {size}"):
        kid(features(40, 5, 0), features(30, 5, 1), subset_size=size)


def slow_share_inside(queries: np.ndarray, points: np.ndarray, neighbours: int) -> float:
    radii = []
    for i, x in enumerate(points):
        others = sorted(np.linalg.norm(x - y) for j, y in enumerate(points) if j != i)
        radii.append(others[neighbours - 1])
    inside = [any(np.linalg.norm(q - x) <= r for x, r in zip(points, radii, strict=True)) for q in queries]
    return float(np.mean(inside))


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_ball_by_ball(k):
    a, b = features(25, 2, 0), features(30, 2, 1, shift=0.8)
    precision, recall = precision_recall(a, b, k=k)
    assert precision == slow_share_inside(b, a, k)
    assert recall == slow_share_inside(a, b, k)
    assert 0 < precision < 1
    assert 0 < recall < 1


def test_precision_and_recall_at_the_extremes():
    a = features(20, 3, 0)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, a + 1e6) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"k must lie in \[1, 19\]"):
        precision_recall(a, a, k=20)


def test_more_rows_than_one_batch_of_distances():
    a, b = features(12, 2, 0), features(270, 2, 1)
    assert precision_recall(a, b)[0] == slow_share_inside(b, a, 3)


def test_extract_is_the_network_image_by_image():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 10, 3), dtype=np.uint8)
    values = extract(images, Moments().eval(), batch_size=7)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values[:, :3], images.reshape(20, -1, 3).mean(axis=1), rtol=1e-6)


def test_extract_refuses_what_is_not_images_and_a_training_network():
    with pytest.raises(ValueError, match="uint8"):
        extract(np.zeros((2, 4, 4, 3)), Moments().eval())
    with pytest.raises(ValueError, match=r"Moments must be in evaluation mode \(eval\(\)\), not"):
        extract(np.zeros((2, 4, 4, 3), dtype=np.uint8), Moments())


@pytest.mark.parametrize("measure", [fid, kid, precision_recall])
def test_bad_features_are_named(measure):
    good = features(10, 4, 0)
    bad = good.copy()
    bad[3, 1] = np.inf
    with pytest.raises(ValueError, match="generated must be finite, not NaN or infinite in 1 rows"):
        measure(good, bad)
    with pytest.raises(ValueError, match="reference must hold at least 2 images, not 1"):
        measure(good[:1], good)
    with pytest.raises(ValueError, match="generated must have the 4 dimensions of reference, not 3"):
        measure(good, good[:, :3])
    with pytest.raises(ValueError, match=r"features \(N, D\)"):
        measure(good[0], good)


def test_the_global_random_state_and_warnings_stay_untouched():
    a, b = features(20, 4, 0), features(20, 4, 1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = (fid(a, b), kid(a, b, subset_size=10), precision_recall(a, b))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    torch.rand(3)  # another state: the values do not depend on it
    assert values == (
        fid(a, b), kid(a, b, subset_size=10), precision_recall(a, b)
    )  # fmt: skip


@pytest.mark.parametrize("measure", [fid, kid, precision_recall])
def test_images_without_features_are_refused_instead_of_left_out(measure):
    rows = list(features(10, 4, 0))
    with pytest.raises(ValueError, match="generated must have features for all 10 images, not none for 2 of them"):
        measure(rows, [*rows[:4], None, *rows[5:9], None])


def test_resamples_of_images_that_are_not_there_are_refused():
    a = features(10, 4, 0)
    bad = (([0], "at least 2 images, not 1"), ([0, 10], r"\[0, 10\), not 0 to 10"), ([-1, 3], "not -1 to 3"))
    for index, message in bad:
        with pytest.raises(ValueError, match=message):
            resampled_fid(a, a, [np.array(index)])


def test_precision_and_recall_see_modes_that_are_missing_and_images_that_are_off():
    rng = np.random.default_rng(0)
    left, right = (rng.normal([offset, 0, 0, 0], size=(200, 4)) for offset in (-50, 50))
    both = np.concatenate([left, right])
    more = rng.normal([-50, 0, 0, 0], size=(200, 4))
    precision, recall = precision_recall(both, more)
    assert precision > 0.8
    assert recall < 0.5, "the right half is never generated"
    precision, recall = precision_recall(more, both)
    assert precision < 0.5, "the right half is not real"
    assert recall > 0.8


def test_precision_and_recall_are_the_same_bits_on_any_number_of_threads():
    a, b = features(300, 16, 0), features(400, 16, 1, shift=0.5)
    threads = torch.get_num_threads()
    try:
        values = set()
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            values.add(precision_recall(a, b))
    finally:
        torch.set_num_threads(threads)
    assert len(values) == 1


def test_copies_of_an_image_have_a_ball_of_their_own_size():
    copies = np.tile(features(1, 3, 0), (5, 1))  # the third neighbour lies at distance 0
    near = copies + 1e-9
    assert precision_recall(copies, copies) == (1.0, 1.0)
    assert precision_recall(copies, near) == (0.0, 0.0)


def test_precision_and_recall_of_a_whole_run_take_less_than_ten_seconds():
    a, b = features(2_000, 64, 0), features(1_000, 64, 1)
    before = time.process_time()
    precision_recall(a, b)
    assert time.process_time() - before < 10


def psnr_of_each(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return decibels(squared_errors(a, b))


def images(count: int, height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def near(a: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-20, 21, a.shape)
    return np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8)


def test_psnr_image_by_image():
    a = images(3, 7, 9, 0)
    b = near(a, 1)
    for value, x, y in zip(psnr_of_each(a, b), a.tolist(), b.tolist(), strict=True):
        squares = [
            (u - v) ** 2
            for row_x, row_y in zip(x, y, strict=True)
            for pixel_x, pixel_y in zip(row_x, row_y, strict=True)
            for u, v in zip(pixel_x, pixel_y, strict=True)
        ]
        assert value == pytest.approx(10 * log10(255**2 / (sum(squares) / len(squares))))


def test_psnr_of_a_constant_difference_in_closed_form():
    a = np.full((1, 4, 4, 3), 100, dtype=np.uint8)
    assert psnr_of_each(a, a + 5)[0] == pytest.approx(20 * log10(255 / 5))
    assert psnr_of_each(a + 5, a)[0] == pytest.approx(20 * log10(255 / 5))  # unsigned subtraction would wrap around


def test_equal_images_are_infinite_alone_and_finite_among_others():
    a = images(2, 8, 8, 0)
    b = a.copy()
    b[1] = near(a, 1)[1]
    values = psnr_of_each(a, b)
    assert np.isinf(values[0])
    assert np.isfinite(values[1])
    assert mean_psnr(a, b) == pytest.approx(values[1] + 10 * log10(2))  # half of its squared error
    assert mean_psnr(a, a) == np.inf


def test_mean_psnr_is_torchmetrics_psnr_of_the_whole_set():
    a = images(4, 8, 8, 0)
    b = near(a, 1)
    expected = PeakSignalNoiseRatio(data_range=255.0)(torch.from_numpy(b).double(), torch.from_numpy(a).double())
    assert mean_psnr(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert mean_psnr(a, b) <= psnr_of_each(a, b).mean()


@pytest.mark.parametrize("measure", [psnr_of_each, mean_psnr])
def test_bad_images_are_refused(measure):
    a = images(2, 8, 8, 0)
    with pytest.raises(ValueError, match="one shape"):
        measure(a, a[:1])
    with pytest.raises(ValueError, match=r"b must be uint8 images.*float64"):
        measure(a, a / 255)
    with pytest.raises(ValueError, match="a must be uint8 images"):
        measure(a[0], a)
    with pytest.raises(ValueError, match="a must be uint8 images"):
        measure(a[:0], a[:0])
