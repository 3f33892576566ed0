"""The examples of docs/integrations.md run as they stand, on small random pipelines of the same classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines.flux import FluxAutoBlocks
from PIL import Image

import bigain
from bigain.backbones import applied_to

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


def code(section: str) -> str:
    """The block of a section, at a small size."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return re.sub(r"=(768|1024)\b", "=16", block)


def test_a_modular_pipeline(
    flows: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {name: part for name, part in flows["flux"].build().components.items() if part is not None}
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe = FluxAutoBlocks().init_pipeline()

    def load(**_: Any) -> None:
        pipe.update_components(**{name: part for name, part in parts.items() if name in pipe.component_names})

    monkeypatch.setattr(ModularPipeline, "from_pretrained", lambda *_: pipe)
    monkeypatch.setattr(pipe, "load_components", load)
    monkeypatch.chdir(tmp_path)
    exec(compile(code("A modular pipeline of diffusers"), str(PAGE), "exec"), {"__name__": "page"})
    assert "of the FLOPs of a forward" in capsys.readouterr().out
    assert not applied_to(pipe.transformer)

    def draw() -> Any:
        noise = torch.Generator().manual_seed(0)
        return np.asarray(pipe(prompt="a fox", height=16, width=16, generator=noise, output="images")[0])

    whole = draw()
    with bigain.compressed(pipe, "avgpool-2"):
        assert (draw() != whole).any()
    np.testing.assert_array_equal(draw(), whole)


def test_a_program_that_loads_once(pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = diffusers.DiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda *_: pipe)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code("A program that makes images on a processor"), str(PAGE), "exec"), names)
    assert applied_to(names["pipe"]).text.startswith("quadtree:ratio=0.5")
    with Image.open("lighthouse.png") as image:
        assert image.size == (16, 16)
    with pytest.raises(TypeError, match="pipe_or_model must be one of"):
        bigain.apply(object(), "quadtree-0.5")
