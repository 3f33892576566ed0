"""Timesteps spaced as a scheduler's shifted schedule."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from bigain.diffusion.schedule import scheduled, set_timesteps, shift_of


def test_a_shift_moves_timesteps_to_more_noise():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    t = scheduled(scheduler, 20, shift=0.5)
    s = (torch.arange(20) + 0.5) / 20
    once = 3 * s / (1 + 2 * s)
    assert (t / 1000 - once).abs().max() < 0.01
    assert t.dtype == torch.int64
    assert t.tolist() == sorted(set(t.tolist()))
    assert len(scheduler.timesteps) == 1000, "the model's own is left as it is"


def test_without_a_shift_they_are_uniform():
    t = scheduled(FlowMatchEulerDiscreteScheduler(), 4, shift=0.5)
    assert (t - torch.tensor([125, 375, 625, 875])).abs().max() <= 1


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, use_dynamic_shifting=True,
            time_shift_type="exponential",
        ),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)  # fmt: skip
def test_a_dynamic_shift_follows_the_number_of_tokens(scheduler):
    few, many = (scheduled(scheduler, 4, shift_of(scheduler.config, tokens)) for tokens in (256, 4096))
    assert (many > few).all()
    set_timesteps(scheduler, 3, 0.5)
    assert len(scheduler.timesteps) == 3


def test_wan_shifts_by_its_config():
    plain, shifted = (
        scheduled(
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift), 5, 0.5
        )
        for shift in (1.0, 5.0)
    )
    assert (shifted > plain).all()


def test_so_many_that_two_would_be_one():
    with pytest.raises(ValueError, match=r"number of timesteps must be so small that all differ .* not 900"):
        scheduled(FlowMatchEulerDiscreteScheduler(shift=6.0), 900, shift=0.5)
    with pytest.raises(ValueError, match="must be from 1 to 1000, not 0"):
        scheduled(FlowMatchEulerDiscreteScheduler(), 0, shift=0.5)
