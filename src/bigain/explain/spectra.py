"""What a layer still sees under a method, by radial frequency."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigain.backbones import Seen
from bigain.methods import TokenDownsampling, TokenMerging
from bigain.metrics.spectrum import radial_power
from bigain.operators.assignment import merge, unmerge
from bigain.operators.grid import cell_index

_ROUNDING = 1e-12  # share of the power below which a band holds nothing but what float32 rounds


@dataclass(frozen=True)
class Spectrum:
    """What stays of the tokens in one layer, by radial frequency: (bands,) each, band 0 the lowest.

    Args:
        layer: number of the transformer block.
        power: of the tokens, the mean over channels, images and timesteps.
        kept: power of what stays of them, in units of ``power``; None in a band where they have none.
        error: power of the difference, in the same units.
    """

    layer: int
    power: tuple[float, ...]
    kept: tuple[float | None, ...]
    error: tuple[float | None, ...]


@dataclass
class SpectrumMeter:
    """Adds up the power of what methods meet; ``note`` is what `bigain.backbones.recorded` calls.

    Args:
        bands: as in `bigain.metrics.spectrum.radial_power`.
    """

    bands: int
    # By layer (3, bands), float64: of the tokens, of what stays of them, of the difference.
    powers: dict[int, Tensor] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def note(self, seen: Seen) -> None:
        """Adds the tokens of one layer of one forward."""
        left = remaining(seen)
        x, layer = seen.tokens.to(left.dtype), seen.context.layer
        parts = [radial_power(part, seen.context.grid, self.bands) for part in (x, left, x - left)]
        found = torch.stack([part.double().sum(dim=0) for part in parts]).cpu()
        self.powers[layer] = self.powers[layer] + found if layer in self.powers else found
        self.rows[layer] = self.rows.get(layer, 0) + len(x)

    def spectra(self) -> tuple[Spectrum, ...]:
        """Of all that was noted, in the order of the layers."""
        return tuple(_spectrum(layer, self.powers[layer] / self.rows[layer]) for layer in sorted(self.powers))


def remaining(seen: Seen) -> Tensor:
    """What stays of the tokens that a layer was given, put back at every place: (B, N, C) in at least float32.

    Merged and un-merged; or pooled, each token of a window with what was made of its window.
    """
    method, x = seen.method, seen.tokens.to(torch.promote_types(seen.tokens.dtype, torch.float32))
    if isinstance(method, TokenMerging):
        assert seen.assignment is not None
        return unmerge(merge(x, seen.assignment, method.operator), seen.assignment)
    assert isinstance(method, TokenDownsampling)
    window = cell_index(seen.context.grid, (method.factor, method.factor), x.device)  # (N,)
    return method.pool(x, seen.context)[:, window]


def _spectrum(layer: int, powers: Tensor) -> Spectrum:
    """Of mean powers (3, bands)."""
    power, kept, error = powers.tolist()
    least = _ROUNDING * sum(power)

    def relative(values: list[float]) -> tuple[float | None, ...]:
        return tuple(value / whole if whole > least else None for value, whole in zip(values, power, strict=True))

    return Spectrum(layer, tuple(power), relative(kept), relative(error))
