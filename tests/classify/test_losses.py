from __future__ import annotations

import pytest
import torch

from bigain.classify import LOSSES


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
