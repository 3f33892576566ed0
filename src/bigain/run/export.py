"""The files beside a results file: JSON and csv, which repeat on one machine, and the times, which do not."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path

from bigain.run.settings import differences
from bigain.run.summary import Results, Row, Timings

# What another machine's rounding may change, at most.
_ROUNDING = 0.01  # share of the images that are classified otherwise
_ROUNDING_FID = 0.1  # share of the FID


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


def add_results(path: Path, found: Results, times: Timings) -> tuple[Results, Timings]:
    """Adds to ``path`` (.json) the methods of ``found`` that it lacks; what it has stays as it is.

    For a run whose results file lies on another machine, or is gone: what the new methods are compared with (no
    compression, presets) is measured again beside them, and has to agree with what is there. ``times`` replace those
    that are there if they have every method of both, as only what was timed together compares.

    Returns:
        What ``path`` holds now.

    Raises:
        FileNotFoundError, ValueError: as ``read_results``.
        ValueError: the two are of different runs; a new method has other counts of images than no compression there; or
            of a method of both ``found`` has more images, other FLOPs or, on as many images, an accuracy that differs
            by more than a point or an FID by more than a tenth. No compression must be in ``found`` on as many images.
    """
    there, kept = read_results(path)
    _check_same_run(there, found)
    known, new = {row.method: row for row in there.rows}, {row.method: row for row in found.rows}
    if "none" not in known or _counts(new.get("none")) != _counts(known["none"]):
        raise ValueError(
            f"no compression must be measured on {_counts(known.get('none'))} images on both sides, so that it shows "
            f"that the two agree: the results to add have {_counts(new.get('none'))}"
        )
    for method, row in new.items():
        if method in known:
            _check_same_row(known[method], row)
        elif _counts(row) != _counts(known["none"]):
            raise ValueError(
                f"{method} has {_counts(row)} images in the results to add, and the others {_counts(known['none'])}"
            )
    compared = {(each.method, each.other) for each in there.comparisons}
    results = replace(
        there,
        versions=there.versions + [each for each in found.versions if each not in there.versions],
        rows=there.rows + tuple(row for row in found.rows if row.method not in known),
        comparisons=there.comparisons
        + tuple(each for each in found.comparisons if (each.method, each.other) not in compared),
    )
    if kept is None or {row.method for row in results.rows} <= times.methods.keys():
        kept = times
    write_results(path, results, kept)
    return results, kept


def _counts(row: Row | None) -> str:
    return "no" if row is None else f"{row.classified} classified and {row.generated} generated"


def _check_same_run(there: Results, found: Results) -> None:
    for name in ("settings", "facts", "reference"):
        ours, theirs = getattr(there, name) or {}, getattr(found, name) or {}
        if ours != theirs:
            raise ValueError(f"the results to add are of another run: {'; '.join(differences(ours, theirs))}")


def _check_same_row(there: Row, found: Row) -> None:
    """Fewer images of a method that is there already, such as one to be timed, are neither checked nor taken."""
    name = found.method
    if found.classified > there.classified or found.generated > there.generated:
        raise ValueError(
            f"{name} has {_counts(found)} images in the results to add, and only {_counts(there)} in those that are "
            f"there, which would stay: export the whole run instead"
        )
    if there.flops is not None and found.flops is not None and there.flops != found.flops:
        raise ValueError(f"{name} has {there.flops:,} FLOPs there and {found.flops:,} in the results to add")
    if there.classified == found.classified and _apart(there.accuracy, found.accuracy) > _ROUNDING:
        raise ValueError(
            f"{name} classifies {there.accuracy:.1%} of {there.classified} images there and {found.accuracy:.1%} in "
            f"the results to add: more than rounding on another machine explains"
        )
    if there.generated == found.generated and _apart(there.fid, found.fid) > _ROUNDING_FID * (there.fid or 0):
        raise ValueError(
            f"{name} has an FID of {there.fid:.2f} there and {found.fid:.2f} in the results to add: more than rounding "
            f"on another machine explains"
        )


def _apart(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else round(abs(one - other), 9)


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
