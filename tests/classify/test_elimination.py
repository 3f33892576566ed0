from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.classify import Stages
from bigain.classify.elimination import survivors
from bigain.classify.prediction import mean, probabilities, rank


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
        ((), (), r"to_keep must hold one integer per stage, each at least 1, not \(\)"),
        ((5, 0), (5, 20), "to_keep must .* each at least 1, not"),
        ((5.0, 1), (5, 20), "to_keep must .* integer"),
        ((5, 1), (0, 20), "n_samples must .* each at least 1"),
        ((5, 1), (5,), r"n_samples must be as long as to_keep \(5, 1\), not \(5,\)"),
        ((5, 5, 1), (5, 10, 20), r"to_keep must decrease .*, not \(5, 5, 1\)"),
        ((5, 2), (5, 20), r"to_keep must .*end in 1, not \(5, 2\)"),
        ((5, 1), (20, 5), r"n_samples must increase .*, not \(20, 5\)"),
        ((5, 1), (5, 5), "n_samples must increase"),
    ],
)
def test_bad_stages(to_keep, n_samples, message):
    with pytest.raises(ValueError, match=message):
        Stages(to_keep, n_samples)


@pytest.mark.parametrize(
    ("conditions", "given", "expected"),
    [
        (2, {}, ((1,), (20,))),
        (5, {}, ((1,), (20,))),
        (6, {}, ((5, 1), (5, 20))),
        (10, {"n_samples": (2, 4)}, ((5, 1), (2, 4))),
        (2, {"to_keep": (2, 1)}, ((2, 1), (5, 20))),
        (2, {"n_samples": (5, 20)}, ((2, 1), (5, 20))),
        (10, {"n_samples": (8,)}, ((1,), (8,))),
        (10, {"to_keep": (3, 2, 1), "n_samples": (1, 2, 3)}, ((3, 2, 1), (1, 2, 3))),
    ],
)
def test_stages_that_are_left_out_follow_from_the_number_of_conditions(conditions, given, expected):
    stages = Stages.of(conditions, **given)
    assert (stages.to_keep, stages.n_samples) == expected
    stages.check(conditions, 1000)


def test_half_of_three_stages_is_refused():
    with pytest.raises(ValueError, match="to_keep and n_samples must both be given for 3 stages"):
        Stages.of(10, to_keep=(3, 2, 1))


def test_later_stages_are_nested_in_earlier_ones():
    assert [len(added) for added in Stages((9, 5, 3, 1), (50, 100, 500, 1000)).positions()] == [50, 50, 400, 500]


def test_stages_that_do_not_fit():
    stages = Stages((5, 1), (5, 20))
    stages.check(conditions=5, timesteps=20)
    with pytest.raises(ValueError, match=r"to_keep must keep at most the 4 conditions, not \(5, 1\)"):
        stages.check(conditions=4, timesteps=1000)
    with pytest.raises(ValueError, match=r"n_samples must be at most the model's 19 timesteps, not \(5, 20\)"):
        stages.check(conditions=10, timesteps=19)


def test_survivors_have_the_lowest_mean_error():
    errors = np.array([[1, 5, np.nan], [2, 2, np.nan], [0, 3, np.nan], [9, 9, np.nan]], dtype=np.float32)
    assert survivors(errors, [0, 1, 2, 3], 2) == [1, 2]
    assert survivors(errors, [0, 1, 3], 2) == [0, 1]
    assert survivors(errors, [1, 3], 1) == [1]


def test_of_equal_means_the_earlier_condition_is_kept():
    errors = np.ones((4, 2), dtype=np.float32)
    assert survivors(errors, [0, 1, 2, 3], 2) == [0, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_is_that_of_a_slow_loop_to_the_last_bit(dtype, order):
    rng = np.random.default_rng(0)
    for conditions, timesteps in ((1, 1), (7, 3), (40, 25), (9, 300)):
        values = rng.random(timesteps) / 7
        values[1:][rng.random(timesteps - 1) < 0.4] = np.nan
        errors = np.stack([rng.permutation(values) for _ in range(conditions)]).astype(dtype)  # tie but for rounding
        errors, stage = np.array(errors, order=order), rng.integers(0, 3, conditions).tolist()
        slow = sorted(range(conditions), key=lambda c: (-stage[c], mean(errors[c]), c))
        assert rank(errors, stage) == slow


def test_a_survivor_never_ranks_under_an_eliminated_condition():
    """Later timesteps may have larger errors: a mean over all does not compare with one over the first few."""
    errors = np.array([[1.0, 9.0], [2.0, np.nan], [1.5, 8.0], [3.0, np.nan]], dtype=np.float32)
    assert rank(errors, [1, 0, 2, 0]) == [2, 0, 1, 3]


def _slow_probabilities(errors: np.ndarray, stage: list[int]) -> list[float]:
    """Two stages, written out: a softmax over all, then one over the survivors, who share what they had."""
    first = [np.exp(-np.mean([e for j, e in enumerate(row) if not np.isnan(errors[:, j]).any()])) for row in errors]
    first = [value / sum(first) for value in first]
    alive = [i for i, survived in enumerate(stage) if survived >= 1]
    weights = {i: np.exp(-np.mean(errors[i])) for i in alive}
    pool = sum(first[i] for i in alive)
    return [pool * weights[i] / sum(weights.values()) if i in alive else first[i] for i in range(len(stage))]


def test_probabilities_divide_among_survivors_what_they_have_together():
    errors = np.array([[1.0, 9.0, 2.0], [2.0, np.nan, 2.0], [1.5, 8.0, 1.0], [3.0, np.nan, 9.0]], dtype=np.float32)
    stage = [1, 0, 2, 0]
    np.testing.assert_allclose(
        probabilities(errors, stage), _slow_probabilities(errors.astype(float), stage), rtol=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(2, 8), temperature=st.sampled_from([0.1, 1.0, 10.0]))
def test_the_best_condition_has_the_highest_probability(data, count, temperature):
    values = data.draw(st.lists(st.floats(0, 4, width=32), min_size=4 * count, max_size=4 * count))
    full = np.array(values, dtype=np.float32).reshape(count, 4)
    keep = data.draw(st.integers(1, count - 1))
    errors, stage = np.full_like(full, np.nan), np.zeros(count, dtype=int)
    errors[:, :2] = full[:, :2]
    kept = survivors(errors, range(count), keep)
    errors[kept] = full[kept]
    stage[kept] = 1
    stage[survivors(errors, kept, 1)] = 2
    share = probabilities(errors, stage.tolist(), temperature)
    assert share.sum() == pytest.approx(1)
    assert share[rank(errors, stage.tolist())[0]] >= share.max() - 1e-12
