"""The tab "Choose": what each layer costs and saves, and the choice that saves so much at the least cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bigain.backbones import preset_file
from bigain.search.knapsack import allocate, most_saved
from bigain.search.measuring import Record, read_record
from bigain.search.offers import CONTRAST_WEIGHT, Allocation, Offers
from bigain.ui.models import Opened

_POINTS = 24  # of the curve


@dataclass(frozen=True)
class Budgets:
    """What the layers of a model offer, and the curve of the best choices."""

    record: Record
    offers: Offers
    most: int  # percent of the FLOPs that can be saved at most, rounded down
    curve: tuple[dict[str, float], ...]  # "saved", in percent, and "cost"

    def choice(self, saved: float) -> Allocation:
        """The least cost at which so many percent of the FLOPs are saved; a ValueError for too many."""
        if not 0 < saved <= self.most:
            raise ValueError(f"FLOPs saved must be above 0 and at most {self.most}%, not {saved:g}%")
        return allocate(self.offers.offers, round(saved * self.offers.flops / 100))

    def point(self, choice: Allocation) -> dict[str, float]:
        """Of a choice, as in the curve."""
        return point(choice, self.offers)


def point(choice: Allocation, offers: Offers) -> dict[str, float]:
    """Percent saved, and the sum of the costs."""
    cost = choice.change + CONTRAST_WEIGHT * choice.contrast
    return {"saved": float(f"{100 * choice.saved / offers.flops:.5g}"), "cost": float(f"{cost:.5g}")}


@lru_cache(maxsize=8)
def budgets(path: Path, changed: float) -> Budgets:
    """Of a file of offers; ``changed`` is when it was written."""
    record = read_record(path)
    offers = record.offers()
    most = math.floor(100 * most_saved(offers.offers) / offers.flops)
    savings = sorted({round(most * (number + 1) / _POINTS, 2) for number in range(_POINTS)})
    curve = tuple(point(allocate(offers.offers, round(one * offers.flops / 100)), offers) for one in savings)
    return Budgets(record, offers, most, curve)


def of_model(opened: Opened) -> Budgets:
    """A FileNotFoundError where its layers have not been measured, with the command that does."""
    path = opened.offers
    if path is None:
        raise FileNotFoundError(
            f"the layers of {opened.name} must have been measured: bigain allocate --save 0.2 --model {opened.name} "
            f"does, in the folder that bigain ui is started from"
        )
    return budgets(path, path.stat().st_mtime)


def preset(opened: Opened, found: Budgets, choice: Allocation) -> str:
    """The choice as the content of a preset file."""
    about = {"saved": round(choice.saved / found.offers.flops, 4), "change": choice.change, "contrast": choice.contrast}
    data = found.record.identity["data"]
    return preset_file(choice.methods, opened.denoiser.model, name=opened.name, data=data, about=about)


def python(opened: Opened, file: str) -> str:
    """Three lines that use a preset file."""
    lines = (
        "import bigain.diffusion",
        f"model = bigain.diffusion.open_model({opened.name!r})",
        f"bigain.apply(model, {file!r})",
    )
    return "\n".join(lines)
