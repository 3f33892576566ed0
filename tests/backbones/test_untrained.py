"""Random models of every supported class, and the arguments of their forwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bigain
from bigain.backbones.arguments import ARGUMENTS
from bigain.backbones.bound import at_sizes
from bigain.backbones.untrained import untrained
from bigain.operators.grid import Grid
from bigain.zoo.published import Configuration

SIDE = 8  # tokens
TEXT = 5
DIT = dict(num_attention_heads=2, attention_head_dim=8, num_layers=2, in_channels=3, out_channels=3, sample_size=8)


def size_of(configuration: Configuration) -> tuple[tuple[int, int], int | None]:
    """A small size in pixels, and a few frames where there are some."""
    arguments = ARGUMENTS[configuration.kind]
    usual = at_sizes(configuration, text=TEXT)[0]
    pixels = usual.size[0] // usual.bounds.grid.width
    return (SIDE * pixels, SIDE * pixels), 1 + 2 * arguments.frames if arguments.frames else None


def test_each_class_runs_costs_what_is_counted_and_is_compressed(joint: Any) -> None:
    configuration = Configuration(joint.kind, joint.kind, joint.config)
    size, frames = size_of(configuration)
    made = untrained(configuration, size, frames=frames, text=TEXT, batch_size=2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        plain = made.forward()[0]
    assert all(torch.isfinite(one).all() for one in (plain if isinstance(plain, list) else [plain]))
    assert counter.get_total_flops() == pytest.approx(2 * made.sized.bounds.flops, rel=1e-9)
    assert made.sized.bounds.grid.sides[1:] == (SIDE, SIDE)
    handle = bigain.apply(made.model, "avgpool-2")
    made.forward()
    rows = handle.summary()
    assert rows
    assert all(row.grid.frame == Grid(SIDE, SIDE) and row.keys[1] < row.keys[0] for row in rows)


def test_a_class_of_one_size_gets_the_size_that_is_asked_for() -> None:
    configuration = Configuration("dit", "DiTTransformer2DModel", DIT, pixels=1)
    made = untrained(configuration, (12, 12), batch_size=3, dtype=torch.bfloat16)
    assert isinstance(made.model, DiTTransformer2DModel)
    assert made.sized.bounds.grid.tokens == 36
    assert made.given["class_labels"].shape == (3,)
    assert made.given["timestep"].tolist() == [500] * 3
    assert made.forward()[0].shape == (3, 3, 12, 12)
    with pytest.raises(ValueError, match="size must be square for a DiTTransformer2DModel, not 12x16"):
        untrained(configuration, (12, 16))


def test_it_is_the_same_on_every_call_and_draws_from_no_global_state() -> None:
    configuration = Configuration("dit", "DiTTransformer2DModel", DIT, pixels=1)
    state = torch.get_rng_state()
    one, other = (untrained(configuration) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.forward()[0], other.forward()[0])
    assert torch.isfinite(one.forward()[0]).all()


def test_frames_of_a_video_and_timesteps_as_the_family_counts_them(joint: Any) -> None:
    configuration = Configuration(joint.kind, joint.kind, joint.config)
    size, frames = size_of(configuration)
    made = untrained(configuration, size, frames=frames, text=TEXT)
    name = "t" if "t" in made.given else "timestep"
    assert made.given[name].tolist() in ([500.0], [0.5])
    assert made.sized.bounds.grid.frames == (1 if frames is None else 3)
