"""The table of a run: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bigain.report.style import NOTHING, label, markdown_table

if TYPE_CHECKING:
    from bigain.run.results import Results, Row, Timing, Timings

_WIDE = 140  # characters that all columns take in a terminal
_GAPS = 3  # of an unfinished run that the caption tells one by one
_ABOUT = ("classification", "generation", "cost")
_INTERVAL = "{:.1f} ({:.1f}–{:.1f})"


@dataclass(frozen=True)
class Line:
    """A row, its time, and how many times as fast as no compression: empty for that itself, and where not timed."""

    row: Row
    time: Timing | None
    speed: str


@dataclass(frozen=True)
class Column:
    """A column: its heading, its part, how a line is written in the terminal, and in Markdown if otherwise."""

    heading: str
    about: str
    short: Callable[[Line], str]
    long: Callable[[Line], str] | None = None

    def write(self, line: Line, full: bool) -> str:
        """The cell, or a dash where it would be empty."""
        return (self.long if full and self.long is not None else self.short)(line) or NOTHING


def terminal(results: Results, times: Timings | None = None, width: int = 150) -> Group:
    """The table for `rich`, in parts where ``width`` characters are too few for one; without intervals of changes."""
    lines = lines_of(results, times)
    columns = [one for one in columns_of(results, times) if any(one.short(line) for line in lines)]
    parts = [columns]
    if width < _WIDE:
        parts = [columns[:1] + [column for column in columns[1:] if column.about == about] for about in _ABOUT]
    tables = []
    for part in (part for part in parts if len(part) > 1):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(part):
            table.add_column(column.heading, justify="right" if number else "left", overflow="fold")
        for line in lines:
            cells = [column.write(line, full=False) for column in part]
            table.add_row(*cells, style="bold" if line.row.method == "none" else None)
        tables.append(table)
    return Group(*tables, Text(caption(results, times), style="dim"))


def markdown(results: Results, times: Timings | None = None) -> str:
    """The table as GitHub's Markdown, with what it was measured on below."""
    return f"{markdown_rows(results, times)}\n\n{caption(results, times)}\n"


def markdown_rows(results: Results, times: Timings | None = None) -> str:
    """The table alone."""
    columns, lines = columns_of(results, times), lines_of(results, times)
    written = [[column.write(line, full=True) for column in columns] for line in lines]
    return markdown_table([column.heading for column in columns], written)


def caption(results: Results, times: Timings | None = None) -> str:
    """What was measured, on how many images, against what, where it was timed, and what is missing."""
    settings = results.settings
    parts = [f"Model {settings['model']} ({settings['dtype']}) on {results.facts['data']}, seed {settings['seed']}."]
    classified = _counts([row.classified for row in results.rows])
    if classified:
        parts.append(_about_classification(results, classified))
    generated = _counts([row.generated for row in results.rows])
    if generated:
        sampler = settings["sampler"] or "the model's sampler"
        parts.append(
            f"Generation: {generated} images, {sampler}, {settings['steps']} steps, guidance "
            f"{settings['guidance']:g}; PSNR to the uncompressed images from the same noise."
        )
        parts += _about_reference(results)
    parts.append(f"FLOPs: one forward of one image{_spaced(settings.get('spacing'))}.")
    if times is not None and times.methods:
        parts.append(_about_times(times))
    gaps = results.gaps()
    more = [f"So of {len(gaps) - _GAPS} more methods."] if len(gaps) > _GAPS else []
    return " ".join([*parts, *gaps[:_GAPS], *more])


def _about_classification(results: Results, count: str) -> str:
    settings = results.settings
    name = measure(results.facts).capitalize()
    keep, samples = (" ".join(map(str, settings[field])) for field in ("to_keep", "n_samples"))
    tree = "" if (elimination := settings.get("elimination")) == "racing" else f"groups of {elimination}, "
    how = f"stages {keep} / {samples}" if keep else f"{tree}racing over {samples} timesteps"
    told = f" that were fitted on {fitted['images']} images" if (fitted := settings.get("fitted")) else ""
    return (
        f"{name}: {count} images, {split_name(settings['split'])}, {how}{told}, {settings['loss']}; "
        "95% Wilson intervals; change to no compression on the same images and noise, p by McNemar's exact test."
    )


def _about_reference(results: Results) -> list[str]:
    real = results.reference
    if real is None:
        return []
    few = min(row.generated for row in results.rows) <= real["dimensions"]
    caution = f"; rough guides only, of no more images than its {real['dimensions']} dimensions" if few else ""
    return [
        f"FID and KID: to {real['images']} real images of {real['data']} ({split_name(real['split'])}), features of "
        f"{real['network']}{caution}."
    ]


def _about_times(times: Timings) -> str:
    where = times.environment
    rounds = _counts([timing.forwards for timing in times.methods.values()])
    threads = f", {where['threads']} CPU threads" if where["device"] == "cpu" else ""
    spaced = _spaced(where.get("spacing"))
    return (
        f"Time: median of {rounds} forwards of {where['sample'][0]} images{spaced}, {where['dtype']}, "
        f"{where['device_name']}{threads}, torch {where['torch']}."
    )


def _spaced(spacing: str | None) -> str:
    """At which timesteps, where they are not spread evenly."""
    return " at the scheduler's timesteps" if spacing == "scheduler" else ""


def split_name(name: str | None) -> str:
    """What the split is called in captions."""
    return f"split {name}" if name else "default split"


def lines_of(results: Results, times: Timings | None) -> list[Line]:
    """The rows of a run, each with its time."""
    timed = {} if times is None else times.methods
    lines, plain = [], timed.get("none")
    for row in results.rows:
        time = None if row.method == "none" else timed.get(row.method)
        speed = "" if time is None or plain is None else f"{plain.median / time.median:.2f}×"
        lines.append(Line(row, timed.get(row.method), speed))
    return lines


def columns_of(results: Results, times: Timings | None) -> list[Column]:
    """The columns that some line fills."""
    batch = "" if times is None or not times.methods else f", batch {times.environment['sample'][0]}"
    large = max((row.flops or 0 for row in results.rows), default=0) >= 1e10
    unit, unit_name = (1e9, "GFLOPs") if large else (1e6, "MFLOPs")
    classes, images, cost = _ABOUT
    kid = (_of_row("{:.2f}", "kid", scale=1000), _of_row("{:.2f} ± {:.2f}", "kid", "kid_deviation", scale=1000))
    share = ("recognised", "recognised_low", "recognised_high")
    recognised = (_of_row("{:.1f}", share[0], scale=100), _of_row(_INTERVAL, *share, scale=100))
    columns = [
        Column("method", "", lambda line: str(label(line.row.method))),
        Column("classified", classes, lambda line: str(line.row.classified)),
        Column(f"{measure(results.facts)}, %", classes, accuracy_cell),
        Column("change, points", classes, _short_change, change_cell),
        Column("mAP (classes), %", classes, _of_row("{:.1f}", "class_map", scale=100)),
        Column("AP (images), %", classes, _of_row("{:.1f}", "image_ap", scale=100)),
        Column("ECE, %", classes, lambda _: "", _of_row("{:.1f}", "calibration_error", scale=100)),
        Column("forwards", classes, _of_row("{:.1f}", "forwards")),
        Column("generated", images, lambda line: str(line.row.generated)),
        Column("FID", images, _of_row("{:.2f}", "fid")),
        Column("KID × 1000", images, *kid),
        Column("precision, %", images, _of_row("{:.1f}", "precision", scale=100)),
        Column("recall, %", images, _of_row("{:.1f}", "recall", scale=100)),
        Column("recognised, %", images, *recognised),
        Column("PSNR, dB", images, _of_row("{:.1f}", "psnr")),
        Column(unit_name, cost, lambda line: _flops(line.row, unit)),
        Column(f"ms per forward{batch}", cost, _time),
    ]
    lines = lines_of(results, times)
    same = {
        name
        for name in ("classified", "forwards", "generated")
        if len({getattr(row, name) for row in results.rows}) == 1
    }
    return [
        column
        for column in columns
        if column.heading not in same and any(column.write(line, full=True) != NOTHING for line in lines)
    ]


def measure(facts: Mapping[str, Any]) -> str:
    """What the share of right images is called: with several labels to an image the accuracy is precision@1."""
    return "precision@1" if facts["multi_label"] else "accuracy"


def accuracy_cell(line: Line) -> str:
    """Accuracy in percent with its interval."""
    return cell(_INTERVAL, line.row.accuracy, line.row.accuracy_low, line.row.accuracy_high, scale=100)


def cell(form: str, *values: float | None, scale: float = 1) -> str:
    """Values times ``scale`` in a format; empty where one of them is None."""
    known = [scale * value for value in values if value is not None]
    return form.format(*known) if len(known) == len(values) else ""


def _of_row(form: str, *names: str, scale: float = 1) -> Callable[[Line], str]:
    """What writes the fields of a row that have these names."""
    return lambda line: cell(form, *(getattr(line.row, name) for name in names), scale=scale)


def _short_change(line: Line) -> str:
    change, p = cell("{:+.1f}", line.row.change, scale=100), line.row.mcnemar_p
    return f"{change} ({_p(p)})" if change and p is not None else ""


def change_cell(line: Line) -> str:
    """Change of the accuracy to no compression in points, with its interval and p."""
    row, p = line.row, line.row.mcnemar_p
    interval = cell("{:+.1f} ({:+.1f} to {:+.1f}", row.change, row.change_low, row.change_high, scale=100)
    return f"{interval}; {_p(p)})" if interval and p is not None else ""


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.0995 else f"p = {value:.2f}"


def _flops(row: Row, unit: float) -> str:
    change = cell(" ({:+.1f}%)", row.flops_change, scale=100)
    return "" if row.flops is None else f"{row.flops / unit:.1f}{change}"


def _time(line: Line) -> str:
    speed = f" ({line.speed})" if line.speed else ""
    return "" if line.time is None else f"{line.time.median:.1f}{speed}"


def _counts(values: list[int]) -> str:
    """ "500", or "20 to 500" while a run is not finished; empty where there is none."""
    low, high = min(values, default=0), max(values, default=0)
    return "" if high == 0 else str(high) if low == high else f"{low} to {high}"
