"""What every layer of a model offers: the FLOPs that a method saves in it alone, and what it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigain.backbones import compressed
from bigain.diffusion import Denoiser
from bigain.methods import Method, TokenMerging, parse, spec
from bigain.operators.grid import Grid
from bigain.run.cost import flops
from bigain.run.export import write_whole
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings, differences
from bigain.search.allocation import Offer
from bigain.search.grids import Space

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

_FORMAT = "bigain offers 2"
_EARLIER_FORMATS = ("bigain offers 1",)


@dataclass(frozen=True)
class Offers:
    """What all layers were found to offer, and the FLOPs of a forward without compression."""

    identity: Mapping[str, Any]
    flops: int
    offers: tuple[Offer, ...]


def measure_offers(
    denoiser: Denoiser,
    path: Path | None = None,
    *,
    model: ModelSettings,
    data: DataSettings,
    settings: ProbeSettings,
    candidates: Sequence[str] = CANDIDATES,
    counted: Callable[[int, int], object] = lambda done, of: None,
) -> Offers:
    """Measures every candidate in every layer alone; goes on where the file ``path`` leaves off.

    The changes are those of the prediction under the true class and of its difference to that under another, on the
    noise of the diffusion classifier; no image is classified, so few do. A candidate is left out of layers whose grid
    it does not suit.

    Args:
        denoiser: the model that ``model`` names, open.
        path: of a JSON file with all offers, made if it is not there; None keeps none.
        model, data, settings: see the groups.
        candidates: specs of one method each; their layers and levels are replaced.
        counted: called with the offers done and their number after each.

    Raises:
        ValueError: data of one class, or an image that shows all, where there is no other class to tell from; a
            candidate that is several methods or none, suits no layer, is cached or follows a threshold;
            settings that do not fit the model or the data; a change that is not finite; or a file of other
            measurements; says which fields differ.
    """
    probe = Probe.of(model, data, settings, denoiser)
    probe.check_classes()
    condition = denoiser.any_condition
    found = Offers(probe.identity(), flops(denoiser, "none", condition), ())
    if path is not None and path.exists():
        found = read_offers(path)
        if found.identity != probe.identity():
            differing = "; ".join(differences(dict(found.identity), probe.identity()))
            raise ValueError(
                f"{path} holds the offers of other measurements: {differing}. Give another folder with --out"
            )
    known = {offer.method: offer for offer in found.offers}
    wanted = _in_layers(candidates, Space.of(denoiser))
    for number, (layer, method) in enumerate(wanted):
        name = spec(method)
        if name not in known:
            probe.plain(lambda _: None)
            probe.plain_others()
            saved = found.flops - flops(denoiser, name, condition)
            with compressed(denoiser.model, method):
                change, contrast = probe.changes()
            if not math.isfinite(change + contrast):
                raise ValueError(
                    f"{name} changes the prediction by {change} and its difference to another class's by {contrast} in "
                    f"{model.dtype}: give another dtype"
                )
            known[name] = Offer(layer, name, saved, change, contrast)
            if path is not None:
                _write(path, replace(found, offers=tuple(known.values())))
        counted(number + 1, len(wanted))
    return replace(found, offers=tuple(known[spec(method)] for _, method in wanted))


def read_offers(path: Path) -> Offers:
    """Reads what ``measure_offers`` wrote.

    Raises:
        ValueError: the file is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no file of offers: {error}") from error
    if isinstance(content, dict) and content.get("format") in _EARLIER_FORMATS:
        raise ValueError(
            f"{path} is of an earlier version, which did not measure what tells classes apart: delete it, or give "
            f"another folder with --out"
        )
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of offers, which has format {_FORMAT!r}")
    try:
        return Offers(content["identity"], content["flops"], tuple(Offer(**each) for each in content["offers"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole file of offers: {error!r}") from error


def _write(path: Path, offers: Offers) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": _FORMAT, "identity": offers.identity, "flops": offers.flops}
    write_whole(path, json.dumps(content | {"offers": [asdict(each) for each in offers.offers]}, indent=1) + "\n")


def _in_layers(candidates: Sequence[str], space: Space) -> list[tuple[int, Method]]:
    """Every candidate in every layer alone that it suits, once."""
    singles = [_single(text) for text in candidates]
    found: list[tuple[int, Method]] = []
    for layer, level in enumerate(space.levels):
        suitable = [method for method in singles if _suits(method, space.grids[level - 1])]
        found += [(layer, replace(method, levels=(1,), layers=(layer,))) for method in suitable]
    for text, method in zip(candidates, singles, strict=True):
        if not any(_suits(method, grid) for grid in space.grids):
            grids = ", ".join(f"{grid.height}x{grid.width}" for grid in space.grids)
            raise ValueError(f"{text!r} suits no layer of this model, whose grids are {grids}: give a weaker one")
    return list(dict.fromkeys(found))


def _single(text: str) -> Method:
    parsed = parse(text)
    if len(parsed) != 1:
        raise ValueError(f"{text!r} is {len(parsed)} methods: a candidate is one, layers are put together here")
    [method] = parsed
    if method.depends_on_image:
        raise ValueError(f"{text!r} merges what lies under a threshold, so its FLOPs depend on the image: give a ratio")
    if isinstance(method, TokenMerging) and method.cached:
        raise ValueError(f"{text!r} is cached: in a layer alone there is no earlier one whose assignment it could use")
    if method.is_identity:
        raise ValueError(f"{text!r} compresses nothing by its settings: give a larger ratio or factor")
    return method


def _suits(method: Method, grid: Grid) -> bool:
    return method.suits(grid)
