"""The one file of a run: SQLite, written at once, from which a run goes on and every table and picture is drawn."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from bigain.classify import Prediction
from bigain.run.database import Database, checksum, create
from bigain.run.files import differences, identity_hash
from bigain.run.packing import packed, packed_numbers, unpacked

Floats = npt.NDArray[np.float32]
_Made = TypeVar("_Made")

_APPLICATION = 0x42694761  # "BiGa": SQLite's own mark of what a file belongs to
_SCHEMA = 5
_OF_PREDICTIONS = ("groups", "elements", "weights", "temperature")  # facts that all rows share
_PAGE = 64  # rows that are read at once
_BEFORE_ALL = -(2**63)  # the lowest number of SQLite, before every position
_NAME = "image {1!r} classified under {0}"
# Arrays are packed. What is long stands last, as SQLite passes over what stands before a column that it reads.
_CLASSIFIED = "method, image_id, position, prediction, forwards, labels, stage, ranking, evaluated, errors"
_GENERATED = "method, image, label, condition, recognised, features, file"
_TABLES = """
CREATE TABLE run (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), hash TEXT NOT NULL, settings TEXT NOT NULL,
    facts TEXT NOT NULL, created TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE session (number INTEGER PRIMARY KEY, started TEXT NOT NULL, versions TEXT NOT NULL,
    environment TEXT NOT NULL, command TEXT);
CREATE TABLE method (spec TEXT PRIMARY KEY, position INTEGER NOT NULL, flops INTEGER,
    layers TEXT, checksum INTEGER);
CREATE TABLE classification (method TEXT NOT NULL REFERENCES method, image_id TEXT NOT NULL, position INTEGER NOT NULL,
    prediction INTEGER NOT NULL, forwards INTEGER NOT NULL, labels BLOB NOT NULL, stage BLOB NOT NULL,
    ranking BLOB NOT NULL, evaluated BLOB NOT NULL, errors BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (method, image_id));
CREATE INDEX classification_order ON classification (method, position, image_id);
CREATE TABLE generation (method TEXT NOT NULL REFERENCES method, image INTEGER NOT NULL, label INTEGER,
    condition TEXT NOT NULL, recognised INTEGER, features BLOB, file BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (method, image));
CREATE TABLE reference (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), facts TEXT NOT NULL,
    features BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE timing (method TEXT PRIMARY KEY REFERENCES method, milliseconds TEXT NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE timing_environment (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), facts TEXT NOT NULL);
"""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Classified(Prediction):
    """What the classifier says of one image under one method, its position in the data and its true classes."""

    position: int
    labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Generated:
    """One generated image."""

    image: int  # its number, which seeds its noise
    label: int | None  # its class, where it has one
    condition: str  # what it was asked to show, in words
    file: bytes  # a PNG, or a WebP of a video
    recognised: int | None = None  # class that the small recogniser sees in it
    features: Floats | None = None  # (D,) of the feature network

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """The pixels of the file: uint8 (T, H, W, 3), T = 1 for an image."""
        with Image.open(io.BytesIO(self.file)) as image:
            return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


class Store(Database):
    """An open results file, whose values are checked as they are read; a context manager that closes it.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not a results file, of another version, or damaged: a row that has changed since it was
            written or does not fit the run is named where it is read; or it holds a run with another identity.
        OSError: its disk is full, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._check()
            self.identity, self.facts = self._begun()
        except BaseException:
            self.connection.close()
            raise
        shared = {name: self.facts[name] for name in _OF_PREDICTIONS if name in self.facts}
        self._shared: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in shared.items()
        }

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], facts: dict[str, Any]) -> Store:
        """Opens the results of a run to go on with it, or begins them.

        ``identity`` is what cannot change, see `Settings.identity`; ``facts`` are what tables and pictures must know.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, identity, facts)
        store = cls(path)
        try:
            if differing := differences(store.identity, identity):
                raise ValueError(
                    f"{path} holds a run with other settings: {differing}. Give another folder with --out, or the "
                    f"settings that are there"
                )
            store.keep_at_once()
        except BaseException:
            store.close()
            raise
        return store

    def _check(self) -> None:
        try:
            [(application,)] = self.connection.execute("PRAGMA application_id").fetchall()
            [(version,)] = self.connection.execute("PRAGMA user_version").fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} must be a results file of bigain evaluate, not this: {error}") from error
        if application != _APPLICATION:
            raise ValueError(f"{self.path} must be a results file of bigain evaluate, not some other SQLite file")
        if version != _SCHEMA:
            raise ValueError(
                f"{self.path} must have version {_SCHEMA} of the results format, not {version}: run again into another "
                f"folder (--out), or read it with the version of bigain that wrote it"
            )

    def _begun(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The identity and the facts of the run, as it was begun."""
        query = "SELECT hash, settings, facts, checksum FROM run"
        [(digest, settings, facts)] = self.read(lambda *row: row, query, "the settings of the run")
        identity = dict(json.loads(settings))
        if identity_hash(identity) != digest:
            raise ValueError(f"{self.path}: the settings of the run must have the hash {digest}, not another")
        return identity, dict(json.loads(facts))

    def begin_session(self, versions: dict[str, str], environment: dict[str, Any], command: str | None = None) -> None:
        """Notes that a process works on the run from now on; ``command`` would repeat it."""
        row = (datetime.now(timezone.utc).isoformat(), _text(versions), _text(environment), command)
        with self.transaction() as connection:
            connection.execute("INSERT INTO session (started, versions, environment, command) VALUES (?, ?, ?, ?)", row)

    def versions(self) -> list[dict[str, str]]:
        """The different sets of versions that worked on the run, in the order of their first session."""
        rows = self.rows("SELECT versions FROM session GROUP BY versions ORDER BY min(number)")
        return [json.loads(text) for (text,) in rows]

    def commands(self) -> list[str]:
        """The different commands that worked on the run, in the order of their first session."""
        rows = self.rows("SELECT command FROM session WHERE command IS NOT NULL GROUP BY command ORDER BY min(number)")
        return [command for (command,) in rows]

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
        return [spec for (spec,) in self.rows("SELECT spec FROM method ORDER BY position")]

    def set_flops(self, spec: str, flops: int, layers: Sequence[int] = ()) -> None:
        """FLOPs of one forward of one image, in all and of each transformer block."""
        row = (flops, _text(list(layers)))
        with self.transaction() as connection:
            query = "UPDATE method SET flops = ?, layers = ?, checksum = ? WHERE spec = ?"
            connection.execute(query, (*row, checksum((spec, *row)), spec))

    def flops(self) -> dict[str, int]:
        """FLOPs of one forward of one image, by method, where counted."""
        return {spec: flops for spec, flops, _ in self._flops()}

    def layer_flops(self) -> dict[str, list[int]]:
        """Of each transformer block, by method, where counted."""
        return {spec: layers for spec, _, layers in self._flops()}

    def _flops(self) -> list[tuple[str, int, list[int]]]:
        query = "SELECT spec, flops, layers, checksum FROM method WHERE flops IS NOT NULL"
        return self.read(lambda spec, flops, text: (spec, flops, json.loads(text)), query, "the FLOPs of {}")

    def add_classified(self, spec: str, rows: Iterable[Classified]) -> None:
        """Keeps a batch, all or nothing; an image that is there already stays as it is."""
        values: list[tuple[Any, ...]] = []
        for row in rows:
            evaluated = ~np.isnan(row.errors)
            numbers = [packed_numbers(own) for own in (row.labels, row.stage, row.ranking)]
            arrays = (*numbers, packed(evaluated), packed(row.errors[evaluated]))
            values.append((spec, row.id, row.position, row.prediction, row.forwards, *arrays))
        self.insert("INSERT OR IGNORE INTO classification VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def classified_ids(self, spec: str) -> set[str]:
        """Images done under a method."""
        return {name for (name,) in self.rows("SELECT image_id FROM classification WHERE method = ?", spec)}

    def classified(self, spec: str) -> Iterator[Classified]:
        """Images of a method in the order of the data, read a few at a time as they are asked for."""
        query = (
            f"SELECT {_CLASSIFIED}, checksum FROM classification WHERE method = ? AND (position, image_id) > (?, ?) "
            f"ORDER BY position, image_id LIMIT {_PAGE}"
        )

        def after(position: int, image: str) -> list[Classified]:
            return self.read(self._classified, query, _NAME, spec, position, image)

        return _paged(after, (_BEFORE_ALL, ""), lambda row: (row.position, row.id))

    def _classified(
        self, spec: str, image: str, position: int, prediction: int, forwards: int, *arrays: bytes
    ) -> Classified:
        labels, stage, ranking = (tuple(unpacked(content).tolist()) for content in arrays[:3])
        evaluated, errors = map(unpacked, arrays[3:])
        conditions, timesteps = self.facts["conditions"], len(self.facts["timesteps"])
        classes = len(self.facts.get("classes", ranking))
        for what, value, fits in (
            ("labels", labels, max(labels, default=0) < classes),
            ("prediction", prediction, prediction in range(classes)),
            ("ranking", ranking, sorted(ranking) == list(range(classes))),
            ("stage", stage, len(stage) == conditions),
            ("errors", len(evaluated), len(evaluated) == conditions * timesteps and evaluated.sum() == len(errors)),
        ):
            if not fits:
                needed = f"{classes} classes, {conditions} conditions and {timesteps} timesteps"
                named = _NAME.format(spec, image)
                raise ValueError(f"{self.path}: {what} of {named} must fit {needed}, not {value}")
        whole = np.full((conditions, timesteps), np.nan, dtype=np.float32)
        whole[evaluated.reshape(whole.shape)] = errors
        return Classified(
            id=image,
            position=position,
            labels=labels,
            prediction=prediction,
            ranking=ranking,
            stage=stage,
            errors=whole,
            forwards=forwards,
            **self._shared,
        )

    def add_generated(self, spec: str, rows: Iterable[Generated]) -> None:
        """Keeps a batch, all or nothing; an image that is there already stays as it is."""
        values: list[tuple[Any, ...]] = [
            (spec, row.image, row.label, row.condition, row.recognised,
             None if row.features is None else packed(row.features), row.file)
            for row in rows
        ]  # fmt: skip
        self.insert("INSERT OR IGNORE INTO generation VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def generated_images(self, spec: str) -> set[int]:
        """Numbers of the images done under a method."""
        return {image for (image,) in self.rows("SELECT image FROM generation WHERE method = ?", spec)}

    def generated(self, spec: str) -> Iterator[Generated]:
        """Images of a method by number, read a few at a time as they are asked for."""
        query = (
            f"SELECT {_GENERATED}, checksum FROM generation WHERE method = ? AND image > ? ORDER BY image LIMIT {_PAGE}"
        )

        def made(_: str, *values: Any) -> Generated:
            image, label, condition, recognised, features, file = values
            kept = None if features is None else unpacked(features)
            return Generated(image, label, condition, file, recognised, kept)

        def after(image: int) -> list[Generated]:
            return self.read(made, query, "image {1} generated under {0}", spec, image)

        return _paged(after, (_BEFORE_ALL,), lambda row: (row.image,))

    def set_reference(self, facts: dict[str, Any], features: Floats) -> None:
        """Keeps the features (N, D) of the real images that FID compares with."""
        values = (1, _text(facts | {"shape": list(features.shape)}), packed(features))
        self.insert("INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?)", [values])

    def reference(self) -> tuple[dict[str, Any], Floats] | None:
        """What the real images are, and their features (N, D)."""

        def made(_: int, text: str, features: bytes) -> tuple[dict[str, Any], Floats]:
            facts = json.loads(text)
            return facts, unpacked(features).reshape(facts.pop("shape"))

        query = "SELECT only_row, facts, features, checksum FROM reference"
        return next(iter(self.read(made, query, "the features of the real images")), None)

    def set_timing(self, environment: dict[str, Any], milliseconds: dict[str, list[float]]) -> None:
        """Replaces all timings: only what was measured together compares."""
        rows = [(spec, _text(times)) for spec, times in milliseconds.items()]
        with self.transaction() as connection:
            connection.execute("DELETE FROM timing")
            connection.executemany("INSERT INTO timing VALUES (?, ?, ?)", [(*row, checksum(row)) for row in rows])
            connection.execute("INSERT OR REPLACE INTO timing_environment VALUES (1, ?)", (_text(environment),))

    def timing(self) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """Where and how it was timed, and the milliseconds of each timed forward by method; empty before."""
        environment = self.rows("SELECT facts FROM timing_environment")
        query = "SELECT method, milliseconds, checksum FROM timing"
        times = dict(self.read(lambda spec, text: (spec, json.loads(text)), query, "the times of {}"))
        return json.loads(environment[0][0]) if environment else {}, times


def _paged(after: Callable[..., list[_Made]], start: tuple[Any, ...], key: Callable[[_Made], Any]) -> Iterator[_Made]:
    """All rows, by pages of what is ``after`` a key: neither are all of them held nor does a cursor stay open."""
    page = after(*start)
    while page:
        yield from page
        page = after(*key(page[-1]))


def _create(path: Path, identity: dict[str, Any], facts: dict[str, Any]) -> None:
    """Writes an empty results file, unless another process has meanwhile."""
    begun = (identity_hash(identity), _text(identity), _text(facts))
    pragmas = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA};"
    row = (*begun, datetime.now(timezone.utc).isoformat(), checksum(begun))
    create(path, f"{pragmas} BEGIN; {_TABLES} COMMIT;", "INSERT INTO run VALUES (1, ?, ?, ?, ?, ?)", row)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
