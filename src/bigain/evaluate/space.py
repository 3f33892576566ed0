"""What a search for a method may try on a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.evaluate.timing import forward_of
from bigain.methods import METHODS, InterpolateExtrapolateKV, ToDo, TokenDownsampling, TokenMerging
from bigain.operators.grid import Grid

if TYPE_CHECKING:
    import optuna

_HIGHEST_RATIO, _RATIO_STEP = 0.7, 0.05


@dataclass(frozen=True)
class Space:
    """What may be tried on a model.

    Args:
        levels: of resolution that have attention.
        layers: transformer blocks.
        ratios: per merging method the highest ratio, in steps of 0.05, that its finest grid allows.
    """

    levels: int
    layers: int
    ratios: dict[str, float]

    @classmethod
    def of(cls, denoiser: Denoiser) -> Space:
        """Of an open model, whose grid one forward shows."""
        where = layout(denoiser.model)
        condition: Any = 0 if denoiser.kind == "class" else ""
        with compressed(denoiser.model, ToDo(factor=2)) as handle:
            forward_of(denoiser, condition, denoiser.process.timesteps(1))()
            grid = Grid(*handle.summary()[0].grid)
        ratios = {}
        for name, method in METHODS.items():
            if issubclass(method, TokenMerging):
                steps = math.floor(min(_HIGHEST_RATIO, method().limit(grid) / grid.tokens) / _RATIO_STEP + 1e-9)
                if steps:
                    ratios[name] = round(steps * _RATIO_STEP, 2)
        return cls(where.levels, len(where.layers), ratios)

    def suggest(self, trial: optuna.Trial) -> TokenMerging | TokenDownsampling:
        """The method that a trial of Optuna proposes."""
        kind = trial.suggest_categorical("method", ["downsampling", *self.ratios])
        places = self._places(trial)
        if kind == "downsampling":
            factor, alpha = trial.suggest_int("factor", 2, 4), trial.suggest_float("alpha", 0.0, 1.2, step=0.1)
            return InterpolateExtrapolateKV(factor=factor, alpha=round(alpha, 1), **places)
        fields: dict[str, Any] = {
            "ratio": round(trial.suggest_float(f"ratio_{kind}", _RATIO_STEP, self.ratios[kind], step=_RATIO_STEP), 2),
            "size_aware": trial.suggest_categorical("size_aware", [True, False]),
            "queries": trial.suggest_categorical("queries", ["full", "merged"]),
        }
        if kind == "tome":
            fields["destinations"] = trial.suggest_categorical("destinations", ["random", "offset"])
        return METHODS[kind](**fields, **places)

    def _places(self, trial: optuna.Trial) -> dict[str, Any]:
        """Levels from the finest on, and a run of layers around the middle one."""
        levels = trial.suggest_int("levels", 1, self.levels) if self.levels > 1 else 1
        middle = self.layers // 2
        first = trial.suggest_int("first_layer", 0, middle)
        last = trial.suggest_int("last_layer", middle, self.layers - 1)
        whole = (first, last) == (0, self.layers - 1)
        return {
            "levels": tuple(range(1, levels + 1)),
            "layers": None if whole else tuple(range(first, last + 1)),
        }
