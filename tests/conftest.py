"""Small random models of the real diffusers classes, inputs that fit them, and a results file with known contents."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bigain.run.files import encode_png
from bigain.run.settings import Settings
from bigain.run.store import Classified, Generated, Store


@pytest.fixture(autouse=True)
def _no_global_randomness():
    """No test may change PyTorch's global random state on behalf of the library without saying so."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Family:
    """A model family: how to build a small one, and keyword inputs for a forward."""

    build: Callable[..., nn.Module]
    inputs: Callable[..., dict[str, Any]]


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _unet(**overrides: Any) -> nn.Module:
    config = dict(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    return UNet2DConditionModel(**(config | overrides)).eval()


def _unet_inputs(batch: int = 2, height: int = 16, width: int = 16, timestep: Any = 500) -> dict[str, Any]:
    return {
        "sample": _randn(batch, 4, height, width),
        "timestep": timestep,
        "encoder_hidden_states": _randn(batch, 5, 16, seed=1),
    }


def _sdxl(**overrides: Any) -> nn.Module:
    config = dict(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        attention_head_dim=(2, 2, 4),
    )
    return _unet(**(config | overrides))


def _sdxl_inputs(batch: int = 2, height: int = 16, width: int = 16, timestep: Any = 500) -> dict[str, Any]:
    condition = {"text_embeds": _randn(batch, 16, seed=2), "time_ids": torch.ones(batch, 6)}
    return _unet_inputs(batch, height, width, timestep) | {"added_cond_kwargs": condition}


def _dit(**overrides: Any) -> nn.Module:
    config = dict(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=3,
        out_channels=3,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    return DiTTransformer2DModel(**(config | overrides)).eval()


def _dit_inputs(batch: int = 2, height: int = 16, width: int = 16, timestep: Any = 500) -> dict[str, Any]:
    timesteps = torch.as_tensor(timestep).reshape(-1).expand(batch)
    return {
        "hidden_states": _randn(batch, 3, height, width),
        "timestep": timesteps,
        "class_labels": torch.arange(batch) % 10,
    }


def _pixart(**overrides: Any) -> nn.Module:
    config = dict(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        cross_attention_dim=16,
        caption_channels=16,
        use_additional_conditions=False,
    )
    return PixArtTransformer2DModel(**(config | overrides)).eval()


def _pixart_inputs(batch: int = 2, height: int = 16, width: int = 16, timestep: Any = 500) -> dict[str, Any]:
    timesteps = torch.as_tensor(timestep).reshape(-1).expand(batch)
    return {
        "hidden_states": _randn(batch, 4, height, width),
        "timestep": timesteps,
        "encoder_hidden_states": _randn(batch, 5, 16, seed=1),
    }


FAMILIES = {
    "unet": Family(_unet, _unet_inputs),
    "sdxl": Family(_sdxl, _sdxl_inputs),
    "dit": Family(_dit, _dit_inputs),
    "pixart": Family(_pixart, _pixart_inputs),
}


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    """Each supported family in turn."""
    return FAMILIES[request.param]


@pytest.fixture(scope="session")
def families() -> dict[str, Family]:
    """All supported families by name."""
    return FAMILIES


@pytest.fixture
def forward() -> Callable[..., Tensor]:
    """Runs a model on keyword inputs without gradients and returns its sample."""

    def run(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return model(**inputs, return_dict=False)[0]

    return run


KNOWN_FACTS = {
    "data": "letters",
    "multi_label": False,
    "classes": ["A", "B", "C"],
    "conditions": 3,
    "timesteps": [250, 750],
    "image_size": 8,
    "feature_network": "test-network",
}


def classified(name: str, position: int, labels: tuple[int, ...], ranking: tuple[int, ...], errors: Any) -> Classified:
    """An image whose best condition survived one stage."""
    stage = tuple(int(condition == 0) for condition in range(len(errors)))
    return Classified(
        id=name, position=position, labels=labels, prediction=ranking[0], ranking=ranking, stage=stage, errors=errors
    )


@pytest.fixture(name="classified")
def _classified() -> Callable[..., Classified]:
    """Makes an image whose first condition survived one stage."""
    return classified


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
    with Store.open(tmp_path / "known.sqlite", identity, KNOWN_FACTS) as store:
        store.begin_session({"torch": "1"}, {})
        store.add_methods(["none", "todo:factor=2"])
        for spec, predictions, change in (("none", (0, 1, 2, 1), 0), ("todo:factor=2", (0, 2, 0, 0), 10)):
            store.add_classified(
                spec,
                [
                    classified(f"i{n}", n, (labels[n],), (p, *({0, 1, 2} - {p})), errors)
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


@pytest.fixture
def tiny_model(tmp_path: Path, families: Any) -> Path:
    """A DiT of 2 layers on 16x16 pixels, 8x8 tokens, with 10 classes."""
    folder = tmp_path / "model"
    families["dit"].build().save_pretrained(folder / "transformer")
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    return folder


def _grouped(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Settings with fields of any of their groups changed."""
    values = {}
    for field in fields(settings):
        group = getattr(settings, field.name)
        if is_dataclass(group):  # first, as the groups model and data have fields of their own names
            mine = {one.name: changes.pop(one.name) for one in fields(group) if one.name in changes}
            values[field.name] = replace(group, **mine)
        elif field.name in changes:
            values[field.name] = changes.pop(field.name)
    assert not changes, f"no group has {', '.join(changes)}"
    return replace(settings, **values)


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """The default settings with fields of any of their groups changed."""
    return lambda **changes: _grouped(Settings(), changes)


@pytest.fixture
def tiny_settings(tiny_model: Path, make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings of a run of a second or two, with fields of any of their groups changed."""

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
        return make_settings(**(values | changes))

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


@pytest.fixture
def flows() -> dict[str, Any]:
    """Small random pipelines of flow matching by name."""
    from tests.pipelines import FLOWS  # late, as it brings many classes of transformers

    return FLOWS


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Saves a pipeline to a folder."""

    def save(pipe: Any) -> Path:
        pipe.save_pretrained(tmp_path / "saved", safe_serialization=True)
        return tmp_path / "saved"

    return save
