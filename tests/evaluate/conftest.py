"""A tiny random DiT and Stable Diffusion on disk, settings for it, and a results file with known contents."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bigain.evaluate import Settings, Store
from bigain.evaluate.engine import encode_png
from bigain.evaluate.store import Classified, Generated


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


FACTS = {
    "data": "letters",
    "multi_label": False,
    "classes": ["A", "B", "C"],
    "conditions": 3,
    "timesteps": [250, 750],
    "image_size": 8,
    "feature_network": "test-network",
}


@pytest.fixture
def known_store(tmp_path: Path) -> Any:
    """4 images under "none" (3 right) and "todo-2" (2 right), 6 generated each, features and a reference."""
    rng = np.random.default_rng(0)
    errors = np.full((3, 2), np.nan, dtype=np.float32)
    errors[:, 0] = (0.5, 0.25, 0.125)
    identity = {"model": "m", "seed": 0, "dtype": "float32", "split": "test", "to_keep": [1], "n_samples": [2],
                "loss": "l2", "sampler": None, "steps": 2, "guidance": 1.0}  # fmt: skip
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    features = rng.normal(size=(6, 2)).astype(np.float32)
    labels = (0, 1, 2, 0)
    with Store.open(tmp_path / "known.sqlite", identity, FACTS) as store:
        store.begin_session({"torch": "1"}, {})
        store.add_methods(["none", "todo:factor=2"])
        for spec, predictions, change in (("none", (0, 1, 2, 1), 0), ("todo:factor=2", (0, 2, 0, 0), 10)):
            store.add_classified(
                spec,
                [
                    Classified(f"i{n}", n, (labels[n],), p, (p, *({0, 1, 2} - {p})), (1, 0, 0), errors)
                    for n, p in enumerate(predictions)
                ],
            )
            moved = np.where(images < 128, images + change, images - change).astype(np.uint8)
            store.add_generated(
                spec,
                [Generated(n, n % 3, "x", encode_png(moved[n]), n % 3 if n < 3 + change else 0, f + change)
                 for n, f in enumerate(features)],
            )  # fmt: skip
            store.set_flops(spec, 1000 - 10 * change)
        real = {"data": "letters", "split": "validation", "images": 6, "network": "test-network", "dimensions": 2}
        store.set_reference(real, features)
        where = {"device": "cpu", "device_name": "c", "threads": 1, "torch": "1", "dtype": "float32"}
        store.set_timing(
            where | {"sample": [2, 3, 8, 8]},
            {"none": [4.0, 2.0, 3.0], "todo:factor=2": [1.0, 2.0, 1.5]},
        )
        yield store
