"""Models of videos: sizes, two transformers that take turns, pixels, and the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bigain
from bigain.backbones.application import session_of
from bigain.classify import DiffusionClassifier
from bigain.cli import app
from bigain.diffusion import open_model
from bigain.generate import Sampling, sample
from bigain.videos import read_video


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def two(flows):
    """Wan 2.2: a boundary at timestep 600."""
    denoiser = open_model(flows["wan 2.2"].build(), image_size=16, frames=5)
    denoiser.pipe.set_progress_bar_config(disable=True)
    return denoiser


def test_sizes_of_videos(flows):
    pipe = flows["wan"].build()
    assert open_model(pipe).frames == 81  # the pipeline's
    denoiser = open_model(pipe, image_size=16, frames=5)
    assert denoiser.is_video
    assert denoiser.sample_shape == (4, 3, 8, 8)
    assert denoiser.tokens == 3 * 4 * 4
    assert denoiser.image_size == 16
    with pytest.raises(ValueError, match="frames must be 1 more than a multiple of 2 for this model, not 4"):
        open_model(pipe, image_size=16, frames=4)
    with pytest.raises(ValueError, match="image_size must be a multiple of 4 for this model, not 18"):
        open_model(pipe, image_size=18)


def test_a_latent_is_normalised_for_each_channel_and_decode_takes_it_back(flows):
    denoiser = open_model(flows["wan"].build(), image_size=16, frames=5)
    videos = torch.tanh(_randn(2, 5, 3, 16, 16))
    latents = denoiser.encode(videos)
    vae = denoiser.pipe.vae
    with torch.no_grad():
        mean = vae.encode(videos.transpose(1, 2)).latent_dist.mode()
        expected = vae.decode(mean).sample.clamp(-1, 1).transpose(1, 2)
    for channel, (shift, spread) in enumerate(zip([0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 1.5, 2.0], strict=True)):
        torch.testing.assert_close(latents[:, channel], (mean[:, channel] - shift) / spread, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser.decode(latents), expected, atol=1e-5, rtol=0)


def test_frames_that_an_autoencoder_would_leave_out_are_refused(flows):
    denoiser = open_model(flows["wan"].build(), image_size=16, frames=3)
    assert denoiser.decode(_randn(1, *denoiser.sample_shape)).shape == (1, 3, 3, 16, 16)
    with pytest.raises(ValueError, match="leaves none out, such as 5 or 9, not 3"):
        denoiser.encode(torch.zeros(1, 3, 3, 16, 16))


@pytest.mark.parametrize("name", ["hunyuan", "ltx"])
def test_other_autoencoders_of_videos(flows, name):
    denoiser = open_model(flows[name].build(), image_size=32, frames=5)
    videos, vae = torch.tanh(_randn(1, 5, 3, 32, 32)), denoiser.pipe.vae
    latents = denoiser.encode(videos)
    with torch.no_grad():
        mean = vae.encode(videos.transpose(1, 2)).latent_dist.mode()
        expected = vae.decode(mean, return_dict=False)[0].clamp(-1, 1).transpose(1, 2)
    assert latents.shape[1:] == denoiser.sample_shape
    shifts, spreads = ([0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 1.5, 2.0]) if name == "ltx" else ([0] * 4, [1 / 0.476986] * 4)
    for channel, (shift, spread) in enumerate(zip(shifts, spreads, strict=True)):
        torch.testing.assert_close(latents[:, channel], (mean[:, channel] - shift) / spread, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser.decode(latents), expected, atol=1e-4, rtol=0)


def test_an_autoencoder_that_decodes_at_a_timestep_is_refused(flows):
    pipe = flows["ltx"].build()
    pipe.vae.register_to_config(timestep_conditioning=True)
    with pytest.raises(ValueError, match="must decode without a timestep, not with timestep_conditioning"):
        open_model(pipe)


def test_guidance_of_hunyuan_is_one_when_classifying(flows):
    denoiser, seen = open_model(flows["hunyuan"].build(), image_size=32, frames=5), []
    denoiser.pipe.set_progress_bar_config(disable=True)
    denoiser.model.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(given["guidance"].tolist()), with_kwargs=True
    )
    conditions = denoiser.conditions(["a", "b"])
    denoiser.predict(_randn(2, *denoiser.sample_shape), torch.tensor([1, 999]), conditions, torch.tensor([0, 1]))
    list(sample(denoiser, conditions, [0], [0], Sampling(1, 6.0)))
    assert seen == [[1000.0, 1000.0], [6000.0]]


def test_images_are_videos_of_one_frame_where_the_model_has_one(flows):
    pipe = flows["wan"].build()
    one, many = open_model(pipe, image_size=16, frames=1), open_model(pipe, image_size=16, frames=5)
    images = torch.tanh(_randn(2, 3, 16, 16))
    assert not one.is_video
    assert torch.equal(one.encode(images), one.encode(images[:, None]))
    assert one.decode(one.encode(images)).shape == images.shape
    with pytest.raises(
        ValueError, match=r"images must have shape \(B, 5, 3, 16, 16\) with B > 0, not \(2, 3, 16, 16\)"
    ):
        many.encode(images)


def test_each_timestep_goes_to_its_transformer(two, monkeypatch):
    for sign, model in ((1, two.pipe.transformer), (-1, two.pipe.transformer_2)):
        answer = lambda hidden_states, timestep, sign=sign, **_: (  # noqa: E731
            sign * timestep.view(-1, 1, 1, 1, 1) * torch.ones_like(hidden_states),
        )
        monkeypatch.setattr(model, "forward", answer)
    t = torch.tensor([100, 900, 599, 600, 601])
    prediction = two.predict(_randn(5, *two.sample_shape), t, two.conditions(["a", "b"]), torch.tensor([0, 1, 0, 1, 0]))
    assert prediction[:, 0, 0, 0, 0].tolist() == [-100, 900, -599, 600, 601]
    assert [rows.tolist() for rows in two.alike(t)] == [[1, 3, 4], [0, 2]]
    assert [rows.tolist() for rows in two.alike(torch.tensor([1, 2]))] == [[0, 1]]


def test_both_transformers_count_and_are_compressed(two):
    assert two.models == (two.pipe.transformer, two.pipe.transformer_2)
    assert set(two.models) < set(two.networks)
    x, conditions, index = _randn(2, *two.sample_shape), two.conditions(["a", "b"]), torch.tensor([0, 1])
    plain = two.predict(x, torch.tensor([100, 900]), conditions, index)
    for what in (two, two.pipe):
        handle = bigain.apply(what, "avgpool-2")
        with pytest.raises(ValueError, match="replace must be True"):
            bigain.apply(two.pipe.transformer_2, "avgpool-2")
        with pytest.raises(RuntimeError, match="none ran yet"):
            handle.summary()
        changed = two.predict(x, torch.tensor([100, 900]), conditions, index)
        assert all((changed[row] != plain[row]).any() for row in (0, 1))
        assert len(handle.summary()) == 4
        handle.remove()
        assert all(session_of(model) is None for model in two.models)
        assert torch.equal(two.predict(x, torch.tensor([100, 900]), conditions, index), plain)
    with bigain.compressed(two, "avgpool-2") as handle:
        two.predict(x, torch.tensor([900, 800]), conditions, index)
        assert len(handle.summary()) == 2, "the one that ran"


def test_random_draws_follow_the_image_in_both(two):
    """Rows of one timestep share a forward, whatever else is in their batch."""
    videos = torch.tanh(_randn(2, 5, 3, 16, 16))
    method = bigain.ToMe(ratio=0.5, destinations="random", redraw="forward", queries="full")
    errors = []
    with bigain.compressed(two, method):
        for size in (1, 7):
            classifier = DiffusionClassifier(two, ["a", "b"], n_samples=(4,), to_keep=(1,), batch_size=size)
            errors.append(np.stack([one.errors for one in classifier.predict(videos)]))
    np.testing.assert_allclose(errors[0], errors[1], rtol=2e-5)


def test_a_second_transformer_that_cannot_be_compressed_leaves_nothing_behind(two):
    two.pipe.transformer_2.blocks[0].attn1.processor._parallel_config = object()
    with pytest.raises(ValueError, match="must not be run context-parallel"):
        bigain.apply(two, "avgpool-2")
    assert all(session_of(model) is None for model in two.models)


def test_frames_are_drawn_and_classified_from_the_command_line(flows, saved, tmp_path):
    folder = saved(flows["wan of pixels"].build())
    (folder / "sample.json").write_text(json.dumps({"image_size": 8, "frames": 4}))
    model = ["--model", str(folder), "--quiet"]

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None:
            raise result.exception
        return result.stdout

    said = call("generate", "a cat", "--count", "2", "--steps", "2", "--out", str(tmp_path), "-m", "avgpool-2", *model)
    assert "2 videos of each of 2 methods" in said
    denoiser = open_model(folder)
    frames = next(sample(denoiser, denoiser.conditions(["a cat"]), [0], [0], Sampling(2, denoiser.usual_guidance)))
    assert frames.shape == (4, 8, 8, 3)
    file = tmp_path / "none" / "0000-a_cat.webp"
    assert np.array_equal(read_video(file, 4), frames)
    found = json.loads(call("classify", str(file), "-p", "a cat", "-p", "an owl", "--json", "-", *model))
    classifier = DiffusionClassifier(denoiser, ["a cat", "an owl"])
    [expected] = classifier.predict(frames)
    assert found["images"][0]["probability"] == round(expected.probability, 6)
    assert [one.probability for one in classifier.predict([str(file)])] == [expected.probability]
