"""The command that serves the page; the page itself is seen in a browser."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bigain.run.settings import ModelSettings


def test_it_serves_the_named_model_on_this_machine_alone(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pytest.importorskip("bigain.ui.page", reason="no Gradio: pip install 'bigain[ui]'")
    asked: list[Any] = []

    def serve(model: ModelSettings, **given: Any) -> Any:
        asked.append((model.model, model.dtype, given))
        return SimpleNamespace(local_url="http://127.0.0.1:1/", block_thread=lambda: asked.append("blocked"))

    monkeypatch.setattr(page, "serve", serve)
    said = call("ui", "--model", "glyphs-sd", "--dtype", "bfloat16").output
    assert asked == [("glyphs-sd", "bfloat16", {"host": "127.0.0.1", "port": None}), "blocked"]
    assert "http://127.0.0.1:1/" in said


def test_without_gradio_it_says_what_to_install(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bigain.ui.page", raising=False)
    found = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "bigain.ui.page":
            raise ModuleNotFoundError("No module named 'gradio'")
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert "pip install 'bigain[ui]'" in call("ui", fails=True).output
