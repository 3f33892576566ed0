"""Attention for training gives what PyTorch's gives, and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from attention import attend, quick

INPUTS = [(2, 3, 7, 8), (2, 3, 5, 8), (2, 3, 5, 4)]  # queries, keys, values


def tensors(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in INPUTS]


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("mask", [None, (5,), (1, 3, 7, 5), (2, 1, 1, 5)])
def test_values_and_gradients_are_those_of_pytorch(mask: Any, scale: float | None) -> None:
    inputs = tensors()
    if mask is not None:
        inputs.append(torch.randn(mask, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        inputs[-1].requires_grad_()
    results = []
    for function in (attend, scaled_dot_product_attention):
        out = function(*inputs, scale=scale)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
        results.append((out, *torch.autograd.grad((out * weights).sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_has_options_or_needs_no_gradient_is_pytorchs() -> None:
    query, key, _ = tensors(torch.float32)
    assert torch.equal(
        attend(query, key, key, is_causal=True), scaled_dot_product_attention(query, key, key, None, 0, True)
    )
    seen = torch.tensor([True, False, True, True, False]).expand(2, 1, 7, 5)
    assert torch.equal(attend(query, key, key, seen), scaled_dot_product_attention(query, key, key, seen))
    with torch.no_grad():
        assert torch.equal(attend(query, key, key), scaled_dot_product_attention(query, key, key))


def test_it_stands_in_for_pytorchs_for_a_while() -> None:
    before = torch.nn.functional.scaled_dot_product_attention
    with quick():
        assert torch.nn.functional.scaled_dot_product_attention is attend
    assert torch.nn.functional.scaled_dot_product_attention is before
