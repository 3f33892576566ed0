"""A look inside one forward: the score map of an image, and which of its tokens merge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from bigain.backbones import Seen, recorded
from bigain.classify import noised, predictions
from bigain.diffusion import Denoiser
from bigain.methods import (
    AdaptiveBlockMerging,
    FrequencySelection,
    LaplacianMerging,
    Method,
    ToMe,
    parse,
)
from bigain.operators.frequency import low_pass, score
from bigain.operators.grid import Grid, cell_index

_DEFAULT_SCORE = "laplacian_l1"
# Paul Tol's "muted" and "light" schemes: told apart with colour blindness, and on grey.
_GROUP_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
    "#77AADD", "#EE8866", "#FFAABB", "#BBCC33", "#AAAA00",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a method did to one image in one layer.

    Args:
        method: its spec.
        timestep, layer: where.
        layer_name: of the transformer block.
        image, noised: uint8 (S, S, 3); noised is what the model saw (decoded, if it sees latents).
        grid: of the tokens.
        score_name: which score.
        score_used: whether the method goes by it, or it is shown for comparison.
        scores: float32 (height, width), high is detail; of the tokens after the method's smoothing, if it has any.
        groups: int64 (tokens,), the group of each token.
        kept: int64 (groups,), the token that stands for each group: its destination, or itself.
        merges: False where only keys and values are pooled, so that every token stays a query.
    """

    method: str
    timestep: int
    layer: int
    layer_name: str
    image: npt.NDArray[np.uint8]
    noised: npt.NDArray[np.uint8]
    grid: Grid
    score_name: str
    score_used: bool
    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    merges: bool


def inspect_method(
    denoiser: Denoiser,
    method: str,
    image: Tensor,
    image_id: str,
    *,
    timestep: int,
    condition: str | int,
    layer: int | None = None,
    seed: int = 0,
) -> Inspection:
    """Runs one forward with the classifier's noise of this image and looks at one layer.

    Args:
        denoiser: an open model without compression.
        method: a spec of one method.
        image: float (3, S, S) in [-1, 1].
        image_id: seeds the noise.
        timestep: of the noise, in [0, the model's training timesteps).
        condition: prompt or label that the model is asked with.
        layer: number of the transformer block; None is the first in which the method acts.
        seed: of the noise.

    Raises:
        ValueError: "none" or several methods, a timestep out of range, or a layer in which the method does not act;
            lists those in which it does.
    """
    methods = parse(method)
    if len(methods) != 1:
        raise ValueError(f"method must be one compression method, not {method!r}")
    if isinstance(methods[0], FrequencySelection):
        raise ValueError(f"{method!r} makes no groups of tokens that could be drawn: give another method")
    if not 0 <= timestep < denoiser.process.steps:
        raise ValueError(f"timestep must lie in [0, {denoiser.process.steps}), not {timestep}")
    x0 = denoiser.encode(image[None])
    t = torch.tensor([timestep])
    x_t, _ = noised(denoiser, x0, [image_id], t, seed)
    conditions = denoiser.conditions([condition])  # type: ignore[arg-type]
    seen: dict[int, Seen] = {}  # by layer

    def note(each: Seen) -> None:
        if each.decided:
            seen[each.context.layer] = each

    with recorded(denoiser.model, methods[0], note):
        predictions(denoiser, x_t, [image_id], t, conditions, torch.zeros(1, dtype=torch.long), seed)
    chosen = min(seen) if layer is None else layer
    if chosen not in seen:
        raise ValueError(f"layer must be one in which {method} decides what merges, {sorted(seen)}, not {layer}")
    found, grid = seen[chosen], seen[chosen].context.grid
    score_name = getattr(methods[0], "score", _DEFAULT_SCORE)
    deciding = found.tokens if found.features is None else found.features
    scored = low_pass(deciding, grid, getattr(methods[0], "smoothing", 0))
    if found.assignment is None:
        factor = methods[0].factor  # type: ignore[union-attr]
        groups = cell_index(grid, (factor, factor)).numpy()
        kept = np.unique(groups, return_index=True)[1]  # the nearest token of a window is its first
    else:
        groups, kept = found.assignment.index[0].cpu().numpy(), found.assignment.kept[0].cpu().numpy()
    return Inspection(
        method=method,
        timestep=timestep,
        layer=chosen,
        layer_name=found.name,
        image=_pixels(image),
        noised=_pixels(denoiser.decode(x_t)[0]),
        grid=grid,
        score_name=score_name,
        score_used=_uses_score(methods[0]),
        scores=score(scored, grid, score_name)[0].float().cpu().numpy().reshape(grid.height, grid.width),
        groups=groups,
        kept=kept,
        merges=found.assignment is not None,
    )


def _uses_score(method: Method) -> bool:
    """Whether what merges depends on the token score."""
    gated = isinstance(method, ToMe) and bool(method.gate or method.protect)
    return gated or isinstance(method, LaplacianMerging | AdaptiveBlockMerging)


def draw_inspection(inspection: Inspection, path: Path) -> None:
    """Draws image | noised | score map | groups; destinations are dots, merged tokens carry their group's colour."""
    grid = inspection.grid
    figure = Figure(figsize=(15, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, metadata={"Software": None})


def _draw_groups(axis: Axes, inspection: Inspection, extent: tuple[float, float, float, float]) -> None:
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


def _pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    """(3, S, S) in about [-1, 1] to uint8 (S, S, 3)."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
