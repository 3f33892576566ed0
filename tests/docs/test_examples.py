"""The examples of docs/examples.md run as they stand, on small random pipelines of the same classes and small sizes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from bigain.videos import read_video

PAGE = Path(__file__).parents[2] / "docs" / "examples.md"
SMALLER = {"2048": "32", "1328": "32", "1024": "16", "832": "16", "480": "16", "81": "5"}


def code(section: str) -> str:
    """The blocks of a section, one after the other, at small sizes."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    joined = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    return re.sub(r"=(\d+)\b", lambda found: f"={SMALLER.get(found[1], found[1])}", joined)


@pytest.fixture
def run(flows: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a section where weights are asked for, and tells its files; no offloading, as there is no GPU."""

    def run(section: str, flow: str, pipeline: str) -> set[str]:
        pipe = flows[flow].build()
        pipe.set_progress_bar_config(disable=True)
        monkeypatch.setattr(getattr(diffusers, pipeline), "from_pretrained", lambda *_, **given: pipe)
        monkeypatch.setattr(diffusers.AutoencoderKLWan, "from_pretrained", lambda *_, **given: pipe.vae)
        monkeypatch.setattr(diffusers.DiffusionPipeline, "enable_model_cpu_offload", lambda self: None)
        monkeypatch.chdir(tmp_path)
        exec(compile(code(section), str(PAGE), "exec"), {"__name__": section})
        return {path.name for path in tmp_path.iterdir()}

    return run


def pixels(file: str) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


def test_flux(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("FLUX", "flux", "FluxPipeline") == {"whole.png", "pooled.png", "blocks.png"}
    whole, pooled, blocks = map(pixels, ("whole.png", "pooled.png", "blocks.png"))
    assert (whole != pooled).any()
    assert (pooled != blocks).any()
    said = capsys.readouterr().out
    assert "of the FLOPs of a forward" in said
    assert said.splitlines()[-1] in ("a photo of a fox.", "a photo of a dog.")


def test_qwen_image(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Qwen-Image", "qwen", "QwenImagePipeline") == {"whole.png", "pooled.png"}
    assert (pixels("whole.png") != pixels("pooled.png")).any()
    assert "of the FLOPs of a forward" in capsys.readouterr().out


def test_wan(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"whole.webp", "avgpool-2.webp", "avgpool-factor=2x2x2.webp"}
    assert run("Wan", "wan", "WanPipeline") == files
    whole, plain, over_time = (read_video(Path(file), 5) for file in sorted(files, reverse=True))
    assert whole.shape == (5, 16, 16, 3)
    assert (whole != plain).any()
    assert (plain != over_time).any()
    assert capsys.readouterr().out.count("of the FLOPs of a forward") == 2
