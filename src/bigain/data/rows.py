"""Reading csv files by the names of their columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from bigain.data.paths import read_text


def read_rows(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields ("file, line n", cells of ``columns`` then of ``optional``), stripped; other columns are ignored.

    A row may not have more or fewer cells than the header: an unquoted comma in a prompt would otherwise shift
    the columns after it. The cell of an ``optional`` column that the file lacks is ``""``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, a row has too many or too few cells, a cell of ``columns`` is empty,
            there is no row, or the file is not csv.
    """
    layout = f"a csv file with the columns {','.join(columns)}"
    reader = csv.reader(io.StringIO(read_text(path, layout), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for column in columns:
            if column not in header:
                raise ValueError(f"{path} has no column {column!r}; it has {header}. Expected: {layout}")
        rows = 0
        for cells in reader:
            if not cells:
                continue
            rows += 1
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise ValueError(f"{where}: {len(cells)} cells under {len(header)} columns; is a comma not quoted?")
            values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            for column in columns:
                if not values[column]:
                    raise ValueError(f"{where}: the column {column!r} is empty")
            yield where, [values.get(column, "") for column in (*columns, *optional)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not csv: {error}") from error
    if not rows:
        raise ValueError(f"{path} has a header and no rows. Expected: {layout}")
