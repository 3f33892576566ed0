"""What pooling 2x costs in each layer of a model and at each timestep, from what `bigain allocate` measured."""

from __future__ import annotations

from pathlib import Path

from bigain.methods import Compression
from bigain.report.style import markdown_table
from bigain.search.measuring import read_record
from bigain.search.offers import CONTRAST_WEIGHT

POOLING = "avgpool:factor=2"


def table(path: Path) -> str:
    """A row per layer, a column per timestep: the cost in percent, as in `Offer.cost`; then the sum of all layers."""
    record = read_record(path)
    costs = {
        one.layer: [
            100 * (change + CONTRAST_WEIGHT * contrast)
            for change, contrast in zip(one.change, one.contrast, strict=True)
        ]
        for one in record.measured
        if one.method == Compression.of(f"{POOLING},layers={one.layer}").text
    }
    rows = [[str(layer), *(f"{cost:.0f}" for cost in costs[layer])] for layer in sorted(costs)]
    rows.append(["all, summed", *(f"{sum(column):.0f}" for column in zip(*costs.values(), strict=True))])
    return markdown_table(["layer", *(f"t = {t}" for t in record.timesteps)], rows)
