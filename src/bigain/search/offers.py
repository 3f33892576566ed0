"""What every layer of a model offers: the FLOPs that a method saves in it alone, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method, ToDo, TokenMerging
from bigain.operators.grid import Grid
from bigain.run.cost import flops, forward_of
from bigain.run.files import read_json, write_json
from bigain.run.probe import Probe
from bigain.run.settings import differences
from bigain.search.allocation import Allocation, Offer

_PLACES = ("self_attention", "self_attention/mlp")
_BLOCKS = "size_aware=true,features=first"
_MATCHED = "size_aware=true,destinations=random"
CANDIDATES: tuple[str, ...] = (
    *(
        f"quadtree:ratio={ratio},locations={place},{_BLOCKS}"
        for place in _PLACES
        for ratio in (0.3, 0.4, 0.5, 0.6, 0.9)
    ),
    *(f"abm:ratio={ratio},locations={place},{_BLOCKS}" for place in _PLACES for ratio in (0.3, 0.5)),
    *(f"quadtree:ratio={ratio},queries=full,{_BLOCKS}" for ratio in (0.75, 0.9)),
    *(f"tome:ratio={ratio},queries=full,{_MATCHED}" for ratio in (0.5, 0.75)),
    *(f"tome:ratio={ratio},cell=4x4,locations={place},{_MATCHED}" for place in _PLACES for ratio in (0.8, 0.9)),
    *(f"tome:ratio={ratio},locations=self_attention/mlp,{_MATCHED}" for ratio in (0.3, 0.5, 0.7)),
    "avgpool:factor=2",
    "avgpool:factor=4",
    "iekvd:factor=2",
    "iekvd:factor=2,alpha=0.5",
)
"""Each layer's choice, if no others are given: all of the attention, the MLP too, or keys and values alone, merged by
blocks or by matching; and keys and values pooled."""

_FORMAT = "bigain offers 3"


@dataclass(frozen=True)
class Space:
    """Where a method may act: the resolution level of each transformer block, and the grid of level 1, 2, …"""

    levels: tuple[int, ...]
    grids: tuple[Grid, ...]

    @classmethod
    def of(cls, denoiser: Denoiser) -> Space:
        """Of an open model, whose grids one forward shows."""
        where = layout(denoiser.model)
        with compressed(denoiser.model, ToDo(factor=2, levels=tuple(range(1, where.levels + 1)))) as handle:
            forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(1))()
            shown = {row.layer: row for row in handle.summary()}
        grids = {layer.level: Grid(*shown[layer.name].grid) for layer in where.layers}
        return cls(tuple(layer.level for layer in where.layers), tuple(grids[level] for level in sorted(grids)))


@dataclass(frozen=True)
class Offers:
    """What all layers offer, and the FLOPs of a forward of one image without compression."""

    identity: Mapping[str, Any]
    flops: int
    offers: tuple[Offer, ...]

    def in_flops(self, chosen: Allocation) -> Allocation:
        """The same choice, with the FLOPs that its offers save, whatever their unit is."""
        by_method = {offer.method: offer for offer in self.offers}
        return Allocation(tuple(by_method[offer.method] for offer in chosen.offers))


def measure_offers(
    probe: Probe,
    path: Path,
    *,
    candidates: Sequence[str] = CANDIDATES,
    counted: Callable[[int, int], object] = lambda done, of: None,
) -> Offers:
    """Measures every candidate in every layer alone whose grid it suits; goes on where ``path`` (.json), if any, ends.

    ``candidates`` are specs of one method each, whose layers and levels are replaced; ``counted`` is called with the
    offers done and their number after each.

    ValueError for a candidate that is several methods or none, suits no layer, is cached or follows a threshold; a
    change that is not finite; or a file of other measurements.
    """
    denoiser = probe.denoiser
    placed = _in_layers(candidates, Space.of(denoiser))
    fresh = Offers(probe.identity(), flops(denoiser, "none", denoiser.any_condition), ())
    kept = read_offers(path) if path.exists() else fresh
    if differing := differences(kept.identity, fresh.identity):
        raise ValueError(
            f"{path} must hold the offers of these measurements, but {differing}: give another folder with --out"
        )
    by_method = {offer.method: offer for offer in kept.offers}
    for number, (layer, method) in enumerate(placed, start=1):
        name = Compression.of(method).text
        if name not in by_method:
            saved = kept.flops - flops(denoiser, method, denoiser.any_condition)
            by_method[name] = Offer(layer, name, saved, *_changes(probe, method))
            write_json(path, _FORMAT, asdict(replace(kept, offers=tuple(by_method.values()))))
        counted(number, len(placed))
    return replace(kept, offers=tuple(by_method[Compression.of(method).text] for _, method in placed))


def _changes(probe: Probe, method: Method) -> tuple[float, float]:
    """Of the prediction, and of its difference between two classes."""
    probe.plain()
    probe.plain(other=True)
    with compressed(probe.denoiser.model, method):
        change, contrast = probe.changes()
    if not math.isfinite(change + contrast):
        raise ValueError(
            f"the changes of the prediction and of its difference between two classes must be finite, not {change} "
            f"and {contrast}, under {Compression.of(method).text} in {probe.model.dtype}: give another dtype"
        )
    return change, contrast


def read_offers(path: Path) -> Offers:
    """Reads what ``measure_offers`` wrote; anything else is a ValueError."""

    def made(content: Mapping[str, Any]) -> Offers:
        return Offers(content["identity"], content["flops"], tuple(Offer(**one) for one in content["offers"]))

    return read_json(path, _FORMAT, "offers of bigain allocate", made)


def _in_layers(candidates: Sequence[str], space: Space) -> list[tuple[int, Method]]:
    """Every candidate in every layer alone that it suits, once."""
    singles = {text: _single(text) for text in candidates}
    for text, method in singles.items():
        if not any(method.suits(grid) for grid in space.grids):
            grids = ", ".join(f"{grid.height}x{grid.width}" for grid in space.grids)
            raise ValueError(f"candidates must suit a layer of this model, whose grids are {grids}, not {text!r}")
    placed = (
        (layer, replace(method, levels=(1,), layers=(layer,)))
        for layer, level in enumerate(space.levels)
        for method in singles.values()
        if method.suits(space.grids[level - 1])
    )
    return list(dict.fromkeys(placed))


def _single(text: str) -> Method:
    """The one method of a candidate that can act in a layer alone, at a cost that does not depend on the image."""
    methods = Compression.of(text)
    if len(methods) != 1:
        raise ValueError(f"a candidate must be one method, not the {len(methods)} of {text!r}")
    [method] = methods
    if method.depends_on_image:
        raise ValueError(f"a candidate must have a ratio, not a threshold, whose FLOPs depend on the image: {text!r}")
    if isinstance(method, TokenMerging) and method.cached:
        raise ValueError(f"a candidate must not be cached, as a layer alone has no earlier one: {text!r}")
    if method.is_identity:
        raise ValueError(f"a candidate must compress by its ratio or factor, not be the identity: {text!r}")
    return method
