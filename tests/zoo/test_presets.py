"""Presets that come with the models, read without waiting for PyTorch."""

from __future__ import annotations

import subprocess
import sys

from bigain import zoo
from bigain.zoo import presets


def test_presets_are_listed_from_little_to_much():
    every = ("quality", "balanced", "fast")
    two = every[1:]
    names = {"glyphs-dit": every, "glyphs-dit-64": every[1:2], "glyphs-flux": two}
    names |= {"glyphs-sd": every, "glyphs-video": two}
    assert presets.names() == tuple(f"{model}/{name}" for model, own in names.items() for name in own)
    assert {*names} <= {*zoo.names()}
    for model, own in names.items():
        saved = [presets.of_model(model, name).about["measured"]["saved"] for name in own]
        assert saved == sorted(saved)
        assert saved[0] > presets.of_model(model, own[0]).about["uncompressed"]["saved"] == 0


def test_reading_presets_imports_no_pytorch():
    program = (
        "import sys; from bigain.zoo import presets; assert presets.names() and presets.text_of('glyphs-sd/fast');"
        "print(*[name for name in ('torch', 'diffusers', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_a_spec_is_its_own_text():
    assert presets.text_of("tome:ratio=0.5,levels=1/2") == "tome:ratio=0.5,levels=1/2"
    assert presets.read("lgtm-0.7+tome:ratio=0.5,levels=1/2") is None
    assert presets.text_of("glyphs-dit/fast").startswith("quadtree:")
