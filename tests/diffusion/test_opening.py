from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from bigain import zoo
from bigain.diffusion import ClassConditional, open_model, opening


def _vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, scaling_factor=0.5)


def _prediction(denoiser) -> torch.Tensor:
    x = torch.rand(2, *denoiser.sample_shape, generator=torch.Generator().manual_seed(0))
    return denoiser.predict(x, torch.tensor([5, 500]), denoiser.conditions([1, 2]), torch.tensor([0, 1]))


@pytest.fixture
def parts(families, tmp_path):
    """A folder with transformer/ and scheduler/, as the embedded model has."""
    families["dit"].build().save_pretrained(tmp_path / "transformer")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path / "scheduler")
    return tmp_path


def test_a_folder_of_parts_denoises_pixels(families, parts):
    denoiser = open_model(str(parts))
    assert torch.equal(_prediction(denoiser), _prediction(open_model(parts)))
    assert denoiser.sample_shape == (3, 16, 16)
    assert denoiser.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(denoiser.encode(images), images)


def test_a_folder_of_parts_with_an_autoencoder_and_flow_matching(families, tmp_path):
    families["dit"].build(in_channels=4, out_channels=8).save_pretrained(tmp_path / "transformer")
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    _vae().save_pretrained(tmp_path / "vae")
    denoiser = open_model(tmp_path)
    assert denoiser.process.prediction == "flow"
    assert denoiser.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 16, 16)


def test_the_embedded_name_is_looked_up_in_the_zoo(parts, monkeypatch):
    monkeypatch.setattr(zoo, "path", lambda name: parts / {"glyphs-dit": "."}[name])
    assert isinstance(open_model("glyphs-dit"), ClassConditional)


def test_a_pipeline_and_its_folder(families, tmp_path):
    pipe = DiTPipeline(families["dit"].build(in_channels=4, out_channels=8), _vae(), DDIMScheduler())
    pipe.save_pretrained(tmp_path)
    from_object, from_folder = open_model(pipe), open_model(tmp_path)
    assert from_object.model is pipe.transformer
    assert torch.equal(_prediction(from_object), _prediction(from_folder))
    assert from_folder.pipe is not None


def test_without_transformers_a_text_model_names_the_extra_that_brings_it(families, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ImportError, match=r"a StableDiffusionPipeline, .* pip install 'bigain\[text\]'"):
        open_model(tmp_path)
    pipe = DiTPipeline(families["dit"].build(in_channels=4, out_channels=8), _vae(), DDIMScheduler())
    pipe.save_pretrained(tmp_path / "dit")
    assert isinstance(open_model(tmp_path / "dit"), ClassConditional)  # which needs none


def test_what_is_swapped_in_the_pipeline_takes_effect(families):
    pipe = DiTPipeline(families["dit"].build(in_channels=4, out_channels=8), _vae(), DDIMScheduler())
    denoiser = open_model(pipe)
    pipe.scheduler = DDIMScheduler(prediction_type="v_prediction")
    pipe.transformer = families["dit"].build(in_channels=4, out_channels=4)
    assert denoiser.process.prediction == "v_prediction"
    assert denoiser.model is pipe.transformer


def test_a_denoiser_comes_back_as_it_is(parts):
    denoiser = open_model(parts)
    assert open_model(denoiser) is denoiser
    with pytest.raises(ValueError, match="dtype and device must be left out for a denoiser"):
        open_model(denoiser, dtype=torch.bfloat16)


def test_dtype(families, parts):
    assert open_model(parts).dtype == torch.float32
    assert open_model(parts, dtype=torch.bfloat16).dtype == torch.bfloat16
    pipe = DiTPipeline(families["dit"].build(in_channels=4, out_channels=8), _vae(), DDIMScheduler())
    assert open_model(pipe, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert open_model(pipe).dtype == torch.bfloat16


def test_pickled_weights_are_not_read(families, parts):
    weights = parts / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(OSError, match="safetensors"):
        open_model(parts)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_pickled_weights_of_a_pipeline_are_not_read(part, tmp_path):
    folder = shutil.copytree(zoo.path("glyphs-sd"), tmp_path / "pipe")
    [weights] = (folder / part).glob("*.safetensors")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    weights.rename(weights.with_name(name))
    with pytest.raises(OSError, match=f"{weights.name} found"):
        open_model(folder)


@pytest.mark.parametrize("name", ["glyphs", "no/such/folder", "./missing", "~/missing"])
def test_an_unknown_name_lists_what_a_model_can_be(name):
    with pytest.raises(ValueError, match=r"must be embedded \(glyphs-dit, .*, glyphs-video\), a folder or a Hub id"):
        open_model(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold model_index.json .*transformer/config.json is missing"):
        open_model(tmp_path)


def test_a_folder_of_another_transformer(families, tmp_path):
    families["pixart"].build().save_pretrained(tmp_path / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match=r"must hold a DiTTransformer2DModel, .* not PixArtTransformer2DModel"):
        open_model(tmp_path)


@pytest.mark.parametrize("name", ["DiTTransformer2DModel", "NoSuchScheduler", None])
def test_a_folder_whose_scheduler_is_none(parts, name):
    file = parts / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ValueError, match=f"must hold a scheduler of diffusers, not {name}"):
        open_model(parts)


def test_an_unsupported_pipeline_lists_the_supported_ones():
    unet = UNet2DModel(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4
    )
    with pytest.raises(ValueError, match=r"must be one of DiTPipeline, StableDiffusion.*, not DDPMPipeline"):
        open_model(DDPMPipeline(unet, DDPMScheduler()))


def test_every_family_that_is_named_exists():
    import diffusers

    for pipeline, family in opening._FAMILIES.items():
        assert hasattr(diffusers, pipeline)
        assert not inspect.isabstract(family)


@pytest.mark.parametrize(
    ("name", "part"),
    [("glyphs-dit", "transformer"), ("glyphs-sd", "unet"), ("glyphs-sd", "vae"), ("glyphs-sd", "text_encoder")],
)
def test_weights_without_one_tensor_are_refused_and_it_is_named(name, part, tmp_path):
    """Transformers would draw it at random."""
    folder = shutil.copytree(zoo.path(name), tmp_path / "model")
    [file] = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(tensors)[len(tensors) // 2]
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"model/{part} must have all weights of .*; 1 missing: .*{lost[-20:]}"):
        open_model(folder)


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"'])
@pytest.mark.parametrize("file", ["transformer/config.json", "scheduler/scheduler_config.json"])
def test_a_config_that_is_no_object_is_named(parts, file, content):
    (parts / file).write_text(content)
    with pytest.raises(ValueError, match=f"{file} must hold a JSON object, not "):
        open_model(parts)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "nested"])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_config_that_is_not_json_is_named(file, content, tmp_path):
    folder = shutil.copytree(zoo.path("glyphs-sd"), tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} must be JSON, not this"):
        open_model(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("transformer/config.json", {"num_layers": "six"}),
        ("transformer/config.json", {"num_attention_heads": 0}),
        ("transformer/config.json", {"num_layers": 3}),
        ("transformer/config.json", {"sample_size": None}),
        ("transformer/config.json", {"patch_size": [2]}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "magic"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}),
    ],
    ids=str,
)
def test_a_config_with_a_bad_value_is_named(parts, file, change):
    path = parts / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"{parts}.* must "):
        open_model(parts)


def test_weights_that_are_cut_short_are_named(parts):
    file = parts / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises((ValueError, OSError), match=str(parts)):
        open_model(parts)


@pytest.mark.parametrize("device", ["bogus", "meta", "cuda:99", "", "xpu"])
def test_a_device_that_cannot_be_used_is_refused(parts, device):
    with pytest.raises(ValueError, match=rf"device must be one that PyTorch can use here \(cpu.*\), not '{device}'"):
        open_model(parts, device=device)


def test_quiet_keeps_the_libraries_silent_and_leaves_them_as_they_were(capfd):
    from diffusers.utils import logging
    from transformers.utils import logging as text_logging

    before = [(module.get_verbosity(), module.is_progress_bar_enabled()) for module in (logging, text_logging)]
    open_model("glyphs-sd", quiet=True)
    assert capfd.readouterr().err == ""
    assert [(module.get_verbosity(), module.is_progress_bar_enabled()) for module in (logging, text_logging)] == before
    open_model("glyphs-sd")
    assert "Loading" in capfd.readouterr().err


def test_an_unsupported_pipeline_is_refused_before_its_weights_are_read(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline", "vae": ["diffusers", "X"]}))
    with pytest.raises(ValueError, match=r"must be one of DiTPipeline, .*, not KolorsPipeline"):
        open_model(tmp_path)


def test_a_part_without_the_variant_takes_its_plain_weights(families, tmp_path):
    pipe = DiTPipeline(families["dit"].build(in_channels=4, out_channels=8), _vae(), DDIMScheduler())
    pipe.save_pretrained(tmp_path)
    pipe.transformer.save_pretrained(tmp_path / "transformer", variant="fp16")
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert torch.equal(_prediction(open_model(tmp_path, variant="fp16")), _prediction(open_model(pipe)))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_weights_file_that_is_cut_off_is_named(pipeline_folder: Path, part: str) -> None:
    [weights] = (pipeline_folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises((ValueError, OSError), match=part):
        open_model(pipeline_folder)
