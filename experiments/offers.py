"""What a model that attends jointly or over video bears: of each layer at each timestep, and of all layers alike.

    make allocate-glyphs-flux SPEED=1.28

goes before, whose offers.json this program adds to: what each of `ALIKE` changes. Where it was stopped it goes on.

    python -m experiments.offers glyphs-flux results/offers-glyphs-flux.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bigain.methods import Compression
from bigain.progress import progress_bar
from bigain.report.style import label, markdown_table
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.search.measuring import read_record, whole
from bigain.search.offers import CONTRAST_WEIGHT

POOLING = "avgpool:factor=2"
_KEYS = (  # of which a quarter is left; then a half
    POOLING,
    "iekvd:factor=2,alpha=0.5",
    "iekvd-2",
    "todo-2",
    "todo:factor=2,nearest=first",
    "tome:ratio=0.75,queries=full",
    "quadtree:ratio=0.75,queries=full",
    "tome:ratio=0.5,queries=full",
    "lgtm:ratio=0.5,queries=full",
    "abm:ratio=0.5,queries=full",
    "quadtree:ratio=0.5,queries=full",
)
_UNWEIGHED = tuple(f"{method},size_aware=false" for method in (POOLING, "iekvd:factor=2", "todo:factor=2"))
_TIME = tuple(
    f"avgpool:factor={window}" for window in ("2x1x1", "1x2x1", "1x1x2", "4x1x1", "2x2x2", "2x2x2,size_aware=false")
)
_BLOCKS = tuple(f"{method}:ratio=0.5,locations=block" for method in ("tome", "lgtm", "abm", "quadtree"))
_GENTLE = tuple(f"{method}:ratio=0.3,locations=block" for method in ("abm", "quadtree"))
ALIKE = {
    "glyphs-flux": (*_KEYS, *_UNWEIGHED, f"{POOLING},pool_at=projection"),
    "glyphs-video": (*_KEYS, *_TIME, *_BLOCKS, *_GENTLE),
}
DATA = {"glyphs-flux": ("glyphs", 8), "glyphs-video": ("glyphs-moving", 6)}  # and how many, as in the Makefile


def table(path: Path) -> str:
    """A row per layer, a column per timestep: the cost of pooling, as in `Offer.cost`; then their sum."""
    record = read_record(path)
    costs = {
        one.layer: _costs(one.change, one.contrast)
        for one in record.measured
        if one.method == Compression.of(f"{POOLING},layers={one.layer}").text
    }
    rows = [[str(layer), *_cells(costs[layer])] for layer in sorted(costs)]
    rows.append(["all, summed", *_cells([sum(column) for column in zip(*costs.values(), strict=True)])])
    return markdown_table(["layer", *(f"t = {t}" for t in record.timesteps)], rows)


def alike(path: Path, model: str) -> str:
    """Of methods in all layers, as measured: the change of the prediction / of the difference between two classes."""
    record = read_record(path)
    rows = []
    for text in ALIKE[model]:
        change, contrast = record.wholes[Compression.of(text).text]
        cells = zip(_cells(change), _cells(contrast), strict=True)
        rows.append([str(label(text)), *(" / ".join(cell) for cell in cells)])
    return markdown_table(["method", *(f"t = {t}" for t in record.timesteps)], rows)


def _costs(change: Sequence[float], contrast: Sequence[float]) -> list[float]:
    return [one + CONTRAST_WEIGHT * other for one, other in zip(change, contrast, strict=True)]


def _cells(costs: Sequence[float]) -> list[str]:
    """With three digits, or all before the point."""
    return [f"{cost:,.0f}" if cost >= 100 else f"{cost:#.3g}" for cost in costs]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*ALIKE])
    parser.add_argument("offers", type=Path, help="the .json that bigain allocate wrote, to be added to")
    given = parser.parse_args(arguments)
    model, (data, images) = ModelSettings(model=given.model, batch_size=8), DATA[given.model]
    settings = ProbeSettings(images=images, timesteps=5, spacing="scheduler")
    probe = Probe.of(model, DataSettings(data=data).unseen(), settings, model.open())
    with progress_bar(len(ALIKE[given.model]), True, unit="method") as bar:
        for text in ALIKE[given.model]:
            whole(probe, given.offers, Compression.of(text), exact=False)
            bar.update()


if __name__ == "__main__":
    main()
