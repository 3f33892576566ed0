"""The one file of a run: SQLite, written at once, from which a run goes on and every table and picture is drawn."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bigain.run.settings import differences, identity_hash

Floats = npt.NDArray[np.float32]

_APPLICATION = 0x42694761  # "BiGa": SQLite's own mark of what a file belongs to
_SCHEMA = 1
_TABLES = """
CREATE TABLE run (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), hash TEXT NOT NULL, settings TEXT NOT NULL,
    facts TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE session (number INTEGER PRIMARY KEY, started TEXT NOT NULL, versions TEXT NOT NULL,
    environment TEXT NOT NULL);
CREATE TABLE method (spec TEXT PRIMARY KEY, position INTEGER NOT NULL, flops INTEGER);
CREATE TABLE classification (method TEXT NOT NULL REFERENCES method, image_id TEXT NOT NULL, position INTEGER NOT NULL,
    labels TEXT NOT NULL, prediction INTEGER NOT NULL, ranking TEXT NOT NULL, stage TEXT NOT NULL,
    errors BLOB NOT NULL, PRIMARY KEY (method, image_id));
CREATE TABLE generation (method TEXT NOT NULL REFERENCES method, image INTEGER NOT NULL, label INTEGER,
    condition TEXT NOT NULL, png BLOB NOT NULL, recognised INTEGER, features BLOB, PRIMARY KEY (method, image));
CREATE TABLE reference (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), facts TEXT NOT NULL,
    features BLOB NOT NULL);
CREATE TABLE timing (method TEXT PRIMARY KEY REFERENCES method, milliseconds TEXT NOT NULL);
CREATE TABLE timing_environment (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), facts TEXT NOT NULL);
"""


@dataclass(frozen=True, eq=False)
class Classified:
    """One image under one method.

    Args:
        position: of the image in the data.
        labels: what is true of it.
        prediction: a class.
        ranking: classes, best first.
        stage: per condition, the stages that it survived.
        errors: float32 (conditions, timesteps), NaN where not evaluated.
    """

    image_id: str
    position: int
    labels: tuple[int, ...]
    prediction: int
    ranking: tuple[int, ...]
    stage: tuple[int, ...]
    errors: Floats


@dataclass(frozen=True, eq=False)
class Generated:
    """One generated image.

    Args:
        image: number of the image, which seeds its noise.
        label: its class, where it has one.
        condition: what it was asked to show, in words.
        png: the image's file.
        recognised: class that the small recogniser sees in it.
        features: float32 (D,) of the feature network.
    """

    image: int
    label: int | None
    condition: str
    png: bytes
    recognised: int | None = None
    features: Floats | None = None

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """Of the file: uint8 (H, W, 3)."""
        with Image.open(io.BytesIO(self.png)) as image:
            return np.asarray(image.convert("RGB"))


class Store:
    """An open results file; a context manager that closes it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no results file, or of another version of it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no results file {path}")
        self.path = path
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            self._check()
            # A row is kept once its transaction ends, also if the process is killed right after.
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self.connection.close()
            raise

    def _check(self) -> None:
        try:
            application = self._one("PRAGMA application_id")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is no results file of bigain evaluate: {error}") from error
        version = self._one("PRAGMA user_version")
        if application != _APPLICATION:
            raise ValueError(f"{self.path} is no results file of bigain evaluate, but some other SQLite file")
        if version != _SCHEMA:
            raise ValueError(f"{self.path} has version {version} of the results format; this bigain reads {_SCHEMA}")

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], facts: dict[str, Any]) -> Store:
        """Opens the results of a run, or begins them.

        Args:
            identity: what cannot change, see `Settings.identity`.
            facts: what the tables and pictures need to know of the run (classes, sizes, timesteps).

        Raises:
            ValueError: the file holds a run with another identity; names the fields and both values.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, identity, facts)
        store = cls(path)
        there = store.identity
        if identity_hash(there) != identity_hash(identity):
            store.close()
            raise ValueError(
                f"{path} holds a run with other settings: {'; '.join(differences(there, identity))}. "
                "Give another folder with --out, or the settings that are there"
            )
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Moves the write-ahead log into the file and closes it."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is written inside."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run, as it was begun."""
        return dict(json.loads(self._one("SELECT settings FROM run")))

    @property
    def facts(self) -> dict[str, Any]:
        """Of the run, as it was begun."""
        return dict(json.loads(self._one("SELECT facts FROM run")))

    def begin_session(self, versions: dict[str, str], environment: dict[str, Any]) -> None:
        """Notes that a process works on the run from now on."""
        row = (datetime.now(timezone.utc).isoformat(), _text(versions), _text(environment))
        with self.transaction() as connection:
            connection.execute("INSERT INTO session (started, versions, environment) VALUES (?, ?, ?)", row)

    def versions(self) -> list[dict[str, str]]:
        """The different sets of versions that worked on the run, in the order of their first session."""
        rows = self.connection.execute("SELECT versions FROM session GROUP BY versions ORDER BY min(number)")
        return [json.loads(text) for (text,) in rows]

    def add_methods(self, specs: Sequence[str]) -> None:
        """Adds methods; the given ones come first, in their order, and others that are there keep theirs."""
        others = [spec for spec in self.methods() if spec not in specs]
        with self.transaction() as connection:
            connection.executemany(
                "INSERT INTO method (spec, position) VALUES (?, ?) "
                "ON CONFLICT (spec) DO UPDATE SET position = excluded.position",
                [(spec, position) for position, spec in enumerate([*specs, *others])],
            )

    def methods(self) -> list[str]:
        """Specs in order."""
        return [spec for (spec,) in self.connection.execute("SELECT spec FROM method ORDER BY position")]

    def set_flops(self, spec: str, flops: int) -> None:
        """FLOPs of one forward of one image."""
        with self.transaction() as connection:
            connection.execute("UPDATE method SET flops = ? WHERE spec = ?", (flops, spec))

    def flops(self) -> dict[str, int]:
        """FLOPs of one forward of one image, by method, where counted."""
        return dict(self.connection.execute("SELECT spec, flops FROM method WHERE flops IS NOT NULL"))

    def add_classified(self, spec: str, rows: Iterable[Classified]) -> None:
        """Keeps a batch, all or nothing; an image that is there already stays as it is."""
        values = [
            (
                spec,
                row.image_id,
                row.position,
                _text(row.labels),
                row.prediction,
                _text(row.ranking),
                _text(row.stage),
                _pack(row.errors),
            )
            for row in rows
        ]
        with self.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO classification VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def classified_ids(self, spec: str) -> set[str]:
        """Images done under a method."""
        rows = self.connection.execute("SELECT image_id FROM classification WHERE method = ?", (spec,))
        return {image_id for (image_id,) in rows}

    def classified(self, spec: str) -> list[Classified]:
        """Images of a method in the order of the data."""
        conditions, timesteps = self.facts["conditions"], len(self.facts["timesteps"])
        rows = self.connection.execute(
            "SELECT image_id, position, labels, prediction, ranking, stage, errors FROM classification "
            "WHERE method = ? ORDER BY position, image_id",
            (spec,),
        )
        return [
            Classified(
                image_id,
                position,
                tuple(json.loads(labels)),
                prediction,
                tuple(json.loads(ranking)),
                tuple(json.loads(stage)),
                _unpack(errors).reshape(conditions, timesteps),
            )
            for image_id, position, labels, prediction, ranking, stage, errors in rows
        ]

    def add_generated(self, spec: str, rows: Iterable[Generated]) -> None:
        """Keeps a batch, all or nothing; an image that is there already stays as it is."""
        values = [
            (
                spec,
                row.image,
                row.label,
                row.condition,
                row.png,
                row.recognised,
                None if row.features is None else _pack(row.features),
            )
            for row in rows
        ]
        with self.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO generation VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def generated_images(self, spec: str) -> set[int]:
        """Numbers of the images done under a method."""
        rows = self.connection.execute("SELECT image FROM generation WHERE method = ?", (spec,))
        return {image for (image,) in rows}

    def generated(self, spec: str, limit: int = -1) -> list[Generated]:
        """The first ``limit`` (all of them if negative) images of a method, by number."""
        rows = self.connection.execute(
            "SELECT image, label, condition, png, recognised, features FROM generation "
            "WHERE method = ? ORDER BY image LIMIT ?",
            (spec, limit),
        )
        return [
            Generated(image, label, condition, png, seen, None if features is None else _unpack(features))
            for image, label, condition, png, seen, features in rows
        ]

    def set_reference(self, facts: dict[str, Any], features: Floats) -> None:
        """Keeps the features (N, D) of the real images that FID compares with."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO reference VALUES (1, ?, ?)",
                (_text(facts | {"shape": list(features.shape)}), _pack(features)),
            )

    def reference(self) -> tuple[dict[str, Any], Floats] | None:
        """What the real images are, and their features (N, D)."""
        row = self.connection.execute("SELECT facts, features FROM reference").fetchone()
        if row is None:
            return None
        facts = json.loads(row[0])
        return facts, _unpack(row[1]).reshape(facts.pop("shape"))

    def set_timing(self, environment: dict[str, Any], milliseconds: dict[str, list[float]]) -> None:
        """Replaces all timings: only what was measured together compares."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM timing")
            connection.executemany(
                "INSERT INTO timing VALUES (?, ?)", [(spec, _text(times)) for spec, times in milliseconds.items()]
            )
            connection.execute("INSERT OR REPLACE INTO timing_environment VALUES (1, ?)", (_text(environment),))

    def timing(self) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Where and how it was timed, and the milliseconds of each timed forward by method; empty before."""
        environment = self.connection.execute("SELECT facts FROM timing_environment").fetchone()
        rows = self.connection.execute("SELECT method, milliseconds FROM timing")
        return json.loads(environment[0]) if environment else {}, {spec: json.loads(times) for spec, times in rows}

    def _one(self, query: str) -> Any:
        return self.connection.execute(query).fetchone()[0]


def _create(path: Path, identity: dict[str, Any], facts: dict[str, Any]) -> None:
    """Writes an empty results file; it has its name only once it is complete, and one made meanwhile stays."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    connection = sqlite3.connect(partial, isolation_level=None)
    connection.executescript(
        f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA}; BEGIN; {_TABLES} COMMIT;"
    )
    created = datetime.now(timezone.utc).isoformat()
    row = (identity_hash(identity), _text(identity), _text(facts), created)
    connection.execute("INSERT INTO run VALUES (1, ?, ?, ?, ?)", row)
    connection.close()
    try:
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)  # unlike a rename it never replaces what another process of the run has made
    except OSError as error:
        raise OSError(f"{path.parent} must be on a file system that has hard links, such as a local disk") from error
    finally:
        partial.unlink()


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _pack(values: Floats) -> bytes:
    """float32, little-endian, row by row, zlib-compressed: mostly NaN where many classes were eliminated early."""
    return zlib.compress(np.ascontiguousarray(values, dtype="<f4").tobytes(), 6)


def _unpack(blob: bytes) -> Floats:
    return np.frombuffer(zlib.decompress(blob), dtype="<f4").astype(np.float32)
