from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.classify import Stages
from bigain.classify.elimination import rank, survivors


def test_five_of_twenty_are_every_fourth():
    first, second = Stages((5, 1), (5, 20)).positions()
    assert first == (2, 6, 10, 14, 18)
    assert sorted(first + second) == list(range(20))


@settings(max_examples=50, deadline=None)
@given(n_samples=st.lists(st.integers(1, 200), min_size=1, max_size=4, unique=True).map(sorted))
def test_stages_add_disjoint_positions_that_are_spread_evenly(n_samples):
    stages = Stages(tuple(range(len(n_samples), 0, -1)), tuple(n_samples))
    evaluated: set[int] = set()
    for count, added in zip(n_samples, stages.positions(), strict=True):
        assert evaluated.isdisjoint(added)
        evaluated |= set(added)
        assert len(evaluated) == count
    assert evaluated == set(range(n_samples[-1]))
    # The first stage is at most a stride away from an even spread, per nesting.
    first, total = stages.positions()[0], n_samples[-1]
    for i, position in enumerate(first):
        assert abs(position + 0.5 - (i + 0.5) * total / len(first)) <= total / len(first) * len(n_samples) / 2 + 1


@pytest.mark.parametrize(("classes", "forwards"), [(37, 260), (80, 475), (100, 575), (1000, 5075)])
def test_forwards_are_those_of_the_protocol(classes, forwards):
    assert Stages((5, 1), (5, 20)).forwards(classes) == forwards


def test_forwards_of_a_single_stage():
    assert Stages((1,), (8,)).forwards(10) == 80


@pytest.mark.parametrize(
    ("to_keep", "n_samples", "message"),
    [
        ((), (), r"to_keep is \(\); it must hold one integer per stage"),
        ((5, 0), (5, 20), "to_keep is .* each at least 1"),
        ((5.0, 1), (5, 20), "to_keep is .* integer"),
        ((5, 1), (0, 20), "n_samples is .* each at least 1"),
        ((5, 1), (5,), r"to_keep \(5, 1\) and n_samples \(5,\) must be equally long"),
        ((5, 5, 1), (5, 10, 20), r"to_keep is \(5, 5, 1\); it must decrease"),
        ((5, 2), (5, 20), r"to_keep is \(5, 2\); it must .*end in 1"),
        ((5, 1), (20, 5), r"n_samples is \(20, 5\); it must increase"),
        ((5, 1), (5, 5), "n_samples is .*increase"),
    ],
)
def test_bad_stages(to_keep, n_samples, message):
    with pytest.raises(ValueError, match=message):
        Stages(to_keep, n_samples)


def test_stages_that_do_not_fit():
    stages = Stages((5, 1), (5, 20))
    stages.check(conditions=5, timesteps=20)
    with pytest.raises(ValueError, match=r"to_keep is \(5, 1\), but there are only 4 conditions"):
        stages.check(conditions=4, timesteps=1000)
    with pytest.raises(ValueError, match=r"n_samples is \(5, 20\), but the model has only 19 timesteps"):
        stages.check(conditions=10, timesteps=19)


def test_survivors_have_the_lowest_mean_error():
    errors = np.array([[1, 5, np.nan], [2, 2, np.nan], [0, 3, np.nan], [9, 9, np.nan]], dtype=np.float32)
    assert survivors(errors, [0, 1, 2, 3], 2) == [1, 2]
    assert survivors(errors, [0, 1, 3], 2) == [0, 1]
    assert survivors(errors, [1, 3], 1) == [1]


def test_of_equal_means_the_earlier_condition_is_kept():
    errors = np.ones((4, 2), dtype=np.float32)
    assert survivors(errors, [0, 1, 2, 3], 2) == [0, 1]


def test_a_survivor_never_ranks_under_an_eliminated_condition():
    """Later timesteps may have larger errors: a mean over all does not compare with one over the first few."""
    errors = np.array([[1.0, 9.0], [2.0, np.nan], [1.5, 8.0], [3.0, np.nan]], dtype=np.float32)
    assert rank(errors, [1, 0, 2, 0]) == [2, 0, 1, 3]
