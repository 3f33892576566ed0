from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from bigain.diffusion.latents import Latents, Pixels


def _vae(**overrides) -> AutoencoderKL:
    config = dict(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    return AutoencoderKL(**(config | overrides)).eval()


def _images(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_pixels_are_themselves():
    images = _images(2)
    assert torch.equal(Pixels().decode(Pixels().encode(images)), images)


@pytest.mark.parametrize("shift", [None, 0.25])
def test_a_latent_is_the_posterior_mean_in_the_models_scaling(shift):
    vae = _vae(scaling_factor=0.5, shift_factor=shift)
    images = _images(11)  # more than one pass of the autoencoder
    latents = Latents(vae).encode(images)
    with torch.no_grad():
        mean = torch.cat([vae.encode(image[None]).latent_dist.mode() for image in images])
    torch.testing.assert_close(latents, (mean - (shift or 0)) * 0.5, atol=1e-5, rtol=0)
    assert latents.shape == (11, 4, 8, 8)
    assert Latents(vae).factor == 2


def test_latents_with_a_mean_and_std_per_channel():
    vae = _vae(scaling_factor=0.5, latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[0.5, 1.0, 2.0, 4.0])
    images = _images(1)
    with torch.no_grad():
        mean = vae.encode(images).latent_dist.mode()
    for channel in range(4):
        expected = (mean[:, channel] - (channel + 1)) * 0.5 / 2.0 ** (channel - 1)
        torch.testing.assert_close(Latents(vae).encode(images)[:, channel], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [{"shift_factor": 0.25}, {"latents_mean": [1.0] * 4, "latents_std": [0.5] * 4}])
def test_decode_takes_the_scaling_back(config):
    vae = _vae(scaling_factor=0.5, **config)
    space, images = Latents(vae), _images(9)
    with torch.no_grad():
        expected = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    torch.testing.assert_close(space.decode(space.encode(images)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_half_precision_autoencoder_that_overflows_runs_in_float32_and_is_put_back(force_upcast):
    vae = _vae(force_upcast=force_upcast).half()
    images = _images(1)
    latents = Latents(vae).encode(images)
    exact = Latents(_vae_like(vae).float()).encode(images)
    assert torch.equal(latents, exact) is force_upcast
    assert latents.dtype == torch.float32
    assert vae.dtype == torch.float16


def _vae_like(vae: AutoencoderKL) -> AutoencoderKL:
    copy = _vae()
    copy.load_state_dict(vae.state_dict())
    return copy


def test_another_autoencoder_is_refused():
    with pytest.raises(ValueError, match="autoencoder must be an AutoencoderKL, not AutoencoderTiny"):
        Latents(AutoencoderTiny())
