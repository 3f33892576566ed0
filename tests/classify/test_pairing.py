from __future__ import annotations

import pytest
import torch

from bigain.classify import paired_noise


def test_noise_depends_on_seed_image_and_timestep_alone():
    first = paired_noise(0, "a", 25, (3, 8, 8))
    paired_noise(0, "b", 75, (3, 8, 8))
    torch.randn(5)
    assert torch.equal(paired_noise(0, "a", 25, (3, 8, 8)), first)


@pytest.mark.parametrize("other", [(1, "a", 25), (0, "b", 25), (0, "a", 75)])
def test_each_part_changes_the_noise(other):
    first, second = paired_noise(0, "a", 25, (3, 32, 32)), paired_noise(*other, (3, 32, 32))
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(correlation) < 0.1


def test_noise_is_standard_normal_float32_on_the_cpu():
    noise = paired_noise(0, "a", 25, (4, 64, 64))
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"
    assert noise.shape == (4, 64, 64)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
