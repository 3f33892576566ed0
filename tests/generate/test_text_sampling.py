"""Sampling through text pipelines: small random models of the real classes, prompts encoded beforehand."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

import bigain
from bigain.diffusion import Conditions, open_model
from bigain.generate import Sampling, sample
from bigain.operators.random import seeded_generator

INDEX, IMAGE_IDS = [1, 0, 1], [5, 6, 7]


def _vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, scaling_factor=0.5)


def _stable_diffusion(families):
    pipe = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=families["unet"].build(sample_size=8),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe, {"encoder_hidden_states": _randn(2, 5, 16)}, 1.0


def _xl(families):
    """Its negative prompt is zeros, so guidance needs no text encoder."""
    pipe = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=families["sdxl"].build(sample_size=8),
        scheduler=EulerAncestralDiscreteScheduler(),
        add_watermarker=False,
    )
    added = {"text_embeds": _randn(2, 16), "time_ids": torch.tensor([[8.0, 8, 0, 0, 8, 8]] * 2)}
    return pipe, {"encoder_hidden_states": _randn(2, 5, 16), "added_cond_kwargs": added}, 5.0


def _pixart(families):
    pipe = PixArtSigmaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_vae(),
        transformer=families["pixart"].build(sample_size=8),
        scheduler=EulerDiscreteScheduler(),
    )
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    return pipe, {"encoder_hidden_states": _randn(2, 5, 16), "encoder_attention_mask": mask}, 1.0


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


PIPELINES = {"stable diffusion": _stable_diffusion, "xl": _xl, "pixart": _pixart}


@pytest.fixture(params=sorted(PIPELINES))
def opened(request, families):
    """An open pipeline, its two conditions, and a guidance that it can do."""
    pipe, arguments, guidance = PIPELINES[request.param](families)
    return open_model(pipe), Conditions(("a", "b"), arguments), guidance


def _close(a, b) -> bool:
    return bool(np.abs(np.stack(a).astype(int) - np.stack(b).astype(int)).max() <= 1)


def test_images_are_the_pipelines_own(opened):
    denoiser, conditions, guidance = opened
    pipe = denoiser.pipe
    images = list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance, seed=2)))
    generators = [seeded_generator("generate", 2, i) for i in IMAGE_IDS]
    rows = conditions.rows(torch.tensor(INDEX))
    arguments = {"prompt_embeds": rows["encoder_hidden_states"]}
    if "added_cond_kwargs" in rows:
        arguments["pooled_prompt_embeds"] = rows["added_cond_kwargs"]["text_embeds"]
    if "encoder_attention_mask" in rows:
        arguments |= {"prompt_attention_mask": rows["encoder_attention_mask"], "use_resolution_binning": False}
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        **arguments, generator=generators, num_inference_steps=3, guidance_scale=guidance, output_type="np"
    ).images
    assert np.abs(np.stack(images) - expected * 255).max() <= 1


def test_any_batch_size_gives_the_same_images(opened):
    denoiser, conditions, guidance = opened
    drawn = [
        list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance, batch_size=size)))
        for size in (1, 2, 3)
    ]
    assert _close(drawn[0], drawn[2])
    assert _close(drawn[1], drawn[2])
    assert not _close(drawn[0][:1], drawn[0][2:])


def test_the_pipeline_is_left_as_it_was(opened):
    denoiser, conditions, guidance = opened
    pipe = denoiser.pipe
    scheduler, state = pipe.scheduler, dict(pipe.scheduler.__dict__)
    pipe.set_progress_bar_config(desc="mine")
    list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance, "euler")))
    assert pipe.scheduler is scheduler
    assert scheduler.num_inference_steps is state["num_inference_steps"]
    assert pipe._progress_bar_config == {"desc": "mine"}


def test_the_progress_bar_is_ours_alone(opened, capsys):
    denoiser, conditions, guidance = opened
    list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance, batch_size=2)))
    assert capsys.readouterr().err == ""
    list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance, batch_size=2), progress=True))
    assert "6/6" in capsys.readouterr().err


def test_keys_of_each_forward(opened, monkeypatch):
    denoiser, conditions, guidance = opened
    open_keys, seen = [], []

    @contextlib.contextmanager
    def record(model, image, draw):
        open_keys.append((image.tolist(), draw.tolist()))
        yield
        open_keys.pop()

    monkeypatch.setattr("bigain.generate.row_keys", record)
    handle = denoiser.model.register_forward_hook(lambda _m, _a, output: seen.append([len(output[0]), *open_keys]))
    list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(3, guidance)))
    handle.remove()
    assert not open_keys
    rows = 3 if guidance == 1 else 6
    for step, (size, *keys) in enumerate(seen):
        assert size == rows
        [(image, draw)] = keys
        assert (len(image), len(set(image))) == (3, 3), "guidance's rows repeat them"
        assert set(draw) == {step}


def test_compression_reaches_the_pipeline_and_does_not_depend_on_the_batch(opened):
    denoiser, conditions, guidance = opened
    options = {"steps": 3, "guidance": guidance}
    plain = list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(**options)))
    with bigain.compressed(denoiser.pipe, bigain.ToMe(ratio=0.5, destinations="random", redraw="forward")):
        first, second = (
            list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(batch_size=size, **options)))
            for size in (2, 3)
        )
    assert _close(first, second)
    assert any(not np.array_equal(a, b) for a, b in zip(first, plain, strict=True))
