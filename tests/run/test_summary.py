"""One row per method: numbers that can be checked by hand, on a store with known contents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bigain.metrics.accuracy import accuracy_interval, mcnemar, paired_difference
from bigain.metrics.distribution import fid, kid
from bigain.run.store import Classified, Generated, Store
from bigain.run.summary import Results, Row, Timings, summarise, timings


@pytest.fixture
def rows(known_store: Store) -> tuple[Row, Row]:
    first, second = summarise(known_store).rows
    return first, second


def test_classification_is_counted_and_paired(rows: tuple[Row, Row]) -> None:
    plain, todo = rows
    assert (plain.classified, plain.correct, plain.accuracy) == (4, 3, 0.75)
    assert (plain.accuracy_low, plain.accuracy_high) == pytest.approx(accuracy_interval(3, 4), rel=1e-5)
    assert plain.class_accuracy == pytest.approx((0.5 + 1 + 1) / 3, rel=1e-5)
    assert plain.change is None
    right, plain_right = (True, False, False, True), (True, True, True, False)
    assert todo.accuracy == 0.5
    found = (todo.change, todo.change_low, todo.change_high)
    assert found == pytest.approx(paired_difference(right, plain_right), rel=1e-5)
    assert todo.mcnemar_p == mcnemar(right, plain_right)


def test_generation_is_compared_with_real_and_uncompressed_images(rows: tuple[Row, Row], known_store: Store) -> None:
    plain, todo = rows
    real = known_store.reference()[1]
    assert plain.fid == pytest.approx(0, abs=1e-6)
    assert todo.fid == pytest.approx(fid(real, real + 10), rel=1e-4)
    assert todo.kid == pytest.approx(kid(real, real + 10)[0], rel=1e-4)
    assert plain.psnr is None
    assert todo.psnr == pytest.approx(10 * np.log10(255**2 / 10**2), rel=1e-5)
    assert (plain.generated, plain.recognised, todo.recognised) == (6, pytest.approx(4 / 6, rel=1e-5), 1.0)


def test_cost_is_relative_to_no_compression(rows: tuple[Row, Row], known_store: Store) -> None:
    assert (rows[0].flops, rows[0].flops_change, rows[1].flops, rows[1].flops_change) == (1000, None, 900, -0.1)
    found = timings(known_store)
    assert (found.methods["none"].median, found.methods["none"].low, found.methods["none"].forwards) == (3.0, 2.5, 3)
    assert found.environment["threads"] == 1


def test_only_images_that_both_have_are_paired(known_store: Store) -> None:
    errors = np.zeros((3, 2), np.float32)
    known_store.add_classified("todo:factor=2", [Classified("new", 9, (0,), 0, (0, 1, 2), (1, 0, 0), errors)])
    row = summarise(known_store).rows[1]
    assert (row.classified, row.correct) == (5, 3)
    assert row.change == pytest.approx(-0.25)


def test_several_labels_per_image_give_precision_and_two_kinds_of_average_precision(tmp_path: Any) -> None:
    facts = {"multi_label": True, "conditions": 3, "timesteps": [1], "feature_network": "none"}
    errors = np.zeros((3, 1), dtype=np.float32)
    with Store.open(tmp_path / "r.sqlite", {}, facts) as store:
        store.add_methods(["none"])
        store.add_classified(
            "none",
            [
                Classified("x", 0, (0, 2), 2, (2, 1, 0), (1, 0, 0), errors),
                Classified("y", 1, (1,), 0, (0, 1, 2), (1, 0, 0), errors),
            ],
        )
        row = summarise(store).rows[0]
    assert row.accuracy == 0.5
    assert row.class_accuracy is None
    assert row.image_ap == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2, rel=1e-5)
    # By rank: class 0 is 3rd for x and 1st for y, of which only x shows it; class 1 is 2nd for both; class 2 1st for x.
    assert row.class_map == pytest.approx((1 / 2 + 1 / 2 + 1) / 3, rel=1e-5)


def test_a_run_that_has_only_begun_has_rows_without_values(tmp_path: Any) -> None:
    with Store.open(tmp_path / "r.sqlite", {}, {"conditions": 3, "timesteps": [1]}) as store:
        store.add_methods(["none", "todo-2"])
        found = summarise(store)
    assert found.rows == (Row(method="none"), Row(method="todo-2"))
    assert found.reference is None


def test_generated_images_without_features_have_no_fid(known_store: Store) -> None:
    known_store.add_methods(["none", "todo:factor=2", "abm-0.3"])
    png = known_store.generated("none")[0].png
    known_store.add_generated("abm-0.3", [Generated(n, None, "a cat", png) for n in range(3)])
    row = summarise(known_store).rows[2]
    assert (row.generated, row.fid, row.recognised) == (3, None, None)
    assert row.psnr is not None


def test_results_and_times_come_back_from_json(known_store: Store) -> None:
    results, times = summarise(known_store), timings(known_store)
    assert Results.from_json(results.to_json()) == results
    assert Timings.from_json(times.to_json()) == times
    with pytest.raises(ValueError, match="format"):
        Results.from_json({"format": "something else"})
