"""Reading what lies under a data set's root (text, csv rows, images), and refusing what lies outside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from bigain.images import kind_of


def inside(root: Path, text: str, source: str) -> Path:
    """``root / text``, where ``text`` was read from a file, as ``source`` says, and may say anything.

    The check is of the text alone: a symbolic link under the root may lead out of it, as links made by the
    user of a data set often do.

    Raises:
        ValueError: the text is empty, absolute (on POSIX or on Windows), or has a part ``..``.
    """
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{source}: the path must name a file, not {text!r}")
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(f"{source}: the path must be relative to {root} and not lead out of it, not {text!r}")
    return root / posix


def require_folder(path: Path, layout: str) -> Path:
    """``path`` if it is a folder; else ``FileNotFoundError`` with the path and the expected layout."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} must be a folder, not {kind_of(path)}. Expected layout: {layout}")
    return path


def read_text(path: Path, layout: str) -> str:
    """The text of a regular UTF-8 file (a pipe would never end), less a byte order mark."""
    what = kind_of(path)
    if what == "missing":
        raise FileNotFoundError(f"{path} must be a file, not missing. Expected layout: {layout}")
    if what != "a file":
        raise ValueError(f"{path} must be a file, not {what}. Expected layout: {layout}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error


def read_lines(path: Path, layout: str) -> list[tuple[int, str]]:
    """(line number from 1, stripped line) of a UTF-8 file, without blank lines and ``#`` comments."""
    lines = enumerate(read_text(path, layout).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, sorted by name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_rows(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields ("file, line n", cells of ``columns`` then of ``optional``), stripped; other columns are ignored.

    A row may not have more or fewer cells than the header: an unquoted comma in a prompt would otherwise shift
    the columns after it. The cell of an ``optional`` column that the file lacks is ``""``.
    """
    layout = f"a csv file with the columns {','.join(columns)}"
    reader = csv.reader(io.StringIO(read_text(path, layout), newline=""), strict=True)
    rows = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, columns, optional, path, layout)
        for cells in filter(None, reader):
            rows += 1
            where = f"{path}, line {reader.line_num}"
            values = _row(cells, header, columns, where)
            yield where, [values.get(column, "") for column in (*columns, *optional)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: a row must be csv: {error}") from error
    if not rows:
        raise ValueError(f"{path} must have a row below its header, not none. Expected: {layout}")


def _check_header(
    header: list[str], columns: tuple[str, ...], optional: tuple[str, ...], path: Path, layout: str
) -> None:
    for column in columns:
        if column not in header:
            raise ValueError(f"{path} must have a column {column!r}, not only {header}. Expected: {layout}")
    for column in (*columns, *optional):
        if header.count(column) > 1:
            raise ValueError(f"{path} must have one column {column!r}, not {header.count(column)}")


def _row(cells: list[str], header: list[str], columns: tuple[str, ...], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(
            f"{where}: a row must have {len(header)} cells as the header has, not {len(cells)}; is a comma not quoted?"
        )
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for column in columns:
        if not values[column]:
            raise ValueError(f"{where}: the column {column!r} must not be empty")
    return values
