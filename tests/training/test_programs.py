"""The training programs, end to end by a few steps: they learn, resume to the same bits, and export what opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from bigain.classify import DiffusionClassifier
from bigain.diffusion import open_model
from bigain.generate import sample

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
    assert classifier.classify(torch.zeros(1, 3, 32, 32), ["zero"])[0].prediction in range(10)


def test_the_text_to_image_model_is_a_pipeline_that_opens(train: Train, tmp_path: Path) -> None:
    train("train_autoencoder", *SMALL, "--images", 4, "--folder", "vae")
    train("train_text_to_image", *SMALL, "--images", 8, "--vae", "vae/export", "--folder", "sd")
    folder = tmp_path / "sd" / "export"
    assert max(file.stat().st_size for file in folder.rglob("*")) <= 10 * 2**20
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= 40 * 2**20
    denoiser = open_model(folder)
    assert (denoiser.kind, denoiser.image_size) == ("text", 64)
    conditions = denoiser.conditions(["a photo of the letter A", "a photo of the letters B and X"])
    [image] = sample(denoiser, conditions, [1], [0], steps=1, guidance=7.5)
    assert image.shape == (64, 64, 3)

    pipe = StableDiffusionPipeline.from_pretrained(folder)  # its parts must have one dtype
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a photo of the letter A", num_inference_steps=1, output_type="np").images
    assert made.shape == (1, 64, 64, 3)
