"""The files of a run: its table, accuracy against FID and cost, and generated samples side by side by method."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bigain.report.classification import draw_classification
from bigain.report.style import PLAIN, Style, label, new_figure, save, styles
from bigain.report.table import markdown, measure
from bigain.run.files import write_whole
from bigain.run.results import write_results
from bigain.videos import encode_video

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigain.run.results import Results, Row, Timings
    from bigain.run.store import Store

Images = npt.NDArray[np.uint8]

_PANELS = 3
_COLUMNS = 10  # of the page of samples
_HEADING = 12  # characters of a line above a sample
_LEFT = 44  # characters of a line left of a row
_QUALITY = 80  # of an animated page, of 100


@dataclass(frozen=True)
class Panel:
    """One comparison: what is on each axis, by method where it was measured."""

    x_label: str
    y_label: str
    x: Mapping[str, float]
    y: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def write_folder(store: Store, folder: Path) -> tuple[Results, Timings]:
    """Writes results.json, results.csv, results.timings.json, table.md, and the pictures that there is something for.

    The times, and with them the table and the front, are measured; the other files repeat bit for bit on one machine.
    """
    from bigain.run.summary import summarise, timings

    results, times = summarise(store), timings(store)
    write_results(folder / "results.json", results, times)
    write_table(results, times, folder)
    draw_classification(store, folder)
    if any(row.generated for row in results.rows):
        draw_page(store, folder)
    return results, times


def draw_page(store: Store, folder: Path) -> None:
    """Draws samples.png, or samples.webp of videos: the first generated of every method, each column from one noise."""
    first = [*islice(store.generated("none"), _COLUMNS)]
    numbers = [image.image for image in first]
    names, multi_label = store.facts["classes"], store.facts["multi_label"]
    headings = []
    for image in first:
        captioned = multi_label and not image.condition.isdigit()  # a caption says more than one of its classes
        headings.append(image.condition if image.label is None or captioned else names[image.label])
    rows = []
    for spec in store.methods():
        made = {image.image: image for image in islice(store.generated(spec), _COLUMNS)}
        if all(number in made for number in numbers):
            rows.append((str(label(spec)), [made[number].frames for number in numbers]))
    draw_samples(rows, headings, folder / "samples", "Each column starts from the same noise")


def write_table(results: Results, times: Timings | None, folder: Path) -> None:
    """Writes table.md, and front.png where there is something to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "table.md", markdown(results, times))
    if any(row.accuracy is not None or row.fid is not None for row in results.rows):
        draw_front(results, times, folder / "front.png")


def draw_front(results: Results, times: Timings | None, path: Path) -> None:
    """Draws accuracy against FID, both against time, and against FLOPs where they were not timed: three panels at most.

    A line joins one method's settings; larger markers compress more. ValueError where nothing has two axes.
    """
    panels = [panel for panel in _panels(results, times) if _points(results.rows, panel)][:_PANELS]
    if not panels:
        raise ValueError("there is nothing to draw: a front needs accuracy or FID, and FID or a cost")
    from matplotlib.lines import Line2D

    figure = new_figure(5.2 * len(panels) + 0.6, 6.2)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    by_family = _styles(results.rows)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, results.rows, by_family)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="-", markersize=7, label=family)
        for family, (colour, marker) in by_family.items()
    ]
    columns = min(len(handles), max(2, 2 * len(panels)))
    rows = -(-len(handles) // columns)
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(textwrap.fill(_title(results), width=62 * len(panels)), fontsize=11)
    if len(results.rows) > len(by_family):
        figure.text(0.5, 0.035 * rows + 0.02, "Larger markers compress more.", ha="center", fontsize=9, color="0.3")
    figure.tight_layout(rect=(0, 0.035 * rows + 0.05, 1, 0.98))
    save(figure, path)


def draw_samples(rows: Sequence[tuple[str, Sequence[Images]]], headings: Sequence[str], path: Path, title: str) -> Path:
    """Draws a page of images: a row per method, a column per noise. ValueError without an image.

    Args:
        rows: what stands left of a row, and its images, uint8 (T, S, S, 3) of one size, T 1 or the frames of videos;
            short rows end early.
        headings: what stands above each column, such as a prompt; wrapped and cut, as what stands left.
        path: without its suffix: it is a PNG file, or of videos an animated WebP that plays them side by side.

    Returns:
        The file that was written.
    """
    columns = max((len(images) for _, images in rows), default=0)
    if columns == 0:
        raise ValueError("there is nothing to draw: no image was generated")
    pages, cell, pitch = _pages(rows, columns)
    above = [_wrapped(text, _HEADING, 8) for text in [*headings][:columns]]
    left = [_wrapped(name, _LEFT, 6) for name, _ in rows]
    lines = max(map(len, above), default=1)
    margin = 0.085 * max(len(line) for text in left for line in text) + 0.15
    height, width = (pixels * 0.72 / pitch for pixels in pages.shape[1:3])  # a cell is 0.72 inches wide
    width_all = margin + width + 0.1
    told = textwrap.wrap(title, int(width_all / 0.08))
    top = 0.43 + 0.17 * len(told) + 0.12 * lines
    height_all = height + top + 0.1
    figure = new_figure(width_all, height_all)
    axis = figure.add_axes((margin / width_all, 0.1 / height_all, width / width_all, height / height_all))
    shown = axis.imshow(pages[0], interpolation="none", aspect="auto")
    axis.set_yticks([r * pitch + cell / 2 for r in range(len(rows))], ["\n".join(text) for text in left])
    for mark, text in zip(axis.get_yticklabels(), left, strict=True):
        mark.set_fontsize(9 if len(text) == 1 else 7)
    centres = [c * pitch + cell / 2 for c in range(len(above))]
    axis.set_xticks(centres, ["\n".join(text) for text in above], fontsize=9 if lines == 1 else 7)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.text(0.01, 1 - 0.12 / height_all, "\n".join(told), fontsize=10, va="top")
    if len(pages) == 1:
        save(figure, written := path.with_suffix(".png"))
        return written
    frames = []
    for page in pages:
        shown.set_data(page)
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
    write_whole(written := path.with_suffix(".webp"), encode_video(np.stack(frames), quality=_QUALITY))
    return written


def _pages(rows: Sequence[tuple[str, Sequence[Images]]], columns: int) -> tuple[Images, int, int]:
    """All images on white, a page for each frame; the side of an image, and from one to the next, in pixels."""
    frames, size = next(images[0].shape[:2] for _, images in rows if len(images))
    scale = max(1, round(96 / size))  # small images are enlarged pixel by pixel
    cell, gap = size * scale, max(4, size * scale // 24)
    pitch = cell + gap
    pages = np.full((frames, len(rows) * pitch - gap, columns * pitch - gap, 3), 255, dtype=np.uint8)
    for r, (_, images) in enumerate(rows):
        for c, image in enumerate(images):
            large = image.repeat(scale, axis=1).repeat(scale, axis=2)
            pages[:, r * pitch : r * pitch + cell, c * pitch : c * pitch + cell] = large
    return pages, cell, pitch


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" …") or [""]


def _panels(results: Results, times: Timings | None) -> list[Panel]:
    """All that can be drawn, what tells most first."""
    timed = {} if times is None else times.methods
    batch = times.environment["sample"][0] if times is not None and timed else None
    accuracy_label = f"{measure(results.facts)}, % (higher is better)"
    fid_label, saved_label = "FID (lower is better)", "FLOPs saved, % (higher is better)"
    time_label = f"median time per forward of {batch} images, ms (lower is better)"

    rows = results.rows
    percent = {row.method: 100 * row.accuracy for row in rows if row.accuracy is not None}
    intervals = {
        row.method: (100 * row.accuracy_low, 100 * row.accuracy_high)
        for row in rows
        if row.accuracy_low is not None and row.accuracy_high is not None
    }
    fid = {row.method: row.fid for row in rows if row.fid is not None}
    saved = {row.method: -100 * row.flops_change for row in rows if row.flops_change is not None}
    saved |= {row.method: 0.0 for row in rows if row.method == "none" and row.flops is not None}
    time = {method: timing.median for method, timing in timed.items()}
    return [
        Panel(fid_label, accuracy_label, fid, percent, intervals),
        Panel(time_label, accuracy_label, time, percent, intervals),
        Panel(time_label, fid_label, time, fid),
        Panel(saved_label, accuracy_label, saved, percent, intervals),
        Panel(saved_label, fid_label, saved, fid),
    ]


def _points(rows: Sequence[Row], panel: Panel) -> list[tuple[Row, float, float]]:
    x, y = panel.x, panel.y
    return [(row, x[row.method], y[row.method]) for row in rows if row.method in x and row.method in y]


def _styles(rows: Sequence[Row]) -> dict[str, Style]:
    """By family."""
    labels = [label(row.method) for row in rows if row.method != "none"]
    plain = {label(row.method).family: PLAIN for row in rows if row.method == "none"}
    return plain | styles({one.family: one.name for one in labels})


def _draw_panel(axis: Axes, panel: Panel, rows: Sequence[Row], by_family: dict[str, Style]) -> None:
    points = _points(rows, panel)
    for family, style in by_family.items():
        own = [point for point in points if label(point[0].method).family == family]
        own.sort(key=lambda point: label(point[0].method).amount)
        xs, ys = [x for _, x, _ in own], [y for _, _, y in own]
        axis.plot(xs, ys, color=style.colour, linewidth=1, alpha=0.6, zorder=2)
        for rank, (row, x, y) in enumerate(own):
            if row.method in panel.intervals:
                axis.plot([x, x], panel.intervals[row.method], color=style.colour, linewidth=0.8, alpha=0.35, zorder=1)
            size = 160 if row.method == "none" else 36 + 36 * rank
            marks: dict[str, Any] = {"color": style.colour, "marker": style.marker, "edgecolor": "white"}
            axis.scatter([x], [y], s=size, linewidth=0.6, zorder=3, **marks)
    for row, x, y in points:
        if row.method == "none":  # what everything is compared with
            axis.axvline(x, color="0.75", linewidth=0.8, linestyle=":", zorder=0)
            axis.axhline(y, color="0.75", linewidth=0.8, linestyle=":", zorder=0)
    _scale(axis, "x", [x for _, x, _ in points])
    if not panel.intervals:
        _scale(axis, "y", [y for _, _, y in points])
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)


def _scale(axis: Axes, name: str, values: Sequence[float]) -> None:
    """Makes an axis logarithmic where its values call for it, with plain numbers at 1, 2, 5, 10, 20, 50 …"""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) <= 0 or max(values) / min(values) <= 8:
        return
    axis.set(**{f"{name}scale": "log"})
    ticks = axis.xaxis if name == "x" else axis.yaxis
    ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ticks.set_major_formatter(StrMethodFormatter("{x:g}"))
    ticks.set_minor_formatter(NullFormatter())


def _title(results: Results) -> str:
    classified, generated = (max(getattr(row, field) for row in results.rows) for field in ("classified", "generated"))
    parts = [f"{classified} images classified" if classified else "", f"{generated} generated" if generated else ""]
    counts = ", ".join(filter(None, parts))
    return f"{Path(results.settings['model']).name} on {results.facts['data']}, per method: {counts}"
