"""Noise levels of flow matching, and how they change with the size of what is seen through the noise."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted(level: Tensor, factor: float) -> Tensor:
    """Noise levels at which ``factor``² times as many pixels of a scene show as much of it as at ``level``.

    Source: Esser et al. 2024, section 5.3.2.
    """
    return factor * level / (1 + (factor - 1) * level)


def levels(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) in (0, 1), one in each of as many equal spans, in random order, shifted."""
    spans = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return shifted(spans / count, shift)
