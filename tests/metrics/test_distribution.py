"""The FID family against closed forms and slow definitions; no trace left in the global random state."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from bigain.metrics.distribution import extract, fid, inception_score, kid, network_name, precision_recall


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
    result = fid(a, b, "random")
    assert result.value == pytest.approx(frechet(a, b), rel=1e-8)
    assert (result.network, result.dimensions, result.reference, result.generated) == ("random", 8, 60, 90)
    assert not result.few_samples
    assert result.note == ""


def test_fid_of_one_dimension_in_closed_form():
    a, b = features(50, 1, 0), features(40, 1, 1, shift=2.0)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert fid(a, b, "random").value == pytest.approx(expected, rel=1e-9)


def test_fid_of_a_set_to_itself_is_0():
    a = features(60, 8, 0)
    assert 0 <= fid(a, a, "random").value < 1e-6


def test_fid_of_fewer_images_than_dimensions_is_finite_and_says_so():
    a, b = features(500, 64, 0), features(40, 64, 0)
    result = fid(a, b, "random")
    assert np.isfinite(result.value)
    assert result.value == pytest.approx(frechet(a, b), rel=1e-4)
    assert result.few_samples
    assert "40 generated images for 64 feature dimensions" in result.note
    assert not fid(a, a[:65], "random").few_samples


def slow_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD of the kernel (x.y / D + 1)^3, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)]
    return float(sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def test_kid_of_whole_sets_is_the_unbiased_mmd():
    a, b = features(12, 5, 0), features(12, 5, 1, shift=0.3)
    result = kid(a, b, "random", subsets=2)
    assert result.value == pytest.approx(slow_kid(a, b), rel=1e-9)
    assert result.deviation == pytest.approx(0.0, abs=1e-9)
    assert result.subset_size == 12


def test_kid_over_all_subsets_of_a_seed_is_repeatable_and_recorded():
    a, b = features(40, 5, 0), features(30, 5, 1)
    first, again = (kid(a, b, "random", subsets=5, subset_size=20, seed=3) for _ in range(2))
    assert first == again
    assert (first.subsets, first.subset_size, first.seed) == (5, 20, 3)
    assert (first.reference, first.generated) == (40, 30)
    assert kid(a, b, "random", subsets=5, subset_size=20, seed=4).value != first.value
    assert kid(a, b, "random", subsets=1).subset_size == 30


def test_kid_subsets_average_to_the_mmd_of_the_whole():
    a, b = features(60, 3, 0), features(60, 3, 1, shift=1.0)
    result = kid(a, b, "random", subsets=400, subset_size=30)
    assert abs(result.value - slow_kid(a, b)) < 4 * result.deviation / np.sqrt(400)


@pytest.mark.parametrize("size", [0, 1, 31])
def test_kid_refuses_a_subset_that_cannot_be_drawn(size):
    with pytest.raises(ValueError, match=rf"subset_size must lie in \[2, 30\] .*not {size}"):
        kid(features(40, 5, 0), features(30, 5, 1), "random", subset_size=size)


def slow_inception_score(logits: np.ndarray) -> float:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    marginal = p.mean(axis=0)
    return float(np.exp(np.mean([sum(row[k] * np.log(row[k] / marginal[k]) for k in range(len(row))) for row in p])))


def test_inception_score_is_the_exponential_of_the_mean_divergence():
    logits = features(40, 6, 0)
    result = inception_score(logits, "random")
    assert result.value == pytest.approx(slow_inception_score(logits), rel=1e-9)
    assert result.deviation is None
    assert (result.generated, result.reference, result.network) == (40, 0, "random")


def test_inception_score_of_sure_and_balanced_answers_is_the_number_of_classes():
    assert inception_score(np.tile(50 * np.eye(5), (4, 1)), "random").value == pytest.approx(5.0)
    assert inception_score(np.zeros((10, 5)), "random").value == pytest.approx(1.0)


def test_inception_score_splits_are_seeded():
    logits = features(40, 6, 0)
    first = inception_score(logits, "random", splits=4, seed=1)
    assert first == inception_score(logits, "random", splits=4, seed=1)
    assert first.deviation is not None
    assert first.deviation > 0
    with pytest.raises(ValueError, match=r"splits must lie in \[1, 40\], not 41"):
        inception_score(logits, "random", splits=41)


def slow_share_inside(queries: np.ndarray, points: np.ndarray, neighbours: int) -> float:
    radii = []
    for i, x in enumerate(points):
        others = sorted(np.linalg.norm(x - y) for j, y in enumerate(points) if j != i)
        radii.append(others[neighbours - 1])
    inside = [any(np.linalg.norm(q - x) <= r for x, r in zip(points, radii, strict=True)) for q in queries]
    return float(np.mean(inside))


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_ball_by_ball(neighbours):
    a, b = features(25, 2, 0), features(30, 2, 1, shift=0.8)
    result = precision_recall(a, b, "random", neighbours=neighbours)
    assert result.precision == slow_share_inside(b, a, neighbours)
    assert result.recall == slow_share_inside(a, b, neighbours)
    assert 0 < result.precision < 1
    assert 0 < result.recall < 1


def test_precision_and_recall_at_the_extremes():
    a = features(20, 3, 0)
    same, far = precision_recall(a, a, "random"), precision_recall(a, a + 1e6, "random")
    assert (same.precision, same.recall) == (1.0, 1.0)
    assert (far.precision, far.recall) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"neighbours must lie in \[1, 19\]"):
        precision_recall(a, a, "random", neighbours=20)


def test_more_rows_than_one_batch_of_distances():
    a, b = features(12, 2, 0), features(270, 2, 1)
    assert precision_recall(a, b, "random").precision == slow_share_inside(b, a, 3)


def test_images_through_a_network_equal_its_features_given():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, high, (20, 8, 10, 3), dtype=np.uint8) for high in (256, 200))
    network = Moments().eval()
    given_a, given_b = extract(a, network, batch_size=7), extract(b, network)
    np.testing.assert_allclose(given_a[:, :3], a.reshape(20, -1, 3).mean(axis=1), rtol=1e-6)
    by_network, by_features = fid(a, b, network), fid(given_a, given_b, "Moments")
    assert by_network.value == pytest.approx(by_features.value, rel=1e-12)
    assert by_network.network == "Moments"
    assert kid(a, b, network, subsets=2) == kid(given_a, given_b, "Moments", subsets=2)


def test_network_names():
    network = Moments()
    assert network_name(network) == "Moments"
    network.network = "moments-v1"
    assert network_name(network) == "moments-v1"
    assert network_name("inception") == "inception"


def test_extract_refuses_what_is_not_images_and_a_training_network():
    with pytest.raises(ValueError, match="uint8"):
        extract(np.zeros((2, 4, 4, 3)), Moments().eval())
    with pytest.raises(ValueError, match="Moments is in training mode"):
        extract(np.zeros((2, 4, 4, 3), dtype=np.uint8), Moments())


@pytest.mark.parametrize("measure", [fid, kid, precision_recall])
def test_bad_features_are_named(measure):
    good = features(10, 4, 0)
    bad = good.copy()
    bad[3, 1] = np.inf
    with pytest.raises(ValueError, match="generated must be finite: 1 rows"):
        measure(good, bad, "random")
    with pytest.raises(ValueError, match="reference must hold at least 2 images, not 1"):
        measure(good[:1], good, "random")
    with pytest.raises(ValueError, match="reference has 4 feature dimensions, generated 3"):
        measure(good, good[:, :3], "random")
    with pytest.raises(ValueError, match=r"features \(N, D\)"):
        measure(good[0], good, "random")


def test_the_global_random_state_and_warnings_stay_untouched():
    a, b = features(20, 4, 0), features(20, 4, 1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = (fid(a, b, "r"), kid(a, b, "r", subset_size=10), inception_score(a, "r"), precision_recall(a, b, "r"))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    torch.rand(3)  # another state: the values do not depend on it
    assert values == (
        fid(a, b, "r"), kid(a, b, "r", subset_size=10), inception_score(a, "r"), precision_recall(a, b, "r")
    )  # fmt: skip
