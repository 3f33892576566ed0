from __future__ import annotations

import pytest

from bigain.run.settings import ModelSettings
from bigain.ui.models import Models, Opened


@pytest.fixture(scope="session")
def models() -> Models:
    """The embedded ones."""
    return Models(ModelSettings())


@pytest.fixture(scope="session")
def opened(models: Models) -> Opened:
    """glyphs-dit."""
    return models["glyphs-dit"]
