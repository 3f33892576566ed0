from __future__ import annotations

import numpy as np
import pytest

from bigain.classify import Contest, Racing, Stages
from bigain.classify.fitting import conformal_threshold
from bigain.classify.prediction import rank


def race(elimination, errors, *, telling=False, weights=None):
    """The contest of an image whose errors (conditions, timesteps) are all known; what was asked, and of how many."""
    weights = np.ones(errors.shape[1]) if weights is None else weights
    contest = Contest("a", np.full(errors.shape, np.nan, dtype=np.float32), weights, telling)
    asked = []
    for ask in elimination.rounds(contest):
        where = np.ix_(ask.conditions, ask.positions)
        contest.errors[where] = errors[where]
        asked.append(ask)
    return contest, asked


def heavy(rng, classes: int, timesteps: int) -> np.ndarray:
    """Errors of classes that all are as good as the best, class 0, or worse, with the tails of Student's t of 2 df."""
    excess = np.where(rng.random(classes) < 0.3, 0.0, rng.exponential(2.0, classes))
    excess[0] = 0
    return 10 + excess[:, None] + rng.standard_t(2, (classes, timesteps))


def test_betting_keeps_its_rate_with_a_thousand_classes_and_heavy_tails():
    """300 of 1,000 classes are exactly as good as the best, the hardest case; its loss must stay under the rate."""
    rng, lost, images, rate = np.random.default_rng(0), 0, 40, 0.1
    for _ in range(images):
        contest, _ = race(Racing(20, error_rate=rate), heavy(rng, 1000, 20))
        lost += int(np.isnan(contest.errors[0]).any())
    assert lost <= 8  # of 40 at a rate of 0.1: more has a probability under 0.02


def test_betting_keeps_its_rate_between_two_equal_classes():
    rng, lost, images = np.random.default_rng(1), 0, 1000
    for _ in range(images):
        contest, asked = race(Racing(20, error_rate=0.1), rng.standard_cauchy((2, 20)))
        lost += int(len(asked) < 20 and np.isnan(contest.errors[0]).any())
    assert lost <= 0.1 * images + 3 * np.sqrt(0.09 * images)


def test_betting_saves_where_classes_differ():
    rng = np.random.default_rng(2)
    errors = np.arange(100)[:, None] * 0.3 + rng.normal(0, 0.5, (100, 20))
    contest, _ = race(Racing(20), errors)
    assert np.isfinite(contest.errors).sum() < 0.5 * errors.size
    assert rank(contest.weighted, contest.stage)[0] in (0, 1)


def test_a_bet_multiplies_the_stake_by_one_plus_the_tanh_of_the_difference():
    """Written out for three classes and two rounds."""
    errors = np.array([[1.0, 1.0], [2.0, 1.5], [4.0, 6.0]])
    stakes = np.ones((3, 3))
    for t in range(2):
        low, _, high = sorted(errors[:, t])
        for i in range(3):
            for j in range(3):
                stakes[i, j] *= 1 + np.tanh((errors[i, t] - errors[j, t]) / (high - low) * 8)
    mean = (stakes[2, 0] + stakes[2, 1]) / 2
    _, kept = race(Racing(2, error_rate=1 / (mean * 1.001)), errors)
    contest, _ = race(Racing(2, error_rate=1 / (mean * 0.999)), errors)
    assert [len(ask.conditions) for ask in kept] == [3, 3]
    assert contest.stage.tolist() == [3, 2, 1]  # class 2 fell in the last round


@pytest.mark.parametrize("seed", range(5))
def test_a_conformal_threshold_keeps_its_rate_whatever_the_errors(seed):
    """Split conformal: over draws of calibration and test images the rate holds on average; each is 400 images."""
    rng, rate = np.random.default_rng(seed), 0.05
    images = np.stack([heavy(rng, 50, 12) for _ in range(1200)])
    sums = np.cumsum(images, axis=2)
    threshold = conformal_threshold(sums[:400], rate)
    wrong = 0
    for errors in images[400:]:
        contest, _ = race(Racing(12, threshold=threshold), errors, telling=True)
        wrong += rank(contest.weighted, contest.stage)[0] != errors.sum(1).argmin()
    assert wrong / 800 <= rate + 0.03


def test_a_class_falls_when_its_sum_exceeds_the_leader_s_by_more_than_the_threshold():
    errors = np.array([[1.0, 1.0, 1.0], [2.5, 1.0, 9.0], [3.5, 0.0, 0.0]])
    contest, asked = race(Racing(3, threshold=2.0), errors, telling=True)
    assert [ask.conditions for ask in asked] == [[0, 1, 2], [0, 1], [0, 1]]
    assert contest.stage.tolist() == [3, 2, 0]
    weights = np.array([0.5, 1.0, 1.0])
    _, asked = race(Racing(3, threshold=2.0), errors, telling=True, weights=weights)
    assert [ask.conditions for ask in asked] == [[0, 1, 2]] * 3


def test_without_anything_fitted_a_race_begins_in_the_middle():
    _, asked = race(Racing(5, error_rate=1e-9), np.random.default_rng(0).random((3, 5)))
    assert [ask.positions for ask in asked] == [(2,), (1,), (3,), (0,), (4,)]


def test_the_last_few_are_asked_under_the_last_method():
    errors = np.tile(np.arange(6.0)[:, None], (1, 8))
    _, asked = race(Racing(8, threshold=9.0, methods=("lgtm-0.5", "none"), few=3), errors, telling=True)
    assert [(len(ask.conditions), ask.phase) for ask in asked] == [
        (6, 0), (6, 0), (5, 0), (4, 0), (3, 1), (2, 1), (2, 1), (2, 1)
    ]  # fmt: skip


def test_a_race_ends_when_one_is_left():
    errors = np.array([[0.0] * 9, [5.0] * 9])
    contest, asked = race(Racing(9, threshold=1.0), errors, telling=True)
    assert len(asked) == 1
    assert contest.stage.tolist() == [1, 0]


def test_stages_of_fitted_timesteps_take_the_most_telling_first():
    assert Stages((3, 1), (2, 5)).positions(telling=True) == ((0, 1), (2, 3, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_samples": 0}, "n_samples must be at least 1, not 0"),
        ({"error_rate": 1}, "error_rate must lie between 0 and 1, not 1"),
        ({"threshold": 0}, "threshold must be above 0, not 0"),
        ({"methods": ("none",) * 3}, "methods must be at most two"),
        ({"few": 1}, "few must be at least 2 conditions, not 1"),
    ],
)
def test_bad_races(settings, message):
    with pytest.raises(ValueError, match=message):
        Racing(**settings)
