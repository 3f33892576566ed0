"""A SQLite file whose rows carry checksums: one that has changed since is an error, which says where and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

_Made = TypeVar("_Made")
_Own = TypeVar("_Own", bound="Database")

_DAMAGED = "Take the file from a copy, or run again into another folder (--out)"


class Database:
    """An open file; a context manager that closes it.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is damaged.
        OSError: its disk is full, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"the results file must exist, not be missing: {path}")
        self.path = path
        # As SQLite makes files beside one that it opens, it is asked to leave alone what cannot be written.
        fixed = not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        log = path.with_name(f"{path.name}-wal")
        if fixed and log.exists() and log.stat().st_size:
            raise OSError(f"{path} must be on storage that can be written, as its run has not finished: copy {log} too")
        address = f"{path.resolve().as_uri()}{'?mode=ro&immutable=1' if fixed else ''}"
        with _explained(path):
            self.connection = sqlite3.connect(address, timeout=60, isolation_level=None, uri=True)
        # Damaged text is for the row's checksum to find, which names the row.
        self.connection.text_factory = lambda text: text.decode(errors="replace")

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Moves the write-ahead log into the file, or leaves that to the next process where it cannot; closes both."""
        try:
            with contextlib.suppress(sqlite3.Error):  # nothing is lost, and it must not hide the error before it
                self.connection.execute("PRAGMA busy_timeout = 500").fetchall()
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self.connection.close()

    def keep_at_once(self) -> None:
        """From now on a row is kept once its transaction ends, also if the process is killed right after."""
        self.rows("PRAGMA journal_mode = WAL")
        self.rows("PRAGMA synchronous = NORMAL")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is written inside."""
        with _explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has ended it already
                    self.connection.execute("ROLLBACK")
                raise

    def insert(self, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Writes rows with their checksums, the last column; all or nothing."""
        with self.transaction() as connection:
            connection.executemany(query, [(*row, checksum(row)) for row in rows])

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows, so that no cursor stays open."""
        with _explained(self.path):
            return self.connection.execute(query, values).fetchall()

    def read(self, made: Callable[..., _Made], query: str, name: str, *values: Any) -> list[_Made]:
        """What is ``made`` of each row less its checksum, the last column; ``name``, of its values, is for errors."""
        results = []
        for *row, kept in self.rows(query, *values):
            named = name.format(*row)
            if checksum(row) != kept:
                raise ValueError(f"{self.path}: {named} must be as it was written, but has changed. {_DAMAGED}")
            with _explained(self.path, named):
                results.append(made(*row))
        return results


def create(path: Path, script: str, query: str, row: tuple[Any, ...]) -> None:
    """Writes a file of a script and one row; it has its name only once it is complete, and one made meanwhile stays."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with _explained(path), contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.executescript(script)
            connection.execute(query, row)
        _link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def checksum(values: Sequence[Any]) -> int:
    """CRC-32 of a row's values; each is preceded by its kind and length, so that none runs into the next."""
    total = 0
    for value in values:
        content = value if isinstance(value, bytes) else str(value).encode()
        total = zlib.crc32(content, zlib.crc32(f"{type(value).__name__} {len(content)} ".encode(), total))
    return total


def _link(partial: Path, path: Path) -> None:
    """Gives a complete file its name; unlike a rename it never replaces what another process of the run has made."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    except OSError as error:
        raise OSError(f"{path.parent} must be on a file system that has hard links, such as a local disk") from error


@contextlib.contextmanager
def _explained(path: Path, what: str = "") -> Iterator[None]:
    """Says of what SQLite and zlib raise which file it is and what to do."""
    name = f"{path}: {what}" if what else str(path)
    try:
        yield
    except (sqlite3.Error, zlib.error, json.JSONDecodeError) as error:
        state = str(error) if isinstance(error, sqlite3.OperationalError) else ""
        if "locked" in state:
            raise OSError(f"{name} must not be in use by another program: {error}. Try again later") from error
        if any(word in state for word in ("full", "readonly", "I/O", "unable to open")):
            raise OSError(
                f"{name} must be on a disk that has room and can be written: {error}. What is done is kept: mend that, "
                f"and give the same command again"
            ) from error
        raise ValueError(f"{name} must be whole, not damaged: {error}. {_DAMAGED}") from error
