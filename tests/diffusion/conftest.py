"""Each family of flow matching in turn."""

from __future__ import annotations

import pytest

from tests.pipelines import FLOWS, Flow


@pytest.fixture(params=sorted(FLOWS))
def flow(request: pytest.FixtureRequest) -> Flow:
    """Each family in turn."""
    return FLOWS[request.param]
