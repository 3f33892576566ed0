"""A tiny random DiT and Stable Diffusion on disk, and settings for it."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bigain.evaluate import Settings


@pytest.fixture
def tiny_model(tmp_path: Path, families: Any) -> Path:
    """A DiT of 2 layers on 16x16 pixels, 8x8 tokens, with 10 classes."""
    folder = tmp_path / "model"
    families["dit"].build().save_pretrained(folder / "transformer")
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture
def tiny_settings(tiny_model: Path) -> Callable[..., Settings]:
    """Settings of a run of a second or two, with changes."""

    def make(**changes: Any) -> Settings:
        values = {
            "model": str(tiny_model),
            "methods": ("lgtm-0.5", "todo-2"),
            "classify": 5,
            "generate": 4,
            "to_keep": (2, 1),
            "n_samples": (1, 2),
            "steps": 2,
            "guidance": 1.0,
            "features": "none",
            "batch_size": 8,
            "timing_rounds": 0,
            "timing_batch": 2,
        }
        return Settings(**(values | changes))

    return make


@pytest.fixture
def pipeline_folder(families: Any, tmp_path: Path) -> Path:
    """A Stable Diffusion of the real classes, 32x32 pixels, random weights."""
    letters = string.ascii_lowercase + "."
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24),
        unet=families["unet"].build(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(tmp_path / "pipe", safe_serialization=True)
    return tmp_path / "pipe"
