"""What a search for a method may try on a model."""

from __future__ import annotations

from dataclasses import dataclass

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import ToDo
from bigain.operators.grid import Grid
from bigain.run.cost import forward_of


@dataclass(frozen=True)
class Space:
    """What may be tried on a model.

    Args:
        levels: the resolution level of each transformer block, in the order of the forward.
        grids: of tokens, of level 1, 2, …
    """

    levels: tuple[int, ...]
    grids: tuple[Grid, ...]

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
