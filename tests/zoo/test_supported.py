"""The list of supported models against the registries that decide."""

from __future__ import annotations

import inspect
import json

import diffusers
import pytest
import torch

import bigain
from bigain import zoo
from bigain.backbones import families
from bigain.backbones.joint import FAMILIES
from bigain.diffusion import opening
from bigain.zoo import published
from bigain.zoo.supported import REFUSED, SUPPORTED


def test_the_list_has_every_supported_class_and_no_other() -> None:
    assert {one.network for one in SUPPORTED} == {model.__name__ for model in families.SUPPORTED}


def test_tokens_merge_where_the_list_says_so() -> None:
    for one in SUPPORTED:
        assert (one.attention == "self") == (getattr(diffusers, one.network) not in FAMILIES)
        assert (one.attention == "video") == ("3D" in one.network)


def test_it_classifies_and_generates_with_the_pipelines_that_open() -> None:
    assert sorted(name for one in SUPPORTED for name in one.pipelines) == sorted(opening._FAMILIES)
    for one in SUPPORTED:
        for name in one.pipelines:
            parts = inspect.signature(getattr(diffusers, name).__init__).parameters
            part = parts.get("unet") or parts["transformer"]
            assert one.network in str(part.annotation), name


def test_trained_weights_are_those_of_embedded_models() -> None:
    kinds = set()
    for name in opening.EMBEDDED:
        index = zoo.path(name) / "model_index.json"
        pipeline = json.loads(index.read_text())["_class_name"] if index.is_file() else "DiTPipeline"
        kinds.add((published.of_folder(zoo.path(name)).kind, pipeline))
    assert {(one.network, one.pipelines[0]) for one in SUPPORTED if one.trained} == kinds


@pytest.mark.parametrize("refusal", [one for one in REFUSED if one.network is not None], ids=lambda one: one.what)
def test_refused_classes_exist_and_are_refused(refusal: object) -> None:
    kind = getattr(diffusers, refusal.network)  # type: ignore[attr-defined]
    with torch.device("meta"):
        model = kind(num_layers=1)
    with pytest.raises(TypeError, match="pipe_or_model must be one of"):
        bigain.apply(model, "todo-2")


def test_a_unet_with_other_attention_is_refused() -> None:
    blocks = {"down_block_types": ("SimpleCrossAttnDownBlock2D",), "up_block_types": ("SimpleCrossAttnUpBlock2D",)}
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16,), norm_num_groups=8, attention_head_dim=8, layers_per_block=1, cross_attention_dim=16,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", **blocks,
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be a Transformer2DModel, as in Stable Diffusion"):
        bigain.apply(unet, "todo-2")


def test_published_configurations_are_of_supported_classes_and_whole() -> None:
    for name in published.names():
        model = published.published(name.upper())
        assert model.name == name
        assert model.kind in {one.network for one in SUPPORTED}
        assert model.sizes
        with torch.device("meta"):
            config = getattr(diffusers, model.kind).from_config(model.config).config
        assert all(config[key] == value for key, value in model.config.items()), name
    with pytest.raises(ValueError, match=r"name must be one of SD-1\.5, .*, not 'SD-9'"):
        published.published("SD-9")
