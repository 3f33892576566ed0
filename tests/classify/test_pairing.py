from __future__ import annotations

import pytest
import torch

from bigain.classify import LOSSES, Scoring, paired_noise
from bigain.diffusion import Process


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


def test_a_weighting_scales_both_sides_before_the_loss():
    process = Process("flow", 1000)
    prediction, target = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [0.0]])
    t = torch.tensor([250, 500])
    for weighting, factor in (("velocity", [1, 1]), ("epsilon", [0.75, 0.5]), ("likelihood", [3**0.5, 1])):
        errors = Scoring("l1", weighting).errors(process, prediction, target, t)
        torch.testing.assert_close(errors, torch.tensor([0.5 * factor[0], 2.0 * factor[1]]))
        squares = Scoring("l2", weighting).errors(process, prediction, target, t)
        torch.testing.assert_close(squares, torch.tensor([0.25 * factor[0] ** 2, 4.0 * factor[1] ** 2]))


@pytest.mark.parametrize(
    ("field", "choices"),
    [("loss", "l2, l1, huber"), ("weighting", "prediction, velocity, epsilon, likelihood"),
     ("spacing", "uniform, scheduler")],
)  # fmt: skip
def test_a_scoring_checks_its_fields(field, choices):
    with pytest.raises(ValueError, match=f"{field} must be one of {choices}, not 'x'"):
        Scoring(**{field: "x"})
