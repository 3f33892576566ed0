"""The results file: what goes in comes out, all or nothing, and only into the run that it belongs to."""

from __future__ import annotations

import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigain.run.database import checksum
from bigain.run.store import _PAGE, Classified, Generated, Store, _create

FACTS = {"conditions": 3, "timesteps": [1, 2]}
ERRORS = np.array([[0.1, np.nan], [1e-30, 2.5], [np.nan, np.nan]], dtype=np.float32)


def image(name: str, position: int = 0) -> Classified:
    return Classified(
        id=name, position=position, labels=(2, 0), prediction=1, ranking=(1, 0, 2), stage=(2, 1, 0), errors=ERRORS
    )


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
        assert [row.id for row in store.classified("none")] == ["a", "b"]
        row = [*store.classified("none")][1]
        assert (row.position, row.labels, row.prediction, row.ranking, row.stage) == (
            1,
            (2, 0),
            1,
            (1, 0, 2),
            (2, 1, 0),
        )
        np.testing.assert_array_equal(row.errors, ERRORS)
        first, second = store.generated("none")
        assert (first.image, first.label, first.condition, first.file, first.recognised) == (1, 2, "x", b"q", 2)
        np.testing.assert_array_equal(first.features, features)
        assert (second.image, second.label, second.recognised, second.features) == (3, None, None, None)
        facts, real = store.reference()
        assert facts == {"images": 2}
        np.testing.assert_array_equal(real, np.stack([features, features]))
        assert store.facts == FACTS


def test_an_image_that_is_there_stays_as_it_is(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        store.add_generated("none", [Generated(0, 1, "x", b"first")])
        store.add_generated("none", [Generated(0, 1, "x", b"second"), Generated(1, 1, "x", b"new")])
        assert [row.file for row in store.generated("none")] == [b"first", b"new"]
        assert store.generated_images("none") == {0, 1}


def test_many_rows_are_read_page_by_page_in_order_and_once(path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(3 * _PAGE + 1).tolist()
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none", "todo-2"])
        for spec in store.methods():
            # Pairs of one position, as where a folder of images has grown: the id decides.
            store.add_classified(spec, [image(f"{number:04d}", number // 2) for number in numbers])
            store.add_generated(spec, [Generated(number, 1, "x", b"png") for number in numbers])
        assert [row.id for row in store.classified("todo-2")] == [f"{number:04d}" for number in sorted(numbers)]
        assert [row.image for row in store.generated("todo-2")] == sorted(numbers)
        assert not [*store.classified("lgtm-0.5")]


def test_what_is_read_in_part_leaves_the_file_free(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        store.add_classified("none", [image(f"{number:04d}", number) for number in range(2 * _PAGE)])
        rows = store.classified("none")
        next(rows)
        store.add_classified("none", [image("last", 2 * _PAGE)])
        store.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.with_name("results.sqlite-wal").stat().st_size == 0, "no cursor is open"
        assert sum(1 for _ in rows) == 2 * _PAGE, "what was written meanwhile is there too"


@pytest.mark.parametrize("read", ["classified", "classified_ids", "generated", "generated_images"])
def test_what_is_read_of_a_method_is_found_by_an_index_and_not_sorted(path: Path, read: str) -> None:
    with Store.open(path, {}, FACTS) as store:
        asked: list[str] = []
        store.connection.set_trace_callback(asked.append)
        [*getattr(store, read)("none")]
        store.connection.set_trace_callback(None)
        [plan] = [store.rows(f"EXPLAIN QUERY PLAN {query}") for query in asked]
    steps = [step[-1] for step in plan]
    assert len(steps) == 1, steps
    assert re.match(r"SEARCH (TABLE )?\w+ USING (COVERING )?INDEX", steps[0]), steps


def test_the_size_of_a_row_is_that_of_what_was_evaluated(path: Path) -> None:
    rng, classes, timesteps = np.random.default_rng(0), 1000, 25
    errors = np.full((classes, timesteps), np.nan, dtype=np.float32)
    errors[:, 2::5] = 0.1 * (1 + 0.05 * rng.standard_normal((classes, 5)))
    ranking = tuple(rng.permutation(classes).tolist())
    row = replace(image("a"), errors=errors, ranking=ranking, stage=(0,) * classes, prediction=ranking[0])
    facts = {"conditions": classes, "timesteps": [*range(timesteps)]}
    with Store.open(path, {}, facts) as store:
        store.add_methods(["none"])
        store.add_classified("none", [row])
        [(found,)] = store.rows("SELECT length(ranking) + length(stage) + length(evaluated) + length(errors) "
                                "FROM classification")  # fmt: skip
        np.testing.assert_array_equal(next(store.classified("none")).errors, errors)
    assert found < 17_500, "20,000 bytes of errors, 2,000 of ranking and 1,000 of stages before"


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none"])
        new_then_known = [("abm-0.3", 1), ("none", 2)]
        with pytest.raises(ValueError, match="UNIQUE"), store.transaction() as connection:
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
        with pytest.raises(ValueError, match="must be a results file of bigain evaluate, not"):
            Store(path)
    with pytest.raises(FileNotFoundError, match=r"c\.sqlite"):
        Store(tmp_path / "c.sqlite")


@pytest.mark.parametrize("version", [3, 99])
def test_another_version_of_the_format_is_refused(path: Path, version: int) -> None:
    Store.open(path, {}, FACTS).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ValueError, match=f"version 5 of the results format, not {version}: run again"):
        Store(path)


def test_methods_keep_the_order_of_the_latest_plan(path: Path) -> None:
    with Store.open(path, {}, FACTS) as store:
        store.add_methods(["none", "a", "b"])
        store.set_flops("b", 7, [4, 2])
        store.add_methods(["none", "c", "b"])
        assert store.methods() == ["none", "c", "b", "a"]
        assert store.flops() == {"b": 7}
        assert store.layer_flops() == {"b": [4, 2]}


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


def _change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement, values).rowcount == 1


@pytest.fixture
def small(path: Path) -> Path:
    """One image of each kind, with a reference, FLOPs and times."""
    with Store.open(path, {"seed": 0}, FACTS) as store:
        store.add_methods(["none"])
        store.set_flops("none", 8, [3, 4])
        store.add_classified("none", [image("a")])
        store.add_generated("none", [Generated(3, 1, "x", b"png", 1, np.ones(2, np.float32))])
        store.set_reference({"images": 1}, np.ones((1, 2), np.float32))
        store.set_timing({}, {"none": [1.5]})
    return path


@pytest.mark.parametrize(
    ("column", "named"),
    [
        *((f"classification.{name}", "image 'a' classified under none")
          for name in ("position", "labels", "prediction", "ranking", "stage", "evaluated", "errors", "forwards")),
        *((f"generation.{name}", "image 3 generated under none")
          for name in ("label", "condition", "file", "recognised", "features")),
        ("reference.features", "the features of the real images"),
        ("reference.facts", "the features of the real images"),
        ("method.flops", "the FLOPs of none"),
        ("method.layers", "the FLOPs of none"),
        ("timing.milliseconds", "the times of none"),
        ("run.settings", "the settings of the run"),
        ("run.facts", "the settings of the run"),
    ],
)  # fmt: skip
def test_a_flipped_bit_is_an_error_that_names_method_and_image(small: Path, column: str, named: str) -> None:
    table, name = column.split(".")
    with sqlite3.connect(small) as connection:
        [(value,)] = connection.execute(f"SELECT {name} FROM {table}").fetchall()
    if isinstance(value, int):
        altered: object = value ^ 4
    else:
        content = bytearray(value.encode() if isinstance(value, str) else value)
        content[len(content) // 2] ^= 4
        altered = content.decode() if isinstance(value, str) else bytes(content)
    _change(small, f"UPDATE {table} SET {name} = ?", altered)
    with pytest.raises(ValueError, match=f"{named} must be as it was written, but has changed"):
        _read_all(small)


def _read_all(path: Path) -> None:
    with Store(path) as store:
        for read in (store.reference, store.flops, store.timing):
            read()
        for read_images in (store.classified, store.generated):
            assert [*read_images("none")]


def test_a_value_that_is_missing_is_a_change_too(small: Path) -> None:
    _change(small, "UPDATE generation SET features = NULL")
    with Store(small) as store, pytest.raises(ValueError, match="image 3 generated under none must be as it was"):
        next(store.generated("none"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": 999}, "prediction of image 'b' classified under none must fit 3 classes, 3 .*, not 999"),
        ({"labels": (3,)}, "labels of image 'b'"),
        ({"ranking": (1, 0)}, "ranking of image 'b'"),
        ({"ranking": (1, 0, 0)}, "ranking of image 'b'"),
        ({"stage": (1,)}, "stage of image 'b'"),
        ({"errors": np.zeros((3, 1), np.float32)}, "errors of image 'b'"),
    ],
)
def test_a_row_that_does_not_fit_the_run_is_named(path: Path, change: dict[str, Any], words: str) -> None:
    with Store.open(path, {}, FACTS | {"classes": ["A", "B", "C"]}) as store:
        store.add_methods(["none"])
        store.add_classified("none", [image("a"), replace(image("b", 1), **change)])
        with pytest.raises(ValueError, match=words):
            [*store.classified("none")]


def test_settings_that_do_not_have_their_hash_are_refused(path: Path) -> None:
    Store.open(path, {"seed": 0}, FACTS).close()
    with sqlite3.connect(path) as connection:
        [(digest, facts)] = connection.execute("SELECT hash, facts FROM run").fetchall()
    fitting = checksum((digest, '{"seed":1}', facts))
    _change(path, "UPDATE run SET settings = ?, checksum = ?", '{"seed":1}', fitting)
    with pytest.raises(ValueError, match=f"must have the hash {digest}, not another"):
        Store(path)


def test_a_damaged_file_is_named_with_what_to_do(small: Path) -> None:
    content = bytearray(small.read_bytes())
    pages = range(4096, len(content), 4096)
    for page in pages:
        content[page : page + 2048] = b"\xff" * 2048
    small.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.sqlite must be whole, not damaged: .*Take the file from a copy"):
        _read_all(small)


def test_a_full_disk_says_that_what_is_done_is_kept(small: Path) -> None:
    rng = np.random.default_rng(0)
    with Store(small) as store:
        [(pages,)] = store.rows("PRAGMA page_count")
        store.rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=r"must be on a disk that has room .* full.*give the same command again"):
            store.add_generated("none", [Generated(9, 0, "x", rng.bytes(100_000))])
    with Store(small) as store:
        assert store.generated_images("none") == {3}


def test_closing_does_not_hide_the_error_before_it(small: Path) -> None:
    def fail() -> None:
        with Store.open(small, {"seed": 0}, FACTS) as store:
            store.set_flops("none", 9)
            reading = store.connection.execute("SELECT * FROM generation, (SELECT 1 UNION SELECT 2)")
            reading.fetchone()  # an open cursor: nothing can be moved into the file, the database table is locked
            raise KeyError("the true one", reading)

    with pytest.raises(KeyError, match="the true one"):
        fail()
    with Store(small) as store:
        assert store.flops() == {"none": 9}


def test_a_finished_file_on_storage_that_cannot_be_written_is_read(small: Path, monkeypatch: Any) -> None:
    before = sorted(small.parent.iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store(small) as store:
        assert [row.id for row in store.classified("none")] == ["a"]
        assert sorted(small.parent.iterdir()) == before, "nothing is made beside it"
        with pytest.raises(OSError, match="can be written"):
            store.set_flops("none", 9)
    small.with_name("results.sqlite-wal").write_bytes(b"log")
    with pytest.raises(OSError, match=r"has not finished: copy .*-wal too"):
        Store(small)
