"""What a search for a method may try on a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.evaluate.allocation import Offer, allocate, most_saved
from bigain.evaluate.timing import forward_of
from bigain.methods import METHODS, InterpolateExtrapolateKV, Method, ToDo, TokenMerging
from bigain.operators.grid import Grid

if TYPE_CHECKING:
    import optuna

_HIGHEST_RATIO, _RATIO_STEP = 0.7, 0.05
_SHARES, _SHARE_STEP = (0.05, 0.75), 0.05  # of the FLOPs that all layers could save
_FEWEST_TOKENS = 3  # that block merging can take away: all but one of a cell


@dataclass(frozen=True)
class Space:
    """What may be tried on a model.

    Args:
        levels: the resolution level of each transformer block, in the order of the forward.
        grids: of tokens, of level 1, 2, …
        offers: what the layers were found to offer.
    """

    levels: tuple[int, ...]
    grids: tuple[Grid, ...]
    offers: tuple[Offer, ...] = ()

    @classmethod
    def of(cls, denoiser: Denoiser) -> Space:
        """Of an open model, whose grids one forward shows."""
        where = layout(denoiser.model)
        every = ToDo(factor=2, levels=tuple(range(1, where.levels + 1)))
        with compressed(denoiser.model, every) as handle:
            forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(1))()
            shown = {row.layer: row for row in handle.summary()}
        rows = [shown[layer.name] for layer in where.layers]
        grids = {layer.level: Grid(*row.grid) for layer, row in zip(where.layers, rows, strict=True)}
        return cls(
            tuple(layer.level for layer in where.layers),
            tuple(grids[level] for level in sorted(grids)),
        )

    @property
    def order(self) -> tuple[int, ...]:
        """The blocks in order of their best bargain, the least cost for a FLOP saved; as they come without offers."""
        prices = dict.fromkeys(range(len(self.levels)), 0.0 if not self.offers else math.inf)
        for offer in self.offers:
            if offer.saved > 0:
                prices[offer.layer] = min(prices[offer.layer], offer.cost() / offer.saved)
        return tuple(sorted(prices, key=prices.__getitem__))

    def ratios(self, depth: int) -> dict[str, tuple[float, float]]:
        """Per merging method the lowest and highest ratio, in steps of 0.05, that suit every grid down to a level.

        At the lowest the smallest grid still loses a block of tokens; a method for which there is none is left out.
        """
        grids = self.grids[:depth]
        low = max(1, math.ceil(_FEWEST_TOKENS / min(grid.tokens for grid in grids) / _RATIO_STEP - 1e-9))
        found = {}
        for name, method in METHODS.items():
            if issubclass(method, TokenMerging):
                most = min(method().limit(grid) / grid.tokens for grid in grids)
                high = math.floor(min(_HIGHEST_RATIO, most) / _RATIO_STEP + 1e-9)
                if low <= high:
                    found[name] = round(low * _RATIO_STEP, 2), round(high * _RATIO_STEP, 2)
        return found

    def suggest(self, trial: optuna.Trial) -> tuple[Method, ...]:
        """What a trial of Optuna proposes: where there are offers, to allocate them or to treat some layers alike."""
        if self.offers and trial.suggest_categorical("approach", ["allocated", "alike"]) == "allocated":
            most = sum(most_saved(self.offers).values())
            share = trial.suggest_float("share", *_SHARES, step=_SHARE_STEP)
            return allocate(self.offers, max(1, round(share * most))).methods
        return (self._alike(trial),)

    def _alike(self, trial: optuna.Trial) -> Method:
        """One method for the layers that it takes."""
        depth = trial.suggest_int("levels", 1, len(self.grids)) if len(self.grids) > 1 else 1
        ratios = self.ratios(depth)
        kind = trial.suggest_categorical(f"method_{depth}", ["downsampling", *ratios])
        places: dict[str, Any] = {"levels": tuple(range(1, depth + 1)), "layers": self._layers(trial, depth)}
        if kind == "downsampling":
            factor, alpha = trial.suggest_int("factor", 2, 4), trial.suggest_float("alpha", 0.0, 1.2, step=0.1)
            return InterpolateExtrapolateKV(factor=factor, alpha=round(alpha, 1), **places)
        ratio = trial.suggest_float(f"ratio_{kind}_{depth}", *ratios[kind], step=_RATIO_STEP)
        fields: dict[str, Any] = {
            "ratio": round(ratio, 2),
            "size_aware": trial.suggest_categorical("size_aware", [True, False]),
            "queries": trial.suggest_categorical("queries", ["full", "merged"]),
            "features": trial.suggest_categorical("features", ["first", "block"]),
        }
        if kind == "tome":
            fields["destinations"] = trial.suggest_categorical("destinations", ["random", "offset"])
        return METHODS[kind](**fields, **places)

    def _layers(self, trial: optuna.Trial, depth: int) -> tuple[int, ...] | None:
        """The first few by their bargain of the layers on the levels down to ``depth``; None for all of them."""
        layers = [layer for layer in self.order if self.levels[layer] <= depth]
        count = trial.suggest_int(f"layers_{depth}", 1, len(layers))
        return None if count == len(layers) else tuple(sorted(layers[:count]))
