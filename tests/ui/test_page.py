"""The page is built for any local model; what it does is seen in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigain.run.settings import ModelSettings

gradio = pytest.importorskip("gradio", reason="no Gradio: pip install 'bigain[ui]'")


def components(page: Any) -> dict[str, Any]:
    """Of a page, by their ids in the document."""
    return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}


def test_a_model_of_ones_own_by_its_folder(pipeline_folder: Path) -> None:
    from bigain.ui.page import built

    page = built(ModelSettings(model=str(pipeline_folder)))
    found = components(page)
    assert found["model"].value == str(pipeline_folder)
    assert found["compress-prompt"].visible
    assert f"bigain allocate --save 0.2 --model {pipeline_folder} does" in found["choose-status"].value
    assert not found["choose-saved"].visible


def test_nothing_of_it_can_be_called_from_elsewhere() -> None:
    from bigain.ui.page import built

    page = built(ModelSettings())
    assert page.analytics_enabled is False
    assert page.fns
    for event in page.fns.values():
        assert event.api_visibility == "private"
