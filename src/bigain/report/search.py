"""The picture of a search: what every trial cost and kept, the front, the targets and the choice."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bigain.evaluate import Target, Trial, front
from bigain.report.labels import label

_DPI = 150
_ACCURACY, _PSNR = "accuracy, %", "PSNR to the uncompressed images, dB"


def draw_search(trials: Sequence[Trial], chosen: Trial | None, targets: Sequence[Target], path: Path) -> None:
    """Draws accuracy and PSNR, as far as they were measured, against the speed-up.

    Raises:
        ValueError: there is no trial, or none has anything but a speed-up.
    """
    panels = [
        (name, [(trial, value) for trial in trials if (value := _value(trial, name)) is not None])
        for name in (_ACCURACY, _PSNR)
    ]
    panels = [(name, points) for name, points in panels if points]
    if not panels:
        raise ValueError("there is nothing to draw: no trial has an accuracy or a PSNR")
    figure = Figure(figsize=(5.4 * len(panels), 4.8), dpi=_DPI)
    FigureCanvasAgg(figure)
    for axes, (name, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, name, points, chosen, targets)
    bounds = " and ".join(map(str, targets))
    found = "no trial keeps it" if chosen is None else f"chosen: {label(chosen.method)}"
    title = f"{len(trials)} trials for {bounds}; {found}"
    figure.suptitle(textwrap.fill(title, 18 * int(figure.get_figwidth())), fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, metadata={"Software": None})


def _value(trial: Trial, name: str) -> float | None:
    if name == _PSNR:
        return None if trial.psnr is None else trial.values()[-1]
    return None if trial.accuracy is None else 100 * trial.accuracy


def _draw(
    axes: Axes, name: str, points: list[tuple[Trial, float]], chosen: Trial | None, targets: Sequence[Target]
) -> None:
    best = {trial.method for trial in front([trial for trial, _ in points])}
    for kept, colour, text in ((False, "#BBBBBB", "trial"), (True, "#0072B2", "on the front")):
        some = [(trial, value) for trial, value in points if (trial.method in best) == kept]
        if some:
            x, y = [trial.speed_up for trial, _ in some], [value for _, value in some]
            axes.scatter(x, y, s=22, color=colour, label=text, zorder=2 + kept)
    for trial, value in points:
        if chosen is not None and trial.method == chosen.method:
            axes.scatter([trial.speed_up], [value], s=150, marker="*", color="#D55E00", label="chosen", zorder=5)
    for target in targets:
        if target.kind == "speed-up":
            axes.axvline(target.value, color="0.4", linestyle="--", linewidth=1)
        elif target.kind == "psnr" and name == _PSNR:
            axes.axhline(target.value, color="0.4", linestyle="--", linewidth=1)
        elif target.kind == "accuracy-loss" and name == _ACCURACY:
            trial, _ = points[0]
            assert trial.accuracy is not None
            assert trial.change is not None
            plain = 100 * (trial.accuracy - trial.change)
            axes.axhline(plain - target.value, color="0.4", linestyle="--", linewidth=1)
    axes.set_xlabel("speed-up over no compression (right is better)")
    axes.set_ylabel(f"{name} (up is better)")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.25)
