"""A run's rows as Parquet, for tools that read tables, such as pandas, Polars and DuckDB; needs pyarrow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bigain.run.files import identity_hash

if TYPE_CHECKING:
    from bigain.run.store import Store

_VALUES = 2**22  # of errors that a group of rows holds at most, 16 MiB
_ROWS = 4096  # of a group at most


def export_parquet(store: Store, path: Path) -> None:
    """Writes ``path`` (x.parquet), a row per method and classified image, and x.generated.parquet, one per generated.

    Rows stand by method, in the order of the run, then by image. Classes are numbers, whose names are in the facts;
    ``ranking`` has them best first, ``stage`` says per condition how many rounds it survived, and ``errors`` are those
    of the first condition at every timestep, then of the next, null where not evaluated. The metadata of both files
    has "bigain.hash", "bigain.settings" and "bigain.facts" of the run, and of the first "bigain.errors_shape",
    (conditions, timesteps), as JSON. A few thousand rows are held at a time.

    The images themselves stay in the results file: they are nearly all of its bytes, PNG files that Parquet cannot make
    smaller, and a tool that shows a table would load them all.

    Raises:
        ImportError: pyarrow is missing.
        ValueError: a row is damaged; what was there before stays.
    """
    shape = (store.facts["conditions"], len(store.facts["timesteps"]))
    about = {"hash": identity_hash(store.identity), "settings": json.dumps(store.identity)}
    about["facts"] = json.dumps(store.facts)
    classified, generated = _columns(_pyarrow(), most=max(shape))
    size = min(_ROWS, max(1, _VALUES // max(1, shape[0] * shape[1])))
    _write(path, classified, about | {"errors_shape": json.dumps(shape)}, _classified(store), size)
    _write(path.with_suffix(".generated.parquet"), generated, about, _generated(store), _ROWS)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "the extra 'parquet' must be installed for Parquet files: pip install 'bigain[parquet]'"
        ) from error
    return pyarrow


def _columns(pa: ModuleType, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of both files' columns, by name; ``most`` is the most conditions or timesteps."""
    small = pa.int16() if most < 2**15 else pa.int32()  # holds a class, and a number of rounds
    method = pa.dictionary(pa.int32(), pa.string())
    classified = {
        "method": method,
        "image": pa.string(),
        "position": pa.int32(),
        "labels": pa.list_(small),
        "prediction": small,
        "correct": pa.bool_(),
        "confidence": pa.float64(),
        "forwards": pa.int32(),
        "ranking": pa.list_(small),
        "stage": pa.list_(small),
        "errors": pa.list_(pa.float32()),
    }
    generated = {
        "method": method,
        "image": pa.int32(),
        "label": small,
        "condition": pa.string(),
        "recognised": small,
        "features": pa.list_(pa.float32()),
    }
    return classified, generated


def _classified(store: Store) -> Iterator[tuple[Any, ...]]:
    for method in store.methods():
        for row in store.classified(method):
            judged = (row.prediction, row.prediction in row.labels, row.probability, row.forwards)
            yield method, row.id, row.position, row.labels, *judged, row.ranking, row.stage, row.errors.ravel()


def _generated(store: Store) -> Iterator[tuple[Any, ...]]:
    for method in store.methods():
        for row in store.generated(method):
            yield method, row.image, row.label, row.condition, row.recognised, row.features


def _write(
    path: Path, columns: dict[str, Any], about: dict[str, str], rows: Iterator[tuple[Any, ...]], size: int
) -> None:
    """Writes groups of ``size`` rows as they come; the file is either the old or the new one."""
    pa = _pyarrow()
    schema = pa.schema(columns.items(), {f"bigain.{name}": text for name, text in about.items()})
    leaves = {name: f"{name}.list.element" if pa.types.is_list(kind) else name for name, kind in columns.items()}
    floats = [leaf for name, leaf in leaves.items() if columns[name] == pa.list_(pa.float32())]
    # Errors hardly repeat, but their first bytes do, which so lie together; everything else repeats.
    repeating = [leaf for leaf in leaves.values() if leaf not in floats]
    options = {"compression": "zstd", "use_dictionary": repeating, "use_byte_stream_split": floats}
    partial = path.with_name(f"{path.name}.partial")
    try:
        with pa.parquet.ParquetWriter(partial, schema, **options) as writer:
            while group := [*islice(rows, size)]:
                values = zip(*group, strict=True)
                arrays = [pa.array(own, kind, from_pandas=True) for own, kind in zip(values, schema.types, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
