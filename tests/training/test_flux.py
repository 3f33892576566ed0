"""The training of the small FLUX: what small images stand for, and the teacher."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline
from torch.nn.functional import avg_pool2d

import tokenizer
import train_flux
from bigain import zoo


def test_images_and_positions_are_packed_as_the_pipeline_does() -> None:
    latents = torch.arange(2 * 4 * 6 * 6.0).view(2, 4, 6, 6)
    assert torch.equal(train_flux.packed(latents), FluxPipeline._pack_latents(latents, 2, 4, 6, 6))
    assert torch.equal(train_flux.unpacked(train_flux.packed(latents)), latents)
    text, image = train_flux.positions(5, 3)
    assert not text.any()
    large = FluxPipeline._prepare_latent_image_ids(2, 6, 6, "cpu", torch.float32)
    assert torch.equal(image, FluxPipeline._prepare_latent_image_ids(2, 3, 3, "cpu", torch.float32))
    _, centres = train_flux.positions(5, 3, spacing=2)
    assert torch.equal(centres, large.view(3, 2, 3, 2, 3).mean((1, 3)).view(9, 3))


def test_a_token_of_a_small_image_weighs_what_it_stands_for() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = train_flux.TextToVelocity(tokenizer.build(), tokenizer.build_t5()).eval()
        latents = torch.randn(2, 9, 16)
    level, words = torch.tensor([0.3, 0.8]), torch.tensor([[3, 4, 5, 1], [6, 7, 1, 0]])
    text, image = train_flux.positions(4, 3)
    with torch.no_grad():
        plain, weighed = (model(latents, level, words, words, (text, image), weight) for weight in (1, 4))
        copies = latents.repeat_interleave(4, 1), level, words, words, (text, image.repeat_interleave(4, 0))
        repeated = model(*copies)[:, ::4]
    torch.testing.assert_close(weighed, repeated, atol=1e-5, rtol=1e-4)
    assert (plain - repeated).abs().max() > 1e-3


def test_the_teacher_predicts_the_noise_of_latents_and_of_their_averages() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(zoo.path("glyphs-sd"), safety_checker=None)
    tokens = pipe.tokenizer("a photo of the letter A", padding="max_length", return_tensors="pt").input_ids
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    timestep = 700
    alpha = pipe.scheduler.alphas_cumprod[timestep]
    with torch.no_grad():
        states = pipe.text_encoder(tokens)[0]
        for factor, size in ((1, 64), (2, 128)):
            # of a black image, so that the averaged latents are sqrt(1 - alpha) of averaged noise
            own = noise[..., : 16 * factor, : 16 * factor]
            small = avg_pool2d(own, factor) * factor
            spread = factor * ((1 - alpha) / alpha).sqrt()
            level = (spread / (1 + spread)).view(1)
            expected = pipe.unet((1 - alpha).sqrt() * small, timestep, encoder_hidden_states=states).sample
            teacher = train_flux.Teacher(size, "cpu")
            predicted, weight = teacher.noise(level * own, level, tokens)
            torch.testing.assert_close(predicted, expected, atol=0.05, rtol=0.05)  # it runs in bfloat16
            torch.testing.assert_close(weight, 1 / alpha.view(1), rtol=1e-3, atol=0)
            followed = predicted.repeat_interleave(factor, 2).repeat_interleave(factor, 3) / factor
            assert teacher.loss(followed, level * own, level, tokens) < 1e-9
            assert teacher.loss(own, level * own, level, tokens) > 1e-3


def test_the_teacher_is_asked_where_it_knows() -> None:
    levels = torch.tensor([0.01, 0.3, 0.9, 0.9999])
    tokens = torch.zeros(4, 8, dtype=torch.long)
    weights = [
        train_flux.Teacher(size, "cpu").noise(torch.zeros(4, 4, side, side), levels, tokens)[1]
        for size, side in ((64, 16), (256, 64))
    ]
    assert (weights[0] > 0).tolist() == [False, True, True, False]  # outside is more or less noise than it was shown
    assert (weights[1] > 0).tolist() == [False, False, True, False]
    assert all(weight.max() <= 16 for weight in weights)


def test_a_size_must_divide_what_it_stands_for(train: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    for size, larger in ((96, 192), (128, 64), (128, 192)):
        with pytest.raises(SystemExit):
            train("train_flux", "--size", size, "--for-size", larger)
        assert f"not {size}, {larger}" in capsys.readouterr().err
