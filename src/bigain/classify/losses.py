"""How far a prediction is from its target: one float32 number per row."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.mse_loss(prediction.float(), target.float(), reduction="none"))


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.l1_loss(prediction.float(), target.float(), reduction="none"))


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Huber loss with delta = 1 over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.huber_loss(prediction.float(), target.float(), reduction="none"))


def _reduced(difference: Tensor) -> Tensor:
    # In float32 whatever the model's dtype: half precision resolves about 6e-5, the size of the gaps between classes.
    return difference.flatten(1).mean(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "l1": l1, "huber": huber}
