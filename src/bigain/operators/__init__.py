"""Pure tensor functions on tokens that lie on a grid: the arithmetic of token compression.

Nothing here knows of models, methods or timesteps, and nothing but ``torch`` is imported. Tokens are ``(B, N, C)`` with
N = height * width in row-major order. An :class:`~bigain.operators.assignment.Assignment` is one group index per token:
merging is a scatter over it and un-merging a gather, and the merging methods differ only in how they make it.

A tensor whose shape does not fit the grid or the assignment, and a value outside of what is allowed, raise a
ValueError that names it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigain.operators import blocks, frequency, grid, matching, pooling, random

__all__ = ["blocks", "frequency", "grid", "matching", "pooling", "random"]


def __getattr__(name: str) -> ModuleType:
    # Loaded at first use, so that a method can be named or refused without waiting for PyTorch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
