"""Attention that is quick to differentiate on a CPU, in the place of PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

_fused = torch.nn.functional.scaled_dot_product_attention


@contextmanager
def quick() -> Iterator[None]:
    """Within it, `scaled_dot_product_attention` keeps its shares, and differentiates them by few operations.

    PyTorch's fused kernel is slow to differentiate on a CPU, and so is its softmax in bfloat16.
    """
    with patch.object(torch.nn.functional, "scaled_dot_product_attention", attend):
        yield


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, which has what needs no gradient, and what has options."""
    chosen = attn_mask is not None and attn_mask.dtype == torch.bool
    if dropout_p or is_causal or enable_gqa or chosen or not torch.is_grad_enabled():
        return _fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    return _Attention.apply(query, key, value, attn_mask)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        logits = query @ key.transpose(-1, -2)
        shares = (logits if mask is None else logits.add_(mask)).softmax(-1)
        out = shares @ value
        ctx.save_for_backward(query, key, value, shares, out)
        ctx.mask = None if mask is None else mask.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        query, key, value, shares, out = ctx.saved_tensors
        grad = grad.contiguous()
        logits = (grad @ value.transpose(-1, -2)).sub_((grad * out).sum(-1, keepdim=True)).mul_(shares)
        mask = logits.sum_to_size(ctx.mask) if ctx.needs_input_grad[3] else None
        return logits @ key, logits.transpose(-1, -2) @ query, shares.transpose(-1, -2) @ grad, mask
