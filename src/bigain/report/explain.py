"""The page and pictures of an analysis, and of a look inside one forward."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from bigain.report.style import NOTHING, PLAIN, Style, label, markdown_table, new_figure, save, styles
from bigain.report.table import cell, measure, split_name
from bigain.run.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bigain.explain.analysis import Analysis, Effect
    from bigain.explain.inspection import Grouping, Inspection
    from bigain.images import Pixels

_PANELS = 4  # of a picture of spectra
_SCALE = 1000  # of squared errors, which are small
# Paul Tol's "muted" and "light" schemes: told apart with colour blindness, and on grey.
_GROUP_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
    "#77AADD", "#EE8866", "#FFAABB", "#BBCC33", "#AAAA00",
)  # fmt: skip


class TextTable(NamedTuple):
    """A table as text: ``rows`` are as long as ``headings``."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_analysis(analysis: Analysis, folder: Path) -> tuple[str, ...]:
    """Writes analysis.md and pictures, and returns their names; ValueError where no method is finished."""
    if not analysis.methods:
        raise ValueError("an analysis must have a finished method to be written, not none")
    write_whole(folder / "analysis.md", analysis_page(analysis))
    names = []
    for first in range(0, len(analysis.methods), _PANELS):
        names.append(f"spectrum-{first // _PANELS + 1}.png")
        draw_spectra(analysis, analysis.methods[first : first + _PANELS], folder / names[-1])
    draw_layers(analysis, folder / "layers.png")
    draw_timesteps(analysis, folder / "timesteps.png")
    return ("analysis.md", *names, "layers.png", "timesteps.png")


def analysis_page(analysis: Analysis) -> str:
    """Markdown: three tables per method, and what they are of."""
    parts = [_caption(analysis)]
    for method in analysis.methods:
        parts.append(f"## {label(method)}\n\n`{method}`")
        for title, headings, rows in analysis_tables(analysis, method):
            parts.append(f"**{title}**\n\n{markdown_table(headings, rows)}")
    return "\n\n".join(parts) + "\n"


def _caption(analysis: Analysis) -> str:
    """What the numbers are of."""
    settings, facts, plain = analysis.identity, analysis.facts, analysis.effect("none")
    return (
        f"Model {settings['model']} ({settings['dtype']}), data {facts['data']}, {split_name(settings['split'])}: "
        f"{settings['images']} images, {settings['timesteps']} timesteps, {facts['classes']} classes, loss "
        f"{settings['loss']}, seed {settings['seed']}. "
        f"Gap: error of the best wrong class minus that of the true one. Without compression the gap × {_SCALE} is "
        f"{_scaled(plain.gap)} on average, the {measure(analysis.facts)} {100 * plain.accuracy:.1f}%."
    )


def analysis_tables(analysis: Analysis, method: str) -> tuple[TextTable, TextTable, TextTable]:
    """What layers still see, what each costs, and where in t it is lost, of one finished method."""
    return _seen(analysis, method), _costs(analysis, method), _times(analysis, method)


def _seen(analysis: Analysis, method: str) -> TextTable:
    bands = analysis.identity["bands"]
    edges = [f"{band / bands:.2g}–{(band + 1) / bands:.2g}" for band in range(bands)]
    rows = [
        (str(one.layer), *(cell("{:.2f} ({:.2f})", *pair) or NOTHING for pair in zip(one.kept, one.error, strict=True)))
        for one in analysis.pieces[method].spectra
    ]
    title = "What a layer still sees: power kept (and of the error), by frequency in units of Nyquist"
    return TextTable(title, ("layer", *edges), tuple(rows))


def _costs(analysis: Analysis, method: str) -> TextTable:
    names = analysis.facts["layers"]
    rows = [
        (f"{layer} ({names[layer]})", *_effect_cells(analysis.effect(alone)))
        for layer, alone in analysis.alone(method).items()
    ]
    rows.append(("all together", *_effect_cells(analysis.effect(method))))
    change, shift = f"change of the prediction × {_SCALE}", f"shift of the gap × {_SCALE} (± s.d.)"
    headings = ("layer", change, shift, f"{measure(analysis.facts)}, %", "change, points (95%)")
    return TextTable("Which layer costs what: each compressed alone", headings, tuple(rows))


def _times(analysis: Analysis, method: str) -> TextTable:
    effects = analysis.effect("none"), analysis.effect(method)
    rows = []
    for place, t in enumerate(analysis.facts["timesteps"]):
        accuracies = (f"{100 * effect.accuracy_at[place]:.1f}" for effect in effects)
        gaps = (_scaled(effect.gap_at[place]) for effect in effects)
        rows.append((str(t), *accuracies, *gaps))
    name = measure(analysis.facts)
    headings = ("t", f"{name} without, %", f"{name} with, %", f"gap without × {_SCALE}", f"gap with × {_SCALE}")
    return TextTable("Where in t it is lost: each timestep deciding alone", headings, tuple(rows))


def _scaled(value: float, sign: str = "") -> str:
    return f"{_SCALE * value:{sign}.3g}"


def _effect_cells(effect: Effect) -> tuple[str, str, str, str]:
    return (
        _scaled(effect.change),
        f"{_scaled(effect.shift, '+')} ± {_scaled(effect.deviation)}",
        f"{100 * effect.accuracy:.1f}",
        f"{100 * effect.difference:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})",
    )


def draw_spectra(analysis: Analysis, methods: tuple[str, ...], path: Path) -> None:
    """Draws the power kept by layer and band, a panel per method; 1 is white, grey is a band without power."""
    from matplotlib import colormaps

    tallest = max(len(analysis.pieces[method].spectra) for method in methods)
    figure = new_figure(4.6 * len(methods) + 1, 0.42 * tallest + 2.2, layout="constrained")
    bands, colours = analysis.identity["bands"], colormaps["PuOr"].with_extremes(bad="0.8")
    axes = figure.subplots(1, len(methods), squeeze=False)[0]
    for axis, method in zip(axes, methods, strict=True):
        spectra = analysis.pieces[method].spectra
        kept = np.array([one.kept for one in spectra], dtype=np.float64)  # NaN where there is no power
        heat = axis.imshow(np.ma.masked_invalid(kept), cmap=colours, vmin=0, vmax=2, aspect="auto")
        for row, column in np.argwhere(~np.isnan(kept)):
            value = kept[row, column]
            shade = "white" if abs(value - 1) > 0.65 else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
        axis.set_yticks(range(len(spectra)), [str(one.layer) for one in spectra])
        axis.set_xticks(np.arange(bands + 1) - 0.5, [f"{edge / bands:.2g}" for edge in range(bands + 1)], fontsize=7)
        axis.set_xlabel("frequency, in units of Nyquist")
        axis.set_ylabel("layer")
        axis.set_title(str(label(method)), fontsize=10)
    figure.colorbar(heat, ax=list(axes), label="power kept", extend="max")
    figure.suptitle("What each layer still sees of its tokens: 1 is all, 0 is nothing", fontsize=11)
    save(figure, path)


def draw_layers(analysis: Analysis, path: Path) -> None:
    """Draws the change of the prediction and the shift of the gap, of each layer alone and of all together."""
    methods, by_method = analysis.methods, _styles(analysis.methods)
    layers = sorted({layer for method in methods for layer in analysis.layers[method]})
    places: dict[int, float] = {layer: place for place, layer in enumerate(layers)}
    last = len(layers) + 0.5  # of all together, a little apart
    width = 0.8 / len(methods)
    figure = new_figure(max(7.0, 0.32 * (len(layers) + 1) * len(methods) + 2.5), 6.6)
    above, below = figure.subplots(2, 1, sharex=True)
    for number, method in enumerate(methods):
        aside = (number - (len(methods) - 1) / 2) * width
        bars = {places[layer]: alone for layer, alone in analysis.alone(method).items()} | {last: method}
        at, effects = [place + aside for place in bars], [analysis.effect(name) for name in bars.values()]
        colour = by_method[method].colour
        above.bar(at, [_SCALE * effect.change for effect in effects], width, color=colour, label=str(label(method)))
        shifts = [_SCALE * effect.shift for effect in effects]
        below.bar(at, shifts, width, color=colour)
        spread = [_SCALE * effect.deviation for effect in effects]
        below.errorbar(at, shifts, spread, fmt="none", ecolor="0.25", elinewidth=0.9)
    above.set_ylabel(f"squared change of\nthe prediction × {_SCALE}")
    below.set_ylabel(f"shift of the gap × {_SCALE}\n(line: ± s.d. over images)")
    below.axhline(0, color="black", linewidth=0.8)
    below.set_xticks([*places.values(), last], [*map(str, layers), "all"])
    below.set_xlabel("layer compressed alone; all together")
    plain = analysis.effect("none")
    title = f"Which layer costs what; without compression the gap × {_SCALE} is {_scaled(plain.gap)} on average"
    _finish(figure, (above, below), title, path)


def draw_timesteps(analysis: Analysis, path: Path) -> None:
    """Draws accuracy and gap of each timestep alone, a line per method; no compression is black."""
    figure = new_figure(10.4, 5.0)
    left, right = figure.subplots(1, 2)
    steps = analysis.facts["timesteps"]
    for method, (colour, marker) in {"none": PLAIN, **_styles(analysis.methods)}.items():
        effect = analysis.effect(method)
        size, order = (8, 3) if method == "none" else (5, 2)
        drawn = {"color": colour, "marker": marker, "markersize": size, "linewidth": 1.4, "zorder": order}
        left.plot(steps, [100 * value for value in effect.accuracy_at], label=str(label(method)), **drawn)
        right.plot(steps, [_SCALE * value for value in effect.gap_at], **drawn)
    left.set_ylabel(f"{measure(analysis.facts)}, %")
    right.set_ylabel(f"gap × {_SCALE}")
    right.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for axis in (left, right):
        axis.set_xlabel("t, which decides alone (right: more noise)")
    _finish(figure, (left, right), "Where in t it is lost", path)


def _styles(methods: tuple[str, ...]) -> dict[str, Style]:
    """By method, each with a colour of its own, as bars have no marker."""
    return styles({method: label(method).name for method in methods}, apart=True)


def _finish(figure: Figure, axes: tuple[Axes, ...], title: str, path: Path) -> None:
    """Grid, title, a legend below, and the file."""
    for axis in axes:
        axis.grid(color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
    lines = len(axes[0].get_legend_handles_labels()[0])
    height = 0.22 * -(-lines // 3) / figure.get_figheight()
    figure.legend(loc="lower center", ncols=min(lines, 3), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, height + 0.02, 1, 0.99))
    save(figure, path)


def draw_inspection(inspection: Inspection, path: Path) -> None:
    """Draws image | noised | score map | groups; destinations are dots, merged tokens carry their group's colour."""
    from matplotlib.ticker import MaxNLocator

    grid = inspection.grouping.grid
    figure = new_figure(15, 4.2, layout="constrained")
    original, noised, scores, groups = figure.subplots(1, 4)
    extent = (-0.5, grid.width - 0.5, grid.height - 0.5, -0.5)  # in tokens
    for axis, picture, title in (
        (original, inspection.image, "image"),
        (noised, inspection.noised, f"noised, t = {inspection.timestep}"),
    ):
        axis.imshow(picture, extent=extent, interpolation="nearest", aspect="equal")
        axis.set_title(title)
    heat = scores.imshow(inspection.scores, cmap="viridis", interpolation="nearest")
    unused = "" if inspection.score_used else " (not used by this method)"
    scores.set_title(f"score: {inspection.score_name.replace('_', ' ')}{unused}")
    figure.colorbar(heat, ax=scores, fraction=0.046, pad=0.03, label="low: smooth; high: detail")
    _draw_groups(groups, inspection.grouping, inspection.image)
    for axis in (original, noised, scores, groups):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("token column")
        axis.set_ylabel("token row")
    figure.suptitle(f"{inspection.method} in {inspection.grouping.layer_name}")
    save(figure, path)


def draw_grouping(grouping: Grouping, image: Pixels, path: Path | IO[bytes]) -> None:
    """Draws which tokens go together over an image (H, W, 3), as in `draw_inspection`."""
    figure = new_figure(4.8, 5.2, layout="constrained")
    axis = figure.subplots()
    _draw_groups(axis, grouping, image)
    axis.set_axis_off()
    save(figure, path)


def _draw_groups(axis: Axes, grouping: Grouping, image: Pixels) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    grid, groups, kept = grouping.grid, grouping.groups, grouping.kept
    extent = (-0.5, grid.width - 0.5, grid.height - 0.5, -0.5)  # in tokens
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float64) / 255
    axis.imshow(0.35 + 0.5 * grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    sizes = np.bincount(groups, minlength=len(kept))
    colours = np.array([to_rgb(colour) for colour in _GROUP_COLOURS])
    large = np.flatnonzero((sizes > 1) | (not grouping.merges))  # a window may hold a single token
    of_group = np.zeros((len(kept), 3))
    of_group[large] = colours[np.arange(len(large)) % len(colours)]
    merged = np.isin(groups, large)
    overlay = np.zeros((grid.tokens, 4))
    overlay[merged, :3], overlay[merged, 3] = of_group[groups[merged]], 0.85
    axis.imshow(overlay.reshape(grid.height, grid.width, 4), interpolation="nearest")
    rows, columns = np.divmod(np.arange(grid.tokens), grid.width)
    sources = np.flatnonzero(merged & (kept[groups] != np.arange(grid.tokens)))
    if grouping.merges:
        ends = kept[groups[sources]]
        lines = [((columns[a], rows[a]), (columns[b], rows[b])) for a, b in zip(sources, ends, strict=True)]
        axis.add_collection(LineCollection(lines, colors="black", linewidths=0.5, alpha=0.6))
    size = 1200 / max(grid.height, grid.width) ** 1.5
    dots = kept[large]
    axis.scatter(columns[dots], rows[dots], s=size, color="white", edgecolor="black", linewidth=0.8, zorder=3)
    what, dot = ("tokens", "destination") if grouping.merges else ("keys", "nearest")
    axis.set_title(f"{grid.tokens} → {len(kept)} {what} (dot: {dot})")
