"""The training programs, end to end by a few steps: they learn, resume to the same bits, and export what opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, FluxPipeline, StableDiffusionPipeline, WanPipeline
from safetensors.torch import load_file

import train_dit
import train_video_autoencoder
from bigain.classify import DiffusionClassifier
from bigain.diffusion import open_model
from bigain.generate import Sampling, sample

Train = Callable[..., None]
SMALL = ("--batch", 4, "--train-length", 8, "--device", "cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All exported tensors, by file and name."""
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{file.relative_to(folder)}:{name}": t for file in files for name, t in load_file(file).items()}


@pytest.mark.parametrize(
    ("program", "options"), [("train_dit", ("--size", 16)), ("train_autoencoder", ())], ids=["dit", "autoencoder"]
)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    train: Train, tmp_path: Path, program: str, options: tuple[object, ...]
) -> None:
    # 8 steps: those of the schedule do not depend on where the training was stopped
    common = (*SMALL, *options, "--decay-images", 8)
    train(program, *common, "--images", 12, "--folder", "whole")
    first = weights(tmp_path / "whole" / "export")
    assert not any(t.isnan().any() for t in first.values())

    train(program, *common, "--images", 12, "--folder", "stopped", "--stop-after", 1)
    early = weights(tmp_path / "stopped" / "export")
    assert any(not torch.equal(early[name], first[name]) for name in first)
    train(program, *common, "--images", 12, "--folder", "stopped")
    for name, tensor in weights(tmp_path / "stopped" / "export").items():
        assert torch.equal(tensor, first[name]), name


def test_float32_is_trained_as_bfloat16_is(train: Train, tmp_path: Path) -> None:
    for folder, images, dtype in (("begun", 0, "float32"), ("whole", 4, "float32"), ("half", 4, "bfloat16")):
        options = ("--images", images, "--warmup-steps", 1, "--decay-images", 1, "--dtype", dtype)
        train("train_flux", *SMALL, *options, "--folder", folder)
    begun, whole, half = (weights(tmp_path / folder / "export") for folder in ("begun", "whole", "half"))
    learned = [torch.cat([(to[name] - begun[name]).flatten().float() for name in begun]) for to in (whole, half)]
    assert not torch.equal(*learned)
    assert torch.cosine_similarity(*learned, dim=0) > 0.9


def test_a_larger_dit_starts_from_a_smaller_one(train: Train, tmp_path: Path) -> None:
    train("train_dit", *SMALL, "--size", 16, "--images", 4, "--folder", "small")
    start = ("--start-from", "small/export", "--folder", "large")
    train("train_dit", *SMALL, "--size", 32, *start, "--images", 0)
    small, large = (weights(tmp_path / folder / "export") for folder in ("small", "large"))
    assert small.keys() == large.keys()
    for name in small:
        assert torch.equal(small[name], large[name]), name
    denoiser = open_model(tmp_path / "large" / "export")
    assert denoiser.image_size == 32
    classifier = DiffusionClassifier(denoiser, range(10), to_keep=(1,), n_samples=(1,))
    assert classifier.predict(torch.zeros(1, 3, 32, 32), ["zero"])[0].prediction in range(10)


def test_the_text_to_image_model_is_a_pipeline_that_opens(train: Train, tmp_path: Path) -> None:
    train("train_autoencoder", *SMALL, "--images", 4, "--folder", "vae")
    train("train_text_to_image", *SMALL, "--images", 8, "--vae", "vae/export", "--folder", "sd")
    folder = tmp_path / "sd" / "export"
    assert max(file.stat().st_size for file in folder.rglob("*")) <= 10 * 2**20
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= 40 * 2**20
    denoiser = open_model(folder)
    assert (denoiser.kind, denoiser.image_size) == ("text", 64)
    conditions = denoiser.conditions(["a photo of the letter A", "a photo of the letters B and X"])
    [image] = sample(denoiser, conditions, [1], [0], Sampling(1, 7.5))
    assert image.shape == (64, 64, 3)

    pipe = StableDiffusionPipeline.from_pretrained(folder)  # its parts must have one dtype
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a photo of the letter A", num_inference_steps=1, output_type="np").images
    assert made.shape == (1, 64, 64, 3)


def test_the_model_with_joint_attention_grows_from_small_images_and_is_a_pipeline_that_opens(
    train: Train, tmp_path: Path
) -> None:
    train("train_flux", *SMALL, "--images", 8, "--folder", "small")
    train("train_flux", *SMALL, "--size", 128, "--start-from", "small/export", "--images", 0, "--folder", "large")
    small, large = (weights(tmp_path / folder / "export") for folder in ("small", "large"))
    assert small.keys() == large.keys()
    for name in small:
        assert torch.equal(small[name], large[name]), name
    folder = tmp_path / "large" / "export"
    assert max(file.stat().st_size for file in folder.rglob("*")) <= 10 * 2**20
    denoiser = open_model(folder)
    assert (denoiser.kind, denoiser.image_size, denoiser.sample_shape) == ("text", 128, (4, 32, 32))
    classifier = DiffusionClassifier(denoiser, ["a photo of the letter A", "a photo of the letter B"], n_samples=(1,))
    assert classifier.predict(torch.zeros(1, 3, 128, 128), ["zero"])[0].prediction in (0, 1)
    pipe = FluxPipeline.from_pretrained(folder)
    assert pipe.scheduler.config.shift == 2
    pipe.set_progress_bar_config(disable=True)
    size = {"height": 64, "width": 64, "max_sequence_length": pipe.tokenizer_2.model_max_length}
    made = pipe("a photo of the letter A", num_inference_steps=1, output_type="np", **size).images
    assert made.shape == (1, 64, 64, 3)


def test_the_video_model_goes_from_stills_to_videos_and_is_a_pipeline_that_opens(train: Train, tmp_path: Path) -> None:
    few = ("--batch", 2, "--train-length", 2, "--device", "cpu")
    train("train_video_autoencoder", *few, "--images", 2, "--folder", "vae")
    train("train_video", *few, "--vae", "vae/export", "--frames", 1, "--images", 2, "--pad", "--folder", "still")
    onward = ("--start-from", "still/export", "--vae", "vae/export", "--folder", "video")
    train("train_video", *few, *onward, "--images", 0)
    still, video = (weights(tmp_path / folder / "export") for folder in ("still", "video"))
    assert still.keys() == video.keys()
    for name in still:
        assert torch.equal(still[name], video[name]), name
    folder = tmp_path / "video" / "export"
    assert max(file.stat().st_size for file in folder.rglob("*")) <= 10 * 2**20
    denoiser = open_model(folder)
    assert (denoiser.kind, denoiser.image_size, denoiser.sample_shape) == ("text", 64, (4, 9, 32, 32))
    pipe = WanPipeline.from_pretrained(folder)
    assert pipe.scheduler.config.shift == 6
    pipe.set_progress_bar_config(disable=True)
    # Where an autoencoder does not shorten time, the pipeline makes a frame more than it is asked for.
    size = {"height": 32, "width": 32, "num_frames": 4, "max_sequence_length": pipe.tokenizer.model_max_length}
    made = pipe("a video of the letter A moving up", num_inference_steps=1, **size).frames
    assert made.shape == (1, 5, 32, 32, 3)


def test_few_frames_are_learned_from_captions_without_padding(train: Train, tmp_path: Path) -> None:
    few = ("--batch", 2, "--train-length", 2, "--device", "cpu", "--warmup-steps", 1, "--decay-images", 1)
    train("train_video_autoencoder", *few, "--images", 0, "--folder", "vae")
    small = ("--size", 32, "--for-size", 64, "--frames", 3, "--for-frames", 9, "--vae", "vae/export")
    for folder, options in (
        ("begun", ("--images", 0)),
        ("learned", ("--images", 8)),  # four captions, some of them shorter than the longest
        ("padded", ("--images", 8, "--pad")),
        ("apart", ("--images", 8, "--apart", 1)),
    ):
        train("train_video", *few, *small, *options, "--folder", folder)
    learned = weights(tmp_path / "learned" / "export")
    assert all(tensor.isfinite().all() for tensor in learned.values())
    for folder in ("begun", "padded", "apart"):
        other = weights(tmp_path / folder / "export")
        assert any(not torch.equal(learned[name], other[name]) for name in other), folder


def test_the_video_autoencoder_encodes_each_frame_as_if_alone(train: Train, tmp_path: Path) -> None:
    train("train_video_autoencoder", "--batch", 2, "--train-length", 2, "--device", "cpu", "--images", 4)
    model = AutoencoderKLWan.from_pretrained(tmp_path / "runs/glyphs-video-vae/export")
    clips = torch.rand(2, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        encoded = model.encode(clips).latent_dist.mean
        decoded = model.decode(encoded).sample
        for frame in range(9):
            alone = model.encode(clips[:, :, frame : frame + 1]).latent_dist.mean
            assert torch.allclose(encoded[:, :, frame : frame + 1], alone, atol=1e-5)
        folded = clips.transpose(1, 2).flatten(0, 1)[:, :, None]
        noise = torch.zeros(18, 4, 1, 8, 8)
        error, _ = train_video_autoencoder.Reconstruction(model)(folded, noise)
        assert error == pytest.approx((decoded - clips).square().mean().item(), rel=1e-3)


def test_a_teacher_of_smaller_images_is_followed(train: Train, tmp_path: Path) -> None:
    train("train_dit", *SMALL, "--size", 16, "--cosine-at", 16, "--images", 4, "--folder", "small")
    taught = ("--size", 32, "--cosine-at", 16, "--start-from", "small/export", "--teacher", "small/export")
    for folder, options in (("with", taught), ("weighted", (*taught, "--weight", 16)), ("without", taught[:-2])):
        train("train_dit", *SMALL, *options, "--images", 4, "--warmup-steps", 1, "--folder", folder)
    learned, weighted, alone = (weights(tmp_path / folder / "export") for folder in ("with", "weighted", "without"))
    assert not any(t.isnan().any() for t in learned.values())
    assert any(not torch.equal(learned[name], alone[name]) for name in learned)
    assert any(not torch.equal(learned[name], weighted[name]) for name in learned)
    with pytest.raises(ValueError, match=r"noise levels of .* must be those of averaged images here"):
        train("train_dit", *SMALL, *taught, "--cosine-at", 32, "--images", 4, "--folder", "other")
    with pytest.raises(ValueError, match="teacher's images must be a fraction of 16 pixels"):
        train("train_dit", *SMALL, "--size", 16, "--teacher", "small/export", "--images", 4, "--folder", "same")


def test_the_schedule_is_shifted_so_that_averaged_images_have_the_same_noise() -> None:
    small, large = (train_dit.scheduler(size).alphas_cumprod.double() for size in (32, 64))
    ratio = (1 - large) / large / ((1 - small) / small)
    torch.testing.assert_close(ratio[:-1], torch.full_like(ratio[:-1], 4.0), rtol=1e-2, atol=0)
    assert torch.equal(train_dit.scheduler(64, cosine_at=64).alphas_cumprod, small.float())


def test_who_says_what_the_teacher_says_has_no_loss(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        model = train_dit.DiTTransformer2DModel(**train_dit.config(8))
        torch.nn.init.normal_(model.proj_out_2.weight, std=0.1)
    model.save_pretrained(tmp_path / "transformer")
    train_dit.scheduler(8, cosine_at=8).save_pretrained(tmp_path / "scheduler")
    alphas, t, labels = (
        train_dit.scheduler(16, cosine_at=8).alphas_cumprod,
        torch.tensor([50, 700]),
        torch.tensor([2, 3]),
    )
    teacher = train_dit.Teacher(tmp_path, 16, alphas)
    noised = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    averaged = noised.view(2, 3, 8, 2, 8, 2).mean((3, 5))  # has a quarter of the noise's variance
    scaled = averaged / (alphas[t] + (1 - alphas[t]) / 4).sqrt().view(2, 1, 1, 1)
    said = teacher.model(scaled.bfloat16(), timestep=t, class_labels=labels).sample.float()
    same = said.repeat_interleave(2, 2).repeat_interleave(2, 3) / 2
    assert teacher.loss(same, noised, t, labels).max() < 1e-9
    assert teacher.loss(same + 0.5, noised, t, labels) == pytest.approx([1.0, 1.0], rel=1e-5)
