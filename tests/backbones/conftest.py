"""Small random models of the classes that attend jointly or over video, and keyword inputs for a forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from bigain.operators.grid import Grid


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(height: int, width: int, columns: int = 3, image: int = 0) -> Tensor:
    """What FLUX's pipelines pass as img_ids."""
    rows = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width)).reshape(-1, 3).float()
    rows[:, 0] = image
    return torch.cat([rows, rows.new_zeros(len(rows), columns - 3)], 1)


@dataclass(frozen=True)
class Joint:
    """A family: a small model, inputs of a forward, and the grids that these show."""

    kind: str
    config: dict[str, Any]
    inputs: Callable[[], dict[str, Any]]
    grids: tuple[Grid, ...]
    sites: int
    hint: dict[str, Any] = field(default_factory=dict)  # what apply() must be told for a compiled forward

    def build(self) -> nn.Module:
        """The model, whose norms do not start as zeros."""
        torch.manual_seed(0)
        model = getattr(diffusers, self.kind)(**self.config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and not parameter.any():
                    parameter.normal_(0, 0.05)
        return model


JOINT = {
    "sd3": Joint(
        "SD3Transformer2DModel",
        dict(sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
             num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16,
             dual_attention_layers=(0,), qk_norm="rms_norm", pos_embed_max_size=16),
        lambda: dict(hidden_states=randn(2, 4, 10, 12), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     pooled_projections=randn(2, 16, seed=2), timestep=torch.tensor([500.0, 100.0])),
        (Grid(5, 6),), 4,
    ),
    "flux": Joint(
        "FluxTransformer2DModel",
        dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=16,
             num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6)),
        lambda: dict(hidden_states=randn(2, 30, 4), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     pooled_projections=randn(2, 16, seed=2), timestep=torch.tensor([0.5, 0.1]),
                     img_ids=ids(5, 6), txt_ids=torch.zeros(5, 3)),
        (Grid(5, 6),), 3, dict(grid=(5, 6)),
    ),
    "kontext": Joint(
        "FluxTransformer2DModel",
        dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
             num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6)),
        lambda: dict(hidden_states=randn(2, 42, 4), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     pooled_projections=randn(2, 16, seed=2), timestep=torch.tensor([0.5, 0.1]),
                     img_ids=torch.cat([ids(5, 6), ids(3, 4, image=1)]), txt_ids=torch.zeros(5, 3)),
        (Grid(5, 6), Grid(3, 4)), 2,
    ),
    "chroma": Joint(
        "ChromaTransformer2DModel",
        dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
             num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6), approximator_num_channels=8,
             approximator_hidden_dim=16, approximator_layers=1),
        lambda: dict(hidden_states=randn(2, 30, 4), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([0.5, 0.1]), img_ids=ids(5, 6), txt_ids=torch.zeros(5, 3),
                     attention_mask=torch.cat([torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
                                               torch.ones(2, 30, dtype=torch.long)], 1).bool()),
        (Grid(5, 6),), 2, dict(grid=(5, 6)),
    ),
    "flux2": Joint(
        "Flux2Transformer2DModel",
        dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=16,
             num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 4, 4),
             timestep_guidance_channels=16),
        lambda: dict(hidden_states=randn(2, 30, 4), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([0.5, 0.1]), guidance=torch.tensor([1.0, 1.0]),
                     img_ids=ids(5, 6, 4).expand(2, -1, -1), txt_ids=torch.zeros(2, 5, 4)),
        (Grid(5, 6),), 3, dict(grid=(5, 6)),
    ),
    "qwen": Joint(
        "QwenImageTransformer2DModel",
        dict(patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
             joint_attention_dim=16, axes_dims_rope=(4, 6, 6)),
        lambda: dict(hidden_states=randn(2, 30, 4), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     encoder_hidden_states_mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
                     timestep=torch.tensor([0.5, 0.1]), img_shapes=[[(1, 5, 6)], [(1, 5, 6)]]),
        (Grid(5, 6),), 2,
    ),
    "zimage": Joint(
        "ZImageTransformer2DModel",
        dict(in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
             axes_dims=[4, 6, 6], axes_lens=[128, 64, 64]),
        lambda: dict(x=[randn(4, 1, 10, 12), randn(4, 1, 10, 12, seed=3)], t=torch.tensor([0.5, 0.9]),
                     cap_feats=[randn(5, 16, seed=1), randn(40, 16, seed=2)]),
        (Grid(5, 6),), 3,
    ),
    "wan": Joint(
        "WanTransformer3DModel",
        dict(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
             text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2),
        lambda: dict(hidden_states=randn(2, 4, 3, 10, 12), timestep=torch.tensor([500, 100]),
                     encoder_hidden_states=randn(2, 7, 16, seed=1)),
        (Grid(5, 6, 3),), 2,
    ),
    "ltx": Joint(
        "LTXVideoTransformer3DModel",
        dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
             num_layers=2, caption_channels=16),
        lambda: dict(hidden_states=randn(2, 90, 4), encoder_hidden_states=randn(2, 7, 16, seed=1),
                     timestep=torch.tensor([500.0, 100.0]), encoder_attention_mask=torch.ones(2, 7).bool(),
                     num_frames=3, height=5, width=6),
        (Grid(5, 6, 3),), 2,
    ),
    "hunyuan": Joint(
        "HunyuanVideoTransformer3DModel",
        dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
             num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=False,
             text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(4, 4, 4)),
        lambda: dict(hidden_states=randn(2, 4, 3, 10, 12), timestep=torch.tensor([500, 100]),
                     encoder_hidden_states=randn(2, 7, 16, seed=1), pooled_projections=randn(2, 8, seed=2),
                     encoder_attention_mask=torch.tensor([[1] * 7, [1] * 4 + [0] * 3])),
        (Grid(5, 6, 3),), 2,
    ),
    "cogvideox": Joint(
        "CogVideoXTransformer3DModel",
        dict(num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=4,
             text_embed_dim=16, num_layers=2, sample_width=12, sample_height=10, sample_frames=9, patch_size=2,
             temporal_compression_ratio=4, max_text_seq_length=5),
        lambda: dict(hidden_states=randn(2, 3, 4, 10, 12), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([500, 100])),
        (Grid(5, 6, 3),), 2,
    ),
    "auraflow": Joint(
        "AuraFlowTransformer2DModel",
        dict(sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=2,
             attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
             pos_embed_max_size=64),
        lambda: dict(hidden_states=randn(2, 4, 10, 12), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([0.5, 0.1])),
        (Grid(5, 6),), 3,
    ),
    "lumina2": Joint(
        "Lumina2Transformer2DModel",
        dict(sample_size=16, patch_size=2, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1,
             num_attention_heads=3, num_kv_heads=1, multiple_of=2, ffn_dim_multiplier=None, cap_feat_dim=16,
             scaling_factor=1.0, axes_dim_rope=(4, 2, 2), axes_lens=(64, 64, 64)),
        lambda: dict(hidden_states=randn(2, 4, 10, 12), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([0.5, 0.9]), encoder_attention_mask=torch.ones(2, 5).bool()),
        (Grid(5, 6),), 3,
    ),
    "prx": Joint(
        "PRXTransformer2DModel",
        dict(patch_size=2, in_channels=4, context_in_dim=16, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2,
             axes_dim=[4, 4], theta=1000),
        lambda: dict(hidden_states=randn(2, 4, 10, 12), encoder_hidden_states=randn(2, 5, 16, seed=1),
                     timestep=torch.tensor([0.5, 0.1]), attention_mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2])),
        (Grid(5, 6),), 2,
    ),
}  # fmt: skip
"""By a short name; the sides of the grids are odd, so that windows of 2 are partial."""


@pytest.fixture(params=sorted(JOINT))
def joint(request: pytest.FixtureRequest) -> Joint:
    """Each family that attends jointly or over video, in turn."""
    return JOINT[request.param]


@pytest.fixture(scope="session")
def joints() -> dict[str, Joint]:
    """All of them by name."""
    return JOINT
