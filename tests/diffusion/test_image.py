"""What single families of images do in their own way."""

from __future__ import annotations

import pytest
import torch

from bigain.diffusion import open_model


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_qwens_latents_are_those_of_videos_of_one_frame_without_the_frame(flows):
    denoiser = open_model(flows["qwen"].build(), image_size=16)
    images = torch.tanh(_randn(2, 3, 16, 16))
    latents, vae = denoiser.encode(images), denoiser.pipe.vae
    with torch.no_grad():
        mean = vae.encode(images[:, :, None]).latent_dist.mode()
        expected = vae.decode(mean).sample.clamp(-1, 1)[:, :, 0]
    assert latents.shape == (2, *denoiser.sample_shape) == (2, 4, 8, 8)
    for channel, (shift, spread) in enumerate(zip([0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 1.5, 2.0], strict=True)):
        torch.testing.assert_close(latents[:, channel], (mean[:, channel, 0] - shift) / spread, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser.decode(latents), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["qwen", "zimage", "lumina2"])
def test_texts_of_several_lengths_are_padded_and_the_mask_is_kept(flows, name):
    denoiser = open_model(flows[name].build(), **flows[name].sizes)
    prompts = ["x" * (1 + i % 3) for i in range(33)] + ["x" * 9]  # in two passes, the longest in the second
    arguments = denoiser.conditions(prompts).arguments
    mask = next(value for key, value in arguments.items() if "mask" in key)
    embeds = arguments["encoder_hidden_states"]
    assert embeds.shape[:2] == mask.shape
    assert mask.sum(1).tolist() == [int(mask[0].sum()) + len(prompt) - 1 for prompt in prompts]
    if name != "lumina2":  # whose padding is not zero
        assert embeds[~mask.bool()].abs().max() == 0


def test_guidance_of_zimage_counts_from_one(flows):
    denoiser = open_model(flows["zimage"].build())
    assert denoiser.usual_guidance == 6.0  # 5 by the pipeline's own count
    denoiser.pipe.register_to_config(_name_or_path="Tongyi-MAI/Z-Image-Turbo")
    assert denoiser.usual_guidance == 1.0
    assert denoiser._guided(1.0, 2) == {"guidance_scale": 0.0, "negative_prompt_embeds": None}


def test_stable_diffusion_3_does_without_t5_and_not_without_clip(flows):
    denoiser = open_model(flows["sd3 without t5"].build())
    assert len(denoiser.conditions(["a"]).read[0]) == 2
    assert len(open_model(flows["sd3"].build()).conditions(["a"]).read[0]) == 3
    denoiser.pipe.text_encoder_2 = None
    with pytest.raises(ValueError, match="must have a text_encoder_2 to encode prompts"):
        denoiser.conditions(["a"])


def test_a_size_that_a_transformer_says_comes_first(flows):
    assert open_model(flows["sd3"].build(sample_size=12)).image_size == 24
    assert open_model(flows["zimage"].build()).image_size == 16  # the autoencoder's
    assert open_model(flows["qwen"].build()).image_size == 256  # the pipeline's, 128 latents


def test_klein_folds_its_latents_and_normalises_them_by_running_statistics(flows):
    denoiser = open_model(flows["flux2 klein"].build())
    images, vae = torch.tanh(_randn(2, 3, 16, 16)), denoiser.pipe.vae
    latents = denoiser.encode(images)
    with torch.no_grad():
        mean = vae.encode(images).latent_dist.mode()
        expected = vae.decode(mean).sample.clamp(-1, 1)
        folded = vae.bn.eval()(denoiser.pipe._patchify_latents(mean))
    torch.testing.assert_close(latents, folded, atol=1e-3, rtol=0)  # whose eps is another
    torch.testing.assert_close(denoiser.decode(latents), expected, atol=1e-5, rtol=0)
    assert denoiser.sample_shape == (16, 4, 4)


def test_klein_says_itself_whether_it_is_distilled(flows):
    assert open_model(flows["flux2 klein"].build(distilled=True)).distilled == "its pipeline's is_distilled"
    assert open_model(flows["flux2 klein"].build()).distilled is None
    pipe = flows["flux2 klein"].build()
    pipe.vae = None
    with pytest.raises(ValueError, match="the autoencoder must be an AutoencoderKLFlux2, not NoneType"):
        open_model(pipe)
