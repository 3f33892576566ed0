"""What `bigain bench` shows: seconds, their bounds and their parts, as tables, JSON and a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from bigain.operators.labels import PARTS
from bigain.report.style import NOTHING, PLAIN, label, markdown_table, new_figure, save, styles
from bigain.run.bench import ATTENTION, PEER, UNCOMPRESSED, Interval, Row
from bigain.run.files import read_json, write_json

FORMAT = "bigain bench 1"
_MIB = 2**20
_FACTS = ("speed", "bound by FLOPs", "zero-cost bound", "of that", "peak, MiB")
_UNITS = {"s": (1000, "{:.2f}"), "ms": (1, "{:.1f}")}  # milliseconds of one, and how a number of them is written
_TITLES = dict(zip(PARTS, ("score", "match", "merge", "un-merge", "pool"), strict=True)) | {ATTENTION: "attention"}


def name(row: Row) -> str:
    """Of a row's method."""
    peer, _, ratio = row.method.partition(":ratio=")
    own = f"{PEER} {float(ratio):.0%}" if peer == PEER else str(label(row.method))
    return f"{own}, compiled" if row.compiled else own


def terminal(rows: Sequence[Row], title: str) -> Iterator[Table]:
    """Tables for `rich`, each with a row per size and method: what a forward takes, and its parts."""
    unit = _unit(rows)
    yield _table(rows, title, [unit, *_FACTS], lambda row: _facts(row, unit))
    parts = [part for part in _TITLES if any(row.parts.get(part) for row in rows)]

    def taken(row: Row) -> list[str]:
        return [f"{row.parts[part]:.1f}" if row.parts.get(part) else NOTHING for part in parts]

    yield _table(rows, f"{title}: ms by part, of a forward under a profiler", [_TITLES[one] for one in parts], taken)


def _table(rows: Sequence[Row], title: str, headings: Sequence[str], cells: Callable[[Row], Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("tokens", justify="right")
    table.add_column("method", min_width=max(len(name(row)) for row in rows))
    for heading in headings:
        table.add_column(heading, justify="right")
    size = None
    for row in rows:
        if size not in (None, row.size):
            table.add_section()
        table.add_row(f"{row.tokens:,}" if row.size != size else "", name(row), *cells(row))
        size = row.size
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A table of the same, without the parts."""
    several = len({row.size for row in rows}) > 1
    unit = _unit(rows)
    headings = [*(["size"] if several else []), "method", unit, *_FACTS]
    lines = [[*([row.size] if several else []), name(row), *_facts(row, unit)] for row in rows]
    return markdown_table(headings, lines)


def caption(content: Mapping[str, Any]) -> str:
    """What was timed, and where."""
    where = content["environment"]
    form = ", channels last" if where["channels_last"] else ""
    return (
        f"Forwards of {content['model']} with random weights, batches of {where['batch_size']}, "
        f"{where['dtype']}{form}. Medians of {where['rounds']} interleaved rounds, with 95% intervals. "
        f"{where['device_name']}, {where['threads']} CPU threads, torch {where['torch']}."
    )


def write(path: Path, model: str, environment: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Writes what `read` reads."""
    write_json(path, FORMAT, {"model": model, "environment": environment, "rows": [asdict(row) for row in rows]})


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """What a file says of model and environment, and its rows; ValueError for another file."""

    def made(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Row]]:
        intervals = ("milliseconds", "speed_up", "free", "reached")
        rows = [
            Row(**one | {key: None if one[key] is None else Interval(**one[key]) for key in intervals})
            for one in content["rows"]
        ]
        return {"model": content["model"], "environment": content["environment"]}, rows

    return read_json(path, FORMAT, "timings of bigain bench", made)


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draws milliseconds against tokens, a line a method, and marks from how many tokens on it saves time."""
    by_method: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda one: one.tokens):
        by_method.setdefault(name(row), []).append(row)
    named = {key: label(own[0].method).name for key, own in by_method.items() if not own[0].method.startswith(PEER)}
    chosen = styles({key: named.get(key, key) for key in by_method})
    figure = new_figure(8, 5, layout="constrained")
    axis = figure.subplots()
    for key, own in by_method.items():
        style = PLAIN if own[0].method == UNCOMPRESSED and not own[0].compiled else chosen[key]
        tokens = [row.tokens for row in own]
        axis.plot(
            tokens,
            [row.milliseconds.median for row in own],
            color=style.colour,
            marker=style.marker,
            linestyle="--" if own[0].compiled else "-",
            label=key,
        )
        axis.fill_between(
            tokens,
            [row.milliseconds.low for row in own],
            [row.milliseconds.high for row in own],
            color=style.colour,
            alpha=0.15,
            linewidth=0,
        )
        for at, milliseconds in _break_even(own):
            axis.plot(at, milliseconds, marker="o", markersize=14, fillstyle="none", color=style.colour)
            axis.annotate(f"{at:,.0f}", (at, milliseconds), xytext=(8, -10), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", yscale="log", xlabel="image tokens", ylabel="ms per forward", title=title)
    ticks = sorted({row.tokens for row in rows})
    axis.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def _unit(rows: Sequence[Row]) -> str:
    """Seconds where every forward takes one or more, else milliseconds."""
    return "s" if min(row.milliseconds.median for row in rows) >= _UNITS["s"][0] else "ms"


def _facts(row: Row, unit: str) -> list[str]:
    divisor, form = _UNITS[unit]
    speed, free, reached = (_spread(one) for one in (row.speed_up, row.free, row.reached))
    plain = row.method == UNCOMPRESSED and not row.compiled
    return [
        form.format(row.milliseconds.median / divisor),
        NOTHING if plain else speed,
        NOTHING if row.bound is None or plain else f"{row.bound:.2f}",
        free,
        reached,
        f"{row.peak / _MIB:,.0f}",
    ]


def _spread(interval: Interval | None) -> str:
    return NOTHING if interval is None else f"{interval.median:.2f} ({interval.low:.2f}–{interval.high:.2f})"


def _break_even(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Where the speed-up passes 1: tokens and milliseconds, on straight lines between sizes on logarithmic axes."""
    found = []
    for before, after in itertools.pairwise(rows):
        low, high = math.log(before.speed_up.median), math.log(after.speed_up.median)
        if low < 0 <= high:
            share = low / (low - high)
            tokens, milliseconds = (
                math.exp((1 - share) * math.log(one) + share * math.log(other))
                for one, other in (
                    (before.tokens, after.tokens),
                    (before.milliseconds.median, after.milliseconds.median),
                )
            )
            found.append((tokens, milliseconds))
    return found
