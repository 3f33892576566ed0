"""Presets are for the model that they were measured on: another is refused, and what else differs is told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

import bigain
from bigain.backbones.presets import architecture, preset, preset_file, resolve, weights_name
from bigain.methods import parse, spec
from bigain.zoo import presets


@pytest.fixture
def model(families):
    """A small model that tells where its weights are from."""
    built = families["dit"].build()
    built.register_to_config(_name_or_path="glyphs/small")
    return built


def _write(path: Path, model, text="lgtm-0.5+todo-2", **about) -> Path:
    path.write_text(preset_file(text, model, name="glyphs/small", data="letters", about=about))
    return path


def _silent(methods, model, **known):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return resolve(methods, model, **known)


def test_a_preset_file_is_applied_to_its_model_without_a_word(model, tmp_path):
    path = _write(tmp_path / "mine.json", model, why="fast")
    assert _silent(path, model) == _silent(str(path), model) == parse("lgtm-0.5+todo-2")
    assert _silent(path, torch.compile(model, backend="eager"), data="letters") == parse("lgtm-0.5+todo-2")
    with bigain.compressed(model, path) as handle:
        assert handle.methods == parse("lgtm-0.5+todo-2")
    content = json.loads(path.read_text())
    assert content == {
        "format": "bigain preset 1",
        "methods": spec(parse("lgtm-0.5+todo-2")),
        "model": "glyphs/small",
        "architecture": architecture(model),
        "dtype": ["float32"],
        "data": "letters",
        "why": "fast",
    }
    assert presets.read(path).about == {"why": "fast"}


@pytest.mark.parametrize("given", ["lgtm-0.5", "tome:ratio=0.5,levels=1/2", bigain.ToMe(), [bigain.ToMe()], "none"])
def test_what_is_no_preset_has_nothing_to_compare(families, given):
    methods = _silent(given, families["unet"].build())
    assert methods == resolve(given, None)
    assert methods == (() if given == "none" else methods[:1])


def test_a_preset_of_another_architecture_is_refused(families, model, tmp_path):
    path = _write(tmp_path / "mine.json", model)
    deeper = families["dit"].build(num_layers=3)
    for other in (families["unet"].build(), deeper):
        words = rf"mine\.json must be applied to .*{architecture(model)} \(glyphs/small\), not to {architecture(other)}"
        with pytest.raises(ValueError, match=words):
            bigain.apply(other, path)
        with pytest.raises(ValueError, match=words), bigain.compressed(other, path):
            pass
    with pytest.raises(
        ValueError, match=r"glyphs-sd/balanced must .*UNet2DConditionModel .*\(glyphs-sd\), not to DiTT"
    ):
        bigain.apply(model, "glyphs-sd/balanced")


def test_other_weights_dtype_and_data_are_told(families, model, tmp_path):
    path = _write(tmp_path / "mine.json", model)
    nameless = families["dit"].build().to(torch.bfloat16)
    with pytest.warns(UserWarning, match="weights were glyphs/small, not those given.*dtype was float32, not bfloat16"):
        bigain.apply(nameless, path)
    with pytest.warns(UserWarning, match=r"chosen for something else: its data were letters, not pets"):
        resolve(path, model, data="pets")
    model.register_to_config(_name_or_path="glyphs/other")
    with pytest.warns(UserWarning, match="something else: its weights were glyphs/small, not glyphs/other$"):
        resolve(path, model)


def test_a_file_that_does_not_say_for_which_architecture_is_applied_with_a_warning(model, tmp_path):
    path = tmp_path / "old.json"
    path.write_text('{"format": "bigain preset 1", "methods": "todo-2"}')
    with pytest.warns(UserWarning, match="does not say for which architecture, and this is DiTTransformer2DModel"):
        assert resolve(path, model) == parse("todo-2")


def test_an_architecture_is_what_weights_fit(families):
    build = families["dit"].build
    assert architecture(build()) == architecture(build())
    own = build()
    own.register_to_config(_name_or_path="elsewhere", _diffusers_version="9")
    assert architecture(own) == architecture(build()), "names and versions do not count"
    assert architecture(build(dropout=0.0)) == architecture(build()), "a default that is written out does not count"
    assert len({architecture(build(**change)) for change in ({}, {"num_layers": 3}, {"sample_size": 8})}) == 3


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (None, None),
        ("owner/name", "owner/name"),
        ("/cache/hub/models--owner--a-model-2/snapshots/1f/unet", "owner/a-model-2"),
        (str(presets._ROOT / "glyphs_sd" / "unet"), "glyphs-sd"),
        (presets._ROOT / "glyphs_dit_64", "glyphs-dit-64"),
    ],
)  # fmt: skip
def test_weights_are_named_by_where_they_are_from(families, source, name):
    model = families["dit"].build()
    model.register_to_config(_name_or_path=source)
    assert weights_name(model) == name


def test_weights_in_a_folder_are_known_by_it(families, tmp_path, monkeypatch):
    model = families["dit"].build()
    monkeypatch.chdir(tmp_path)
    Path("small/transformer").mkdir(parents=True)
    path = tmp_path / "mine.json"
    path.write_text(preset_file("todo-2", model, name="small", data="letters"))
    model.register_to_config(_name_or_path=str(tmp_path / "small" / "transformer"))
    assert _silent(path, model) == parse("todo-2")


@pytest.mark.parametrize("name", presets.names())
def test_the_presets_of_an_embedded_model_are_for_that(name):
    from bigain.diffusion import open_model

    model, _, own = name.partition("/")
    dtype = getattr(torch, presets.read(name).dtypes[0])
    denoiser = open_model(model, dtype=dtype)
    methods = _silent(name, denoiser.model, data=presets.read(name).data)
    assert methods == preset(own, model) == parse(spec(methods))
    assert methods
    with bigain.compressed(denoiser, name) as handle:
        assert handle.methods == methods


def test_a_preset_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="of glyphs-dit must be one of quality, balanced, fast, not 'slow'"):
        resolve("glyphs-dit/slow", None)
    with pytest.raises(ValueError, match=r"glyphs-video, not 'sd2'.*bigain allocate --model sd2"):
        preset("fast", "sd2")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"methods": "lgtm-0.7"}', '{"format": "bigain preset 2", "methods": "lgtm-0.7"}',
     '{"format": "bigain preset 1"}', '{"format": "bigain preset 1", "methods": ["lgtm-0.7"]}',
     '{"format": "bigain preset 1", "methods": "other.json"}',
     '{"format": "bigain preset 1", "methods": "glyphs-dit/fast"}',
     '{"format": "bigain preset 1", "methods": "lgtm-0.7", "dtype": [1]}',
     '{"format": "bigain preset 1", "methods": "lgtm-0.7", "model": 3}'],
)  # fmt: skip
def test_a_file_that_is_no_preset_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"broken\.json"):
        resolve(path, None)
    with pytest.raises(FileNotFoundError):
        resolve(tmp_path / "missing.json", None)
