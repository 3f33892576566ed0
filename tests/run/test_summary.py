"""One row per method: numbers that can be checked by hand, on a store with known contents."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigain.metrics.accuracy import accuracy_interval, mcnemar, paired_difference
from bigain.metrics.distribution import fid, kid, precision_recall
from bigain.run.files import encode_png
from bigain.run.results import Results, Row, Timings
from bigain.run.store import Classified, Generated, Store
from bigain.run.summary import summarise, timings

Make = Callable[..., Classified]


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


def test_only_images_that_both_have_are_paired(known_store: Store, classified: Make) -> None:
    errors = np.zeros((3, 2), np.float32)
    known_store.add_classified("todo:factor=2", [classified("new", 9, (0,), (0, 1, 2), errors)])
    row = summarise(known_store).rows[1]
    assert (row.classified, row.correct) == (5, 3)
    assert row.change == pytest.approx(-0.25)


def test_several_labels_per_image_give_precision_and_two_kinds_of_average_precision(
    tmp_path: Any, classified: Make
) -> None:
    facts = {"multi_label": True, "conditions": 3, "timesteps": [1], "feature_network": "none"}
    errors = np.zeros((3, 1), dtype=np.float32)
    with Store.open(tmp_path / "r.sqlite", {}, facts) as store:
        store.add_methods(["none"])
        store.add_classified(
            "none",
            [
                classified("x", 0, (0, 2), (2, 1, 0), errors),
                classified("y", 1, (1,), (0, 1, 2), errors),
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
    png = next(known_store.generated("none")).file
    known_store.add_generated("abm-0.3", [Generated(n, None, "a cat", png) for n in range(3)])
    row = summarise(known_store).rows[2]
    assert (row.generated, row.fid, row.recognised) == (3, None, None)
    assert row.psnr is not None


def test_results_and_times_come_back_from_json(known_store: Store) -> None:
    results, times = summarise(known_store), timings(known_store)
    assert Results.from_json(asdict(results)) == results
    assert Timings.from_json(asdict(times)) == times


def test_precision_and_recall_are_those_of_the_stored_features(known_store: Store) -> None:
    plain, todo = summarise(known_store).rows
    assert (plain.precision, plain.recall) == (1.0, 1.0), "the very same features"
    assert (todo.precision, todo.recall) == (0.0, 0.0), "every feature is 10 higher, far out of every ball"
    real = known_store.reference()[1]
    known_store.add_methods(["none", "todo:factor=2", "abm:ratio=0.3"])
    png, features = next(known_store.generated("none")).file, real + np.float32(1.5)
    known_store.add_generated("abm:ratio=0.3", [Generated(n, 0, "x", png, 0, one) for n, one in enumerate(features)])
    row = summarise(known_store).rows[2]
    assert (row.precision, row.recall) == pytest.approx(precision_recall(real, features, 3))
    assert row.precision not in (0.0, 1.0), "a case that can tell"


def test_images_of_which_some_lack_features_are_an_error(known_store: Store) -> None:
    png = next(known_store.generated("none")).file
    known_store.add_generated("todo:factor=2", [Generated(6, 0, "x", png)])
    with pytest.raises(ValueError, match="image 6 of todo:factor=2 must have 2 features as the others, not none"):
        summarise(known_store)
    with pytest.raises(ValueError, match="image 6 of todo:factor=2"):
        summarise(known_store, ["todo:factor=2"])


def test_an_unfinished_run_says_what_it_lacks(known_store: Store) -> None:
    assert summarise(known_store).gaps() == []
    with known_store.transaction() as connection:
        connection.execute("DELETE FROM classification WHERE method = 'none' AND image_id = 'i0'")
        connection.execute("DELETE FROM generation WHERE method = 'todo:factor=2' AND image < 2")
    results = summarise(known_store)
    assert (results.rows[1].change_images, results.rows[1].psnr_images) == (3, 4)
    assert results.gaps() == [
        "todo:factor=2 has 4 classified images and no compression 3; the two are compared on the 3 that both have.",
        "todo:factor=2 has 4 generated images and no compression 6; the two are compared on the 4 that both have.",
    ]


def test_images_are_paired_by_number_where_both_have_gaps(known_store: Store) -> None:
    plain = {row.image: row.frames[0].astype(float) for row in known_store.generated("none")}
    todo = {row.image: row.frames[0].astype(float) for row in known_store.generated("todo:factor=2")}
    with known_store.transaction() as connection:
        connection.execute("DELETE FROM generation WHERE method = 'none' AND image IN (0, 3, 5)")
        connection.execute("DELETE FROM generation WHERE method = 'todo:factor=2' AND image IN (1, 3)")
    row = summarise(known_store).rows[1]
    wanted = np.mean([np.square(todo[image] - plain[image]).mean() for image in (2, 4)])
    assert (row.psnr_images, row.psnr) == (2, pytest.approx(10 * np.log10(255**2 / wanted), rel=1e-5))


def _held(tmp_path: Path, images: int, make: Make) -> int:
    """Bytes at the peak of a summary of so many images under two methods, 16 kB each unpacked, and 3 kB as a file."""
    rng, errors = np.random.default_rng(0), np.zeros((200, 20), np.float32)
    facts = {"multi_label": False, "conditions": 200, "timesteps": [*range(20)], "feature_network": "none"}
    with Store.open(tmp_path / f"{images}.sqlite", {}, facts) as store:
        store.add_methods(["none", "todo-2"])
        for spec in store.methods():
            store.add_classified(spec, [make(f"i{n}", n, (0,), tuple(range(200)), errors) for n in range(images)])
            pixels = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
            store.add_generated(spec, [Generated(n, 0, "x", encode_png(one)) for n, one in enumerate(pixels)])
        summarise(store)  # what is imported and cached at first
        tracemalloc.start()
        summarise(store)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def test_a_summary_holds_little_of_each_image(tmp_path: Path, classified: Make) -> None:
    few, many = (_held(tmp_path, images, classified) for images in (100, 500))
    assert (many - few) / 400 < 4000, "two methods hold both: 40 kB if they held all of it"


def test_without_no_compression_nothing_is_compared(known_store: Store) -> None:
    with known_store.transaction() as connection:
        for table, column in (("classification", "method"), ("generation", "method"), ("method", "spec")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = 'none'")
    results = summarise(known_store)
    [row] = results.rows
    assert (row.change, row.psnr, row.flops_change, row.mcnemar_p) == (None, None, None, None)
    assert results.gaps()[0].startswith("No compression (none) was not measured")
