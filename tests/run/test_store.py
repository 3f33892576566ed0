"""The results file: what goes in comes out, all or nothing, and only into the run that it belongs to."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from bigain.run.store import Classified, Generated, Store, _create

FACTS = {"conditions": 3, "timesteps": [1, 2]}
ERRORS = np.array([[0.1, np.nan], [1e-30, 2.5], [np.nan, np.nan]], dtype=np.float32)


def image(name: str, position: int = 0) -> Classified:
    return Classified(name, position, (2, 0), 1, (1, 0, 2), (2, 1, 0), ERRORS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "results.sqlite"


def test_rows_come_out_as_they_went_in_also_after_reopening(path: Path) -> None:
    features = np.array([1.5, -2.25], dtype=np.float32)
    with Store.open(path, {"seed": 0}, FACTS) as store:
        store.add_methods(["none"])
        store.add_classified("none", [image("b", 1), image("a", 0)])
        store.add_generated(
            "none", [Generated(3, None, "a cat", b"png", None, None), Generated(1, 2, "x", b"q", 2, features)]
        )
        store.set_reference({"images": 2}, np.stack([features, features]))
    with Store.open(path, {"seed": 0}, {"other": "facts"}) as store:
        assert [row.image_id for row in store.classified("none")] == ["a", "b"]
        row = store.classified("none")[1]
        assert (row.position, row.labels, row.prediction, row.ranking, row.stage) == (
            1,
            (2, 0),
            1,
            (1, 0, 2),
            (2, 1, 0),
        )
        np.testing.assert_array_equal(row.errors, ERRORS)
        first, second = store.generated("none")
        assert (first.image, first.label, first.condition, first.png, first.recognised) == (1, 2, "x", b"q", 2)
        np.testing.assert_array_equal(first.features, features)
        assert (second.image, second.label, second.recognised, second.features) == (3, None, None, None)
        assert [row.image for row in store.generated("none", 1)] == [1]
        facts, real = store.reference()
        assert facts == {"images": 2}
        np.testing.assert_array_equal(real, np.stack([features, features]))
        assert store.facts == FACTS


def test_an_image_that_is_there_stays_as_it_is(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        store.add_generated("none", [Generated(0, 1, "x", b"first")])
        store.add_generated("none", [Generated(0, 1, "x", b"second"), Generated(1, 1, "x", b"new")])
        assert [row.png for row in store.generated("none")] == [b"first", b"new"]
        assert store.generated_images("none") == {0, 1}


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        new_then_known = [("abm-0.3", 1), ("none", 2)]
        with pytest.raises(sqlite3.IntegrityError), store.transaction() as connection:
            connection.executemany("INSERT INTO method (spec, position) VALUES (?, ?)", new_then_known)
        assert store.methods() == ["none"]


def test_what_was_written_is_there_for_another_process_before_the_file_is_closed(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        store.add_classified("none", [image("a")])
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT count(*) FROM classification").fetchone() == (1,)
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_of_other_settings_is_refused_with_the_fields_and_both_values(path: Path) -> None:
    Store.open(path, {"seed": 0, "dtype": "float32", "steps": 20}, FACTS).close()
    with pytest.raises(ValueError, match=r"other settings: seed is 0 there and 1 here; dtype is \"float32\" there and"):
        Store.open(path, {"seed": 1, "dtype": "bfloat16", "steps": 20}, FACTS)
    Store.open(path, {"seed": 0, "dtype": "float32", "steps": 20}, FACTS).close()


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    text.write_text("no database, but long enough to be looked at" * 50)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE run (x)")
    for path in (text, other):
        with pytest.raises(ValueError, match="no results file"):
            Store(path)
    with pytest.raises(FileNotFoundError, match=r"c\.sqlite"):
        Store(tmp_path / "c.sqlite")


def test_a_later_version_of_the_format_is_refused(path: Path) -> None:
    Store.open(path, {}, FACTS).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99"):
        Store(path)


def test_methods_keep_the_order_of_the_latest_plan(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none", "a", "b"])
        store.set_flops("b", 7)
        store.add_methods(["none", "c", "b"])
        assert store.methods() == ["none", "c", "b", "a"]
        assert store.flops() == {"b": 7}


def test_timings_replace_each_other_as_a_whole(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        assert store.timing() == ({}, {})
        store.add_methods(["none", "a"])
        store.set_timing({"threads": 1}, {"none": [1.0], "a": [2.0]})
        store.set_timing({"threads": 2}, {"none": [3.0]})
        assert store.timing() == ({"threads": 2}, {"none": [3.0]})


def test_sets_of_versions_are_listed_once(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        for torch in ("1", "2", "1"):
            store.begin_session({"torch": torch}, {})
        assert store.versions() == [{"torch": "1"}, {"torch": "2"}]


def test_a_file_that_another_process_made_meanwhile_stays(path: Path) -> None:
    path.parent.mkdir()
    _create(path, {"seed": 0}, FACTS)
    _create(path, {"seed": 1}, FACTS)
    assert [file.name for file in path.parent.iterdir()] == ["results.sqlite"]
    with Store(path) as store:
        assert store.identity == {"seed": 0}
