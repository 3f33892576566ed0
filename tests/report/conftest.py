"""A tiny random DiT."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import DDIMScheduler

from bigain.diffusion import ClassConditional


@pytest.fixture
def denoiser(families: Any) -> ClassConditional:
    """A random DiT of 2 layers on 16x16 pixels, 8x8 tokens."""
    return ClassConditional(model=families["dit"].build(), scheduler=DDIMScheduler())
