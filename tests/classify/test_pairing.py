from __future__ import annotations

import pytest
import torch

from bigain.classify import LOSSES, paired_noise


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


def _slow(name: str, difference: float) -> float:
    if name == "l2":
        return difference**2
    if name == "l1":
        return abs(difference)
    return 0.5 * difference**2 if abs(difference) <= 1 else abs(difference) - 0.5


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_each_loss_against_a_loop(name):
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 2, 4, 5, generator=generator).unbind(0)
    losses = LOSSES[name](prediction, target)
    for row in range(3):
        each = [_slow(name, d) for d in (prediction[row] - target[row]).double().flatten().tolist()]
        assert losses[row].item() == pytest.approx(sum(each) / len(each), rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_half_precision_is_reduced_in_float32(name):
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 16, 16, generator=generator).half().unbind(0)
    losses = LOSSES[name](prediction, target)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, LOSSES[name](prediction.float(), target.float()))
