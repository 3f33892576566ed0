"""A run as one page that opens without a network: to sort, to filter, to compare by eye, and to repeat."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigain.report import charts
from bigain.report.style import label
from bigain.report.table import caption, columns_of, lines_of, measure
from bigain.run.files import differences, write_whole

if TYPE_CHECKING:
    from bigain.run.results import Results, Row, Timings
    from bigain.run.store import Store

_COLUMNS = 12  # samples of a method, at most
_PICTURES = 2_500_000  # bytes of all samples together
_TIMED_ROWS = 2000  # images whose errors are averaged over t
_SIDE = 512  # pixels of a sample, where all of them would be too much
_EACH = {  # what can stand on an axis: its name, and what of a row it is
    "accuracy": ("{}, %", lambda row: _percent(row.accuracy)),
    "fid": ("FID", lambda row: row.fid),
    "psnr": ("PSNR, dB", lambda row: row.psnr),
    "recognised": ("recognised, %", lambda row: _percent(row.recognised)),
    "ece": ("ECE, %", lambda row: _percent(row.calibration_error)),
    "forwards": ("forwards per image", lambda row: row.forwards),
}


@dataclass(frozen=True)
class Run:
    """What is shown: results, their times, and the results file, where it is at hand."""

    results: Results
    times: Timings | None
    store: Store | None = None


def write_page(path: Path, run: Run, against: Run | None = None, offers: Path | None = None) -> None:
    """Writes the page.

    Args:
        path: the .html file; its folder is made.
        run: with a results file also samples, errors over t and FLOPs by layer; without one what is exported alone.
        against: another run, whose differences are told.
        offers: what each candidate costs in each layer, as `bigain allocate` wrote it.

    Raises:
        ModuleNotFoundError: without the extra ``html``.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        scripts = charts.scripts()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"a page takes the extra 'html' (pip install 'bigain[html]'): {error}") from error
    loader = PackageLoader("bigain.report", "page")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = _page(run, against, offers)
    text = environment.get_template("page.html").render(page=page, data=_embedded(page["data"]), library=scripts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _embedded(data: Any) -> str:
    """As JSON that cannot end the element which it stands in."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _page(run: Run, against: Run | None, offers: Path | None) -> dict[str, Any]:
    results, store = run.results, run.store
    methods = [row.method for row in results.rows]
    samples = [] if store is None else _samples(store, methods)
    drawn = _charts(run, offers)
    return {
        "title": f"{Path(results.settings['model']).name} on {results.facts['data']}",
        "sentence": _sentence(results),
        "caption": caption(results, run.times),
        "table": _table(run),
        "samples": samples,
        "axes": _axes(run),
        "sections": list(drawn),
        "changes": None if against is None else _changes(run, against),
        "commands": results.commands,
        "versions": results.versions[-1] if results.versions else {},
        "data": {"charts": drawn, "samples": samples, "methods": methods, "axes": _axes(run)},
    }


def _sentence(results: Results) -> str:
    count = len(results.rows)
    parts = [f"{count} method{'s' * (count != 1)} compared on {Path(results.settings['model']).name}"]
    for name, verb in (("classified", "classified"), ("generated", "generated")):
        most = max((getattr(row, name) for row in results.rows), default=0)
        parts += [f"{most} images {verb} under each"] if most else []
    return ", ".join(parts) + ", all on the same images and from the same noise."


def _table(run: Run) -> dict[str, Any]:
    columns, families = columns_of(run.results, run.times), charts.looks([row.method for row in run.results.rows])
    rows = [
        {
            "method": line.row.method,
            "label": str(label(line.row.method)),
            "colour": families[label(line.row.method).family].colour,
            "cells": [column.write(line, full=True) for column in columns[1:]],
        }
        for line in lines_of(run.results, run.times)
    ]
    return {"headings": [column.heading for column in columns[1:]], "rows": rows}


def _axes(run: Run) -> dict[str, str]:
    """What can stand on an axis: what at least two methods have, by key, in words."""
    points = _points(run)
    names = {key: name.format(measure(run.results.facts)) for key, (name, _) in _EACH.items()}
    names |= {"saved": "FLOPs saved, %", "speed": "speed-up", "time": "ms per forward"}
    return {key: name for key, name in names.items() if sum(point[key] is not None for point in points) > 1}


def _points(run: Run) -> list[dict[str, Any]]:
    timed = {} if run.times is None else run.times.methods
    plain = timed.get("none")
    points = []
    for row in run.results.rows:
        own, named = timed.get(row.method), label(row.method)
        point = {"method": row.method, "label": str(named), "family": named.family, "amount": named.amount}
        point |= {key: value(row) for key, (_, value) in _EACH.items()}
        point |= {"low": _percent(row.accuracy_low), "high": _percent(row.accuracy_high), "saved": _saved(row)}
        point["time"] = None if own is None else own.median
        point["speed"] = None if own is None or plain is None else plain.median / own.median
        points.append(_short(point))
    return points


def _charts(run: Run, offers: Path | None) -> dict[str, charts.Chart]:
    """By section, those that there is something for."""
    from bigain.search.measuring import read_record

    results, axes = run.results, _axes(run)
    families = charts.looks([row.method for row in results.rows])
    drawn = {}
    if len(axes) > 1:
        across = next(key for key in ("time", "saved", "fid", *axes) if key in axes)
        upwards = next(key for key in ("accuracy", "fid", *axes) if key in axes and key != across)
        drawn["front"] = charts.front(_points(run), across, upwards, families, list(axes.items()))
    if run.store is not None:
        if over_t := [*_over_timesteps(run.store)]:
            drawn |= {value: charts.over_timesteps(over_t, value, families) for value in charts.OVER_T}
        if layers := _by_layer(run.store):
            drawn["layers"] = charts.by_layer(layers, "saved", "FLOPs of the block saved, %", "blues")
    if offers is not None:
        drawn["offers"] = charts.offered(read_record(offers).offers())
    return drawn


def _over_timesteps(store: Store) -> Iterator[dict[str, Any]]:
    """Of each method at each timestep, the means over the images that have both errors."""
    groups = np.array(store.facts.get("groups") or range(store.facts["conditions"]))
    for method in store.methods():
        errors, gaps = [], []
        for row in islice(store.classified(method), _TIMED_ROWS):
            own = np.isin(groups, row.labels)
            if own.all():  # an image that shows every class
                continue
            with np.errstate(invalid="ignore"):
                best, other = (np.fmin.reduce(row.errors[which], axis=0) for which in (own, ~own))
            errors.append(best)
            gaps.append(other - best)
        if not errors:
            continue
        named = label(method)
        for number, t in enumerate(store.facts["timesteps"]):
            error, gap = (np.array(values)[:, number] for values in (errors, gaps))
            if np.isfinite(gap).any():
                point = {"t": t, "error": float(np.nanmean(error)), "gap": float(np.nanmean(gap))}
                yield _short({"method": method, "label": str(named), "family": named.family} | point)


def _by_layer(store: Store) -> list[dict[str, Any]]:
    """What each method saves of each transformer block."""
    counted = store.layer_flops()
    plain = counted.get("none") or []
    return [
        _short({"method": method, "label": str(label(method)), "layer": layer, "saved": 100 * (1 - own / whole)})
        for method, layers in counted.items()
        if method != "none" and len(layers) == len(plain)
        for layer, (own, whole) in enumerate(zip(layers, plain, strict=True))
        if whole
    ]


def _samples(store: Store, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The first images of each method as data of the page, and what they were asked for; fewer where they are large."""
    first = [*islice(store.generated("none"), _COLUMNS)]
    kept = {method: {one.image: one.file for one in islice(store.generated(method), _COLUMNS)} for method in methods}
    whole = [method for method in methods if all(one.image in kept[method] for one in first)]
    total = sum(len(kept[method][one.image]) for method in whole for one in first)
    smaller = total > _PICTURES
    if smaller:
        first = first[: max(2, len(first) * _PICTURES // total)]
    names = store.facts["classes"]
    asked = [one.condition if one.label is None or not one.condition.isdigit() else names[one.label] for one in first]
    return [
        {
            "asked": what,
            "images": {method: _picture(kept[method][one.image], smaller) for method in whole},
        }
        for what, one in zip(asked, first, strict=True)
    ]


def _picture(file: bytes, smaller: bool) -> str:
    """A data URI of a PNG or an animated WebP; as a WebP of fewer pixels where they would be too much."""
    from PIL import Image

    with Image.open(io.BytesIO(file)) as image:
        kind = (image.format or "png").lower()
        if smaller and kind == "png":
            image.thumbnail((_SIDE, _SIDE))
            small = io.BytesIO()
            image.convert("RGB").save(small, "WEBP", quality=85)
            file, kind = small.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def _changes(run: Run, against: Run) -> dict[str, Any]:
    """What both runs measured, method by method, and where their settings differ."""
    theirs = {point["method"]: point for point in _points(against)}
    shown = {key: name for key, name in _axes(run).items() if key != "time"}
    rows = []
    for point in _points(run):
        if (other := theirs.get(point["method"])) is not None:
            cells = [_change(other[key], point[key]) for key in shown]
            rows.append({"label": point["label"], "cells": cells})
    differing = differences(against.results.settings, run.results.settings)
    return {"headings": [*shown.values()], "rows": rows, "settings": differing}


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "–"
    if before == after:
        return f"{after:.4g}"
    return f"{before:.4g} → {after:.4g} ({after - before:+.3g})"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _saved(row: Row) -> float | None:
    if row.method == "none":
        return None if row.flops is None else 0.0
    return None if row.flops_change is None else -100 * row.flops_change


def _short(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in point.items()}
