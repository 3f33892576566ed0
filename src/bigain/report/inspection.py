"""Draws a look inside one forward: the score map of an image, and which of its tokens merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bigain.report.style import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigain.explain.inspection import Inspection

# Paul Tol's "muted" and "light" schemes: told apart with colour blindness, and on grey.
_GROUP_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
    "#77AADD", "#EE8866", "#FFAABB", "#BBCC33", "#AAAA00",
)  # fmt: skip


def draw_inspection(inspection: Inspection, path: Path) -> None:
    """Draws image | noised | score map | groups; destinations are dots, merged tokens carry their group's colour."""
    from matplotlib.ticker import MaxNLocator

    grid = inspection.grid
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
    _draw_groups(groups, inspection, extent)
    for axis in (original, noised, scores, groups):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("token column")
        axis.set_ylabel("token row")
    figure.suptitle(f"{inspection.method} in {inspection.layer_name}")
    save(figure, path)


def _draw_groups(axis: Axes, inspection: Inspection, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    grid, groups, kept = inspection.grid, inspection.groups, inspection.kept
    grey = np.asarray(Image.fromarray(inspection.image).convert("L"), dtype=np.float64) / 255
    axis.imshow(0.35 + 0.5 * grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    sizes = np.bincount(groups, minlength=len(kept))
    colours = np.array([to_rgb(colour) for colour in _GROUP_COLOURS])
    large = np.flatnonzero((sizes > 1) | (not inspection.merges))  # a window may hold a single token
    of_group = np.zeros((len(kept), 3))
    of_group[large] = colours[np.arange(len(large)) % len(colours)]
    merged = np.isin(groups, large)
    overlay = np.zeros((grid.tokens, 4))
    overlay[merged, :3], overlay[merged, 3] = of_group[groups[merged]], 0.85
    axis.imshow(overlay.reshape(grid.height, grid.width, 4), interpolation="nearest")
    rows, columns = np.divmod(np.arange(grid.tokens), grid.width)
    sources = np.flatnonzero(merged & (kept[groups] != np.arange(grid.tokens)))
    if inspection.merges:
        ends = kept[groups[sources]]
        lines = [((columns[a], rows[a]), (columns[b], rows[b])) for a, b in zip(sources, ends, strict=True)]
        axis.add_collection(LineCollection(lines, colors="black", linewidths=0.5, alpha=0.6))
    size = 1200 / max(grid.height, grid.width) ** 1.5
    dots = kept[large]
    axis.scatter(columns[dots], rows[dots], s=size, color="white", edgecolor="black", linewidth=0.8, zorder=3)
    what, dot = ("tokens", "destination") if inspection.merges else ("keys", "nearest")
    axis.set_title(f"{grid.tokens} → {len(kept)} {what} (dot: {dot})")
