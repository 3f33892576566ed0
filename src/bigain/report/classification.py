"""Pictures of a run's classification: which class is taken for which, and whether probabilities mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigain.metrics.accuracy import confusion, reliability
from bigain.report.style import PLAIN, label, new_figure, save, styles
from bigain.run.outcomes import outcomes

if TYPE_CHECKING:
    from bigain.run.store import Store

_MOST = 9  # methods of a page
_FEWEST = 100  # images of a reliability plot: the bins of fewer are noise
_NAMED = 40  # classes whose names stand at the axes


def draw_classification(store: Store, folder: Path) -> None:
    """Writes confusion.png and reliability.png, of the first methods; nothing where images have several labels."""
    if store.facts["multi_label"]:
        return
    methods, counts, bins = store.methods(), {}, {}
    for spec in methods[:_MOST]:
        if images := outcomes(store, spec):
            true, predicted = [one.labels[0] for one in images], [one.prediction for one in images]
            counts[spec] = confusion(predicted, true, len(store.facts["classes"]))
            bins[spec] = reliability([one.confidence for one in images], [one.right for one in images])
    if counts:
        draw_confusion(counts, store.facts["classes"], folder, len(methods))
        if min(own.sum() for own in counts.values()) >= _FEWEST:
            draw_reliability(bins, folder)


def draw_confusion(counts: dict[str, np.ndarray], names: list[str], folder: Path, methods: int = 0) -> None:
    """Draws (classes, classes) counts, a row per true class, as shares of the row: a panel per method.

    ``methods`` is how many there are, where that may be more than have a panel.
    """
    figure = new_figure(3.6 * min(3, len(counts)) + 0.6, 3.9 * -(-len(counts) // 3) + 0.3)
    axes = figure.subplots(-(-len(counts) // 3), min(3, len(counts)), squeeze=False).flatten()
    for axis, (spec, own) in zip(axes, counts.items(), strict=False):
        axis.imshow(own / np.maximum(own.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axis.set_title(str(label(spec)), fontsize=10)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        if len(names) <= _NAMED:
            axis.set_xticks(range(len(names)), names, fontsize=7, rotation=90 if max(map(len, names)) > 2 else 0)
            axis.set_yticks(range(len(names)), names, fontsize=7)
    for axis in axes[len(counts) :]:
        axis.set_axis_off()
    some = f", for the first {len(counts)} of {methods} methods" if methods > len(counts) else ""
    figure.suptitle(f"Share of the images of each class{some}", fontsize=10)
    figure.tight_layout()
    save(figure, folder / "confusion.png")


def draw_reliability(bins: dict[str, np.ndarray], folder: Path) -> None:
    """Draws how often images of a probability are right: (bins, 3) of mean probability, share right, images."""
    figure = new_figure(5.4, 5.6)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, linestyle=":")
    looks = styles({spec: label(spec).name for spec in bins if spec != "none"}, apart=True) | {"none": PLAIN}
    for spec, own in bins.items():
        colour, marker = looks[spec]
        axis.plot(own[:, 0], own[:, 1], color=colour, linewidth=1, alpha=0.6)
        axis.scatter(own[:, 0], own[:, 1], s=30 + 120 * own[:, 2] / own[:, 2].sum(), color=colour, marker=marker,
                     edgecolor="white", linewidth=0.5, zorder=3, label=str(label(spec)))  # fmt: skip
    axis.set_xlim(0, 1.02)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("mean probability of the predicted class")
    axis.set_ylabel("share that is right")
    axis.set_title("Larger markers stand for more images", fontsize=10)
    axis.grid(color="0.92", linewidth=0.6)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    figure.tight_layout()
    save(figure, folder / "reliability.png")
