"""Parquet files, read back by pyarrow, against the results file that they come from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bigain.report import parquet as exporting
from bigain.report.parquet import export_parquet
from bigain.run.files import identity_hash
from bigain.run.store import Classified, Generated, Store

CLASSIFIED = ("method", "image", "position", "labels", "prediction", "correct", "confidence", "forwards", "ranking",
              "stage", "errors")  # fmt: skip
GENERATED = ("method", "image", "label", "condition", "recognised", "features")


@pytest.fixture
def store(known_store: Store, classified: Callable[..., Classified]) -> Store:
    """With an image whose errors were evaluated in part, and a generated one without label and features."""
    errors = np.array([[0.5, 0.125], [0.25, np.nan], [1e-30, np.nan]], dtype=np.float32)
    known_store.add_classified("none", [classified("0-late", 7, (1,), (1, 0, 2), errors)])
    png = next(known_store.generated("none")).file
    known_store.add_generated("todo:factor=2", [Generated(9, None, "a cat, asleep", png)])
    return known_store


def test_a_row_per_classified_image_has_what_the_store_has(store: Store, tmp_path: Path) -> None:
    export_parquet(store, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert tuple(table.column_names) == CLASSIFIED
    found = table.to_pylist()
    wanted = [(method, row) for method in store.methods() for row in store.classified(method)]
    assert len(found) == len(wanted) == 9
    for values, (method, row) in zip(found, wanted, strict=True):
        assert (values["method"], values["image"], values["position"]) == (method, row.id, row.position)
        for name in ("labels", "ranking", "stage"):
            assert tuple(values[name]) == getattr(row, name)
        assert (values["prediction"], values["forwards"]) == (row.prediction, row.forwards)
        assert values["correct"] is (row.prediction in row.labels)
        assert values["confidence"] == row.probability
        evaluated = [None if np.isnan(error) else error for error in row.errors.ravel().tolist()]
        assert values["errors"] == evaluated


def test_a_row_per_generated_image_has_what_the_store_has_but_its_png(store: Store, tmp_path: Path) -> None:
    export_parquet(store, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.generated.parquet")
    assert tuple(table.column_names) == GENERATED
    wanted = [(method, row) for method in store.methods() for row in store.generated(method)]
    assert len(wanted) == 13
    for values, (method, row) in zip(table.to_pylist(), wanted, strict=True):
        features = None if row.features is None else row.features.tolist()
        named = dict(
            zip(GENERATED, (method, row.image, row.label, row.condition, row.recognised, features), strict=True)
        )
        assert values == named


def test_columns_are_compact_and_the_metadata_says_what_run_it_is(store: Store, tmp_path: Path) -> None:
    export_parquet(store, tmp_path / "x.parquet")
    schema = parquet.read_schema(tmp_path / "x.parquet")
    assert schema.field("method").type == pa.dictionary(pa.int32(), pa.string())
    assert schema.field("ranking").type == pa.list_(pa.int16())
    assert schema.field("errors").type == pa.list_(pa.float32())
    for name in ("x.parquet", "x.generated.parquet"):
        about: dict[bytes, bytes] = parquet.read_schema(tmp_path / name).metadata
        assert about[b"bigain.hash"].decode() == identity_hash(store.identity)
        assert json.loads(about[b"bigain.settings"]) == store.identity
        assert json.loads(about[b"bigain.facts"]) == store.facts
    assert json.loads(schema.metadata[b"bigain.errors_shape"]) == [3, 2]


def test_rows_are_written_in_groups_that_end_at_a_number_of_errors(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_parquet(store, tmp_path / "whole.parquet")
    monkeypatch.setattr(exporting, "_VALUES", 25)  # 4 rows of 6
    monkeypatch.setattr(exporting, "_ROWS", 5)
    export_parquet(store, tmp_path / "parts.parquet")
    for end, groups in (("parquet", 3), ("generated.parquet", 3)):
        parts, whole = (parquet.ParquetFile(tmp_path / f"{name}.{end}") for name in ("parts", "whole"))
        assert (parts.num_row_groups, whole.num_row_groups) == (groups, 1)
        assert parts.read().to_pylist() == whole.read().to_pylist()


def test_a_run_of_images_without_classes_has_an_empty_file_of_classifications(tmp_path: Path) -> None:
    facts = {"conditions": 0, "timesteps": [1], "classes": [], "multi_label": False}
    with Store.open(tmp_path / "r.sqlite", {}, facts) as store:
        store.add_methods(["none"])
        store.add_generated("none", [Generated(0, None, "a cat", b"png")])
        export_parquet(store, tmp_path / "x.parquet")
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 0
    assert parquet.read_table(tmp_path / "x.generated.parquet").column("condition").to_pylist() == ["a cat"]


def test_a_damaged_row_leaves_the_file_that_was_there(store: Store, tmp_path: Path) -> None:
    export_parquet(store, tmp_path / "x.parquet")
    before = (tmp_path / "x.parquet").read_bytes()
    with store.transaction() as connection:
        connection.execute("UPDATE classification SET prediction = 2 WHERE image_id = '0-late'")
    with pytest.raises(ValueError, match="'0-late' classified under none must be as it was written"):
        export_parquet(store, tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").read_bytes() == before
    assert not [*tmp_path.glob("*.partial")]


def test_without_pyarrow_the_extra_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "pyarrow", missing)
    with pytest.raises(ImportError, match=r"extra 'parquet' must be installed .*pip install 'bigain\[parquet\]'"):
        export_parquet(store, tmp_path / "x.parquet")
    assert not [*tmp_path.glob("*.parquet*")]
