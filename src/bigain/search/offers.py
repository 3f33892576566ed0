"""What layers offer, and what comes of the choice: the least change of the predictions for the FLOPs to be saved.

Layers differ by orders of magnitude in what their compression costs. Each candidate is therefore measured in each layer
alone, and in each range of t, and the choices are put together so that the sum of the costs is least. That costs add up
is an assumption, which `bigain.search.correction` mends once. Not in a paper.

The cost of an offer is the mean squared change of the prediction, and `CONTRAST_WEIGHT` times that of the difference
between two classes' predictions. Classes are told apart by that difference, which is small beside a prediction, so what
changes all classes alike costs a classifier little; and guidance draws by a multiple of such a difference. Both are
relative to the mean square of that difference without compression, at the same timestep: where there is much noise
predictions change little, but little is what tells classes apart there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method, ToDo, TokenMerging
from bigain.operators.grid import Grid
from bigain.run.cost import forward_of

CONTRAST_WEIGHT = 3.0  # of the change of the difference between two classes' predictions; that of the prediction has 1
Place: TypeAlias = tuple[int, tuple[int, ...]]  # a layer, and the range of t or ()
_PLACES = ("self_attention", "self_attention/mlp")
_BLOCKS = "size_aware=true,features=first"
_MATCHED = "size_aware=true,destinations=random"
_HALVES = ("1x2", "2x1")  # windows of two tokens
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
    *(f"avgpool:factor={window}" for window in _HALVES),
    *(f"iekvd:factor={window},alpha=0.5" for window in ("2", *_HALVES)),
)
"""Each layer's choice, if no others are given: all of the attention, the MLP too, or keys and values alone, merged by
blocks or by matching; and keys and values pooled."""
_JOINT: tuple[str, ...] = (
    *(f"avgpool:factor={window}" for window in ("2", "4", *_HALVES)),
    *(f"iekvd:factor={window},alpha=0.5" for window in ("2", *_HALVES)),
    *(f"quadtree:ratio={ratio},queries=full" for ratio in (0.5, 0.75)),
)
_WHOLE: tuple[str, ...] = tuple(
    f"{method},locations=block"
    for method in ("abm:ratio=0.3", "abm:ratio=0.5", "quadtree:ratio=0.3", "quadtree:ratio=0.5", "quadtree:ratio=0.75")
)
_VIDEO: tuple[str, ...] = tuple(f"avgpool:factor={window}" for window in ("2x1x1", "2x2x2", "4x2x2"))


@dataclass(frozen=True)
class Offer:
    """One candidate in one layer, at every t or in a range of t.

    What it saves and changes is the mean over all timesteps of a use: that within the range times its share.
    """

    layer: int  # number of the transformer block
    method: str  # spec of the candidate in this layer and range alone
    saved: int  # FLOPs of a forward of one image; or its nanoseconds, see `Clocked.in_time`
    change: float  # mean square of what changes of the prediction under the true class, relative, see above
    contrast: float  # and of the difference between the predictions under the true and another class
    timesteps: tuple[int, int] | None = None  # the range
    weight: float = 1.0  # share of the use's timesteps that lie in it

    def cost(self, contrast_weight: float = CONTRAST_WEIGHT) -> float:
        """What an allocation minimises: ``change + contrast_weight * contrast``."""
        return self.change + contrast_weight * self.contrast

    @property
    def place(self) -> Place:
        """Where at most one offer is taken."""
        return self.layer, self.timesteps or ()

    @property
    def candidate(self) -> Compression:
        """The method without the layer and the range."""
        [method] = Compression.of(self.method)
        return Compression.of(replace(method, layers=None, timesteps=None))

    @property
    def everywhere(self) -> str:
        """Spec of the method in this layer at every t."""
        if self.timesteps is None:
            return self.method
        [method] = Compression.of(self.method)
        return Compression.of(replace(method, timesteps=None)).text


@dataclass(frozen=True)
class Allocation:
    """The offers that were taken, one in a layer and range at most, in the order of the layers."""

    offers: tuple[Offer, ...]

    @property
    def methods(self) -> Compression:
        """The methods that act together, with one config for all layers that take the same at the same t."""
        return Compression(method for method, _ in together(self.offers))

    @property
    def saved(self) -> int:
        """In the unit of the offers: FLOPs of a forward of one image."""
        return sum(offer.saved for offer in self.offers)

    @property
    def change(self) -> float:
        """Sum of the changes that each layer's method makes alone."""
        return math.fsum(offer.change for offer in self.offers)

    @property
    def contrast(self) -> float:
        """Sum of the changes of the difference between classes."""
        return math.fsum(offer.contrast for offer in self.offers)


@dataclass(frozen=True)
class Space:
    """Where a method may act: the resolution level of each transformer block, and the grid of level 1, 2, …"""

    levels: tuple[int, ...]
    grids: tuple[Grid, ...]

    @classmethod
    def of(cls, denoiser: Denoiser) -> Space:
        """Of an open model, whose grids one forward shows."""
        if len(denoiser.models) > 1:
            raise ValueError(
                f"model must have one network that denoises for its layers to be compared, not {len(denoiser.models)}"
            )
        where = layout(denoiser.model)
        with compressed(denoiser.model, ToDo(factor=2, levels=tuple(range(1, where.levels + 1)))) as handle:
            forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(1))()
            shown = handle.summary()
        # A row is of a block, or of one of its attentions.
        grids = {
            layer.level: row.grid
            for layer in where.layers
            for row in shown
            if f"{row.layer}.".startswith(f"{layer.name}.")
        }
        return cls(tuple(layer.level for layer in where.layers), tuple(grids[level] for level in sorted(grids)))


def usual_candidates(denoiser: Denoiser, space: Space) -> tuple[str, ...]:
    """`CANDIDATES`; or of a model that attends jointly or over video keys and values alone, and whole blocks.

    Those that fit; and whole blocks only where rows of a batch may keep different tokens.
    """
    family = layout(denoiser.model).family
    if family is None:
        return CANDIDATES
    whole = () if any(argument.shared for argument in family.per_token) else _WHOLE
    return tuple(text for text in _JOINT + whole + _VIDEO if any(_fits(_single(text), grid) for grid in space.grids))


@dataclass(frozen=True)
class Offers:
    """What all layers offer in all ranges, and the FLOPs of a forward of one image without compression."""

    identity: Mapping[str, Any]
    flops: int
    offers: tuple[Offer, ...]

    def in_flops(self, chosen: Allocation) -> Allocation:
        """The same choice, with what its offers save in FLOPs and cost alone, whatever their unit is."""
        by_method = {offer.method: offer for offer in self.offers}
        return Allocation(tuple(by_method[offer.method] for offer in chosen.offers))


def together(offers: Iterable[Offer]) -> list[tuple[Method, list[Offer]]]:
    """Each candidate in all the layers that it has an offer in at the same t, and these offers.

    Ranges that follow each other count as one, and all of them as every t.
    """
    layers: dict[tuple[Compression, int], list[Offer]] = {}
    for offer in offers:
        layers.setdefault((offer.candidate, offer.layer), []).append(offer)
    groups: dict[tuple[Compression, tuple[int, int] | None], list[Offer]] = {}
    for (candidate, _), own in layers.items():
        for timesteps, members in _joined(own):
            groups.setdefault((candidate, timesteps), []).extend(members)
    return [
        (
            replace(method, layers=tuple(sorted({offer.layer for offer in members})), timesteps=timesteps),
            members,
        )
        for ((method,), timesteps), members in groups.items()
    ]


def _joined(offers: list[Offer]) -> list[tuple[tuple[int, int] | None, list[Offer]]]:
    """Offers of one candidate in one layer by the ranges that they make up together."""
    runs: list[list[Offer]] = []
    for offer in sorted(offers, key=lambda one: one.place):
        before = runs[-1][-1].timesteps if runs else None
        if before and offer.timesteps and before[1] == offer.timesteps[0]:
            runs[-1].append(offer)
        else:
            runs.append([offer])
    found = []
    for run in runs:
        first, last = run[0].timesteps, run[-1].timesteps
        whole = first is None or last is None or math.isclose(math.fsum(offer.weight for offer in run), 1)
        found.append((None if whole or not (first and last) else (first[0], last[1]), run))
    return found


def in_layers(candidates: Sequence[str], space: Space) -> list[tuple[int, Method]]:
    """Every candidate in every layer alone that it suits, once."""
    singles = {text: _single(text) for text in candidates}
    for text, method in singles.items():
        if not any(_fits(method, grid) for grid in space.grids):
            grids = ", ".join(map(str, space.grids))
            raise ValueError(f"candidates must suit a layer of this model, whose grids are {grids}, not {text!r}")
    placed = (
        (layer, replace(method, levels=(1,), layers=(layer,)))
        for layer, level in enumerate(space.levels)
        for method in singles.values()
        if _fits(method, space.grids[level - 1])
    )
    return list(dict.fromkeys(placed))


def _fits(method: Method, grid: Grid) -> bool:
    """Whether it suits a grid; over time that is without the first frame, which goes alone."""
    if method.over_time:
        return grid.frames > 1 and method.suits(replace(grid, frames=grid.frames - 1))
    return method.suits(grid)


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
    if method.timesteps is not None:
        raise ValueError(f"a candidate must leave timesteps out, which ranges (--ranges) are for: {text!r}")
    if method.is_identity:
        raise ValueError(f"a candidate must compress by its ratio or factor, not be the identity: {text!r}")
    return method
