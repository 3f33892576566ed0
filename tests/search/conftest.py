"""A tiny random DiT, and groups of settings that measure it in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigain.diffusion import Denoiser, open_model
from bigain.run.settings import ModelSettings


@pytest.fixture
def model(tiny_model: Path) -> ModelSettings:
    return ModelSettings(model=str(tiny_model), batch_size=8)


@pytest.fixture
def denoiser(model: ModelSettings) -> Denoiser:
    return open_model(model.model)
