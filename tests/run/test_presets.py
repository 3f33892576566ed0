"""A joint run compares the presets among its methods with the model, once that is open."""

from __future__ import annotations

import pytest

from bigain.backbones import preset_file
from bigain.diffusion import open_model
from bigain.methods import parse, spec
from bigain.run.engine import run
from bigain.run.settings import ModelSettings, Settings


def test_a_preset_of_another_model_is_refused_before_anything_is_measured(tmp_path):
    settings = Settings(model=ModelSettings(model="glyphs-dit-64"), methods=("lgtm-0.5", "glyphs-dit/quality"))
    assert settings.presets == ("glyphs-dit/quality",)
    with pytest.raises(ValueError, match=r"preset glyphs-dit/quality must be applied to the architecture"):
        run(settings, tmp_path / "results.sqlite", denoiser=open_model("glyphs-dit-64"))
    assert not (tmp_path / "results.sqlite").exists()


def test_methods_are_specs_wherever_they_come_from(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(preset_file("todo-2", open_model("glyphs-dit").model, name="glyphs-dit", data="glyphs"))
    settings = Settings(methods=("glyphs-dit/quality", str(path)))
    assert [text.partition(":")[0] for text in settings.methods] == ["none", "quadtree", "todo"]
    assert settings.methods[2] == spec(parse("todo-2"))
    assert settings.presets == ("glyphs-dit/quality", str(path))
