"""The files beside a results file: JSON and csv, which repeat on one machine, and the times, which do not."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from bigain.evaluate.summary import Results, Row, Timings


def timings_path(results: Path) -> Path:
    """Where the times of ``results`` (a .json file) lie: ``x.json`` has ``x.timings.json``."""
    return results.with_suffix(".timings.json")


def write_results(path: Path, results: Results, times: Timings) -> None:
    """Writes ``path`` (.json), the same rows as csv beside it, and the times into a file of their own."""
    write_whole(path, json.dumps(results.to_json(), indent=1, ensure_ascii=False) + "\n")
    write_whole(path.with_suffix(".csv"), to_csv(results))
    write_whole(timings_path(path), json.dumps(times.to_json(), indent=1) + "\n")


def read_results(path: Path) -> tuple[Results, Timings | None]:
    """Reads what ``write_results`` wrote; the times are None where their file is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file.
    """
    times = timings_path(path)
    try:
        results = Results.from_json(json.loads(path.read_text(encoding="utf-8")))
        return results, Timings.from_json(json.loads(times.read_text(encoding="utf-8"))) if times.exists() else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no results file of bigain evaluate: {error}") from error


def to_csv(results: Results) -> str:
    """One line per method; a value that was not found out is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in results.rows)
    return text.getvalue()


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old or the new one, whenever the process is killed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)
