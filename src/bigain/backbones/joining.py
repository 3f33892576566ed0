"""Attention over groups of keys that weigh alike, each in a call of its own, joined on their log-sum-exp.

The fast kernels (flash, sage) take no mask, in which the log of what each key stands for could be added. A softmax over
all keys is the mean of the softmaxes over parts of them, weighted by the parts' sums of exponentials, which these
kernels return as a logarithm. So where a part's keys all stand for n tokens, log n is added to that.

Private parts of diffusers are used here for one thing: which backend is active where a processor names none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

_JOINED = {
    *("flash", "flash_hub", "_flash_3", "flash_4_hub", "aiter_fa2_hub", "_native_flash", "sage", "sage_hub"),
    *("_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90"),
    *("_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton"),
}
"""Backends that take no mask and return a log-sum-exp (B, H, S)."""
_NEITHER = {
    *("flash_varlen", "flash_varlen_hub", "_flash_varlen_3", "_flash_3_hub", "_flash_3_varlen_hub"),
    *("_native_xla", "sage_varlen", "sage_blackwell_hub"),
}
"""Backends that take no numbers as a mask and return nothing of the kind, or in another layout."""


@dataclass(frozen=True)
class Call:
    """One attention over some of the keys.

    Args:
        key, value: (B, M, H, D).
        mask: as the attention takes it, or None.
        log_size: of what each key stands for, beside the keys of other calls.
    """

    key: Tensor
    value: Tensor
    mask: Tensor | None
    log_size: float = 0.0


def takes_masks(backend: Any, name: str) -> bool:
    """Whether an attention backend (None: the active one) takes masks of numbers; else calls must be joined.

    ValueError where it takes none and returns no log-sum-exp either; ``name`` is of the attention.
    """
    if backend is None:
        backend = _AttentionBackendRegistry._active_backend
    chosen = backend.value if isinstance(backend, AttentionBackendName) else str(backend)
    if chosen in _NEITHER:
        raise ValueError(
            f"attention backend of {name} must take masks of numbers, or return its log-sum-exp, for keys that weigh "
            f"by their size, not be {chosen!r}: use another, such as 'native' or 'flash', or size_aware=False"
        )
    return chosen not in _JOINED


def joined(dispatch: Any, query: Tensor, calls: Sequence[Call], options: dict[str, Any]) -> Tensor:
    """The attention of queries (B, S, H, D) over the keys of all calls: (B, S, H, D).

    Args:
        dispatch: diffusers' `dispatch_attention_fn`.
        options: what else the processor gave it.
    """
    results = [_with_sum(dispatch, query, call, options) for call in calls]
    sums = torch.stack([sum_.float() + call.log_size for (_, sum_), call in zip(results, calls, strict=True)])
    shares = sums.softmax(0).transpose(2, 3)[..., None]  # (calls, B, S, H, 1)
    output = sum(share * out.float() for share, (out, _) in zip(shares, results, strict=True))
    assert isinstance(output, Tensor)
    return output.to(query.dtype)


def _with_sum(dispatch: Any, query: Tensor, call: Call, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The attention over the keys of a call, and its log-sum-exp (B, H, S)."""
    backend = options.get("backend") or _AttentionBackendRegistry._active_backend
    if AttentionBackendName(backend) == AttentionBackendName._NATIVE_FLASH and call.mask is None:
        return _native_flash(query, call, options)
    own = options | {"attention_kwargs": {**(options.get("attention_kwargs") or {}), "return_lse": True}}
    output, sums = dispatch(query, call.key, call.value, attn_mask=call.mask, **own)
    batch, length, heads, _ = query.shape
    if sums.shape != (batch, heads, length):
        raise ValueError(
            f"attention backend {backend!r} must return its log-sum-exp as (batch, heads, queries) = "
            f"{(batch, heads, length)}, not {tuple(sums.shape)}: use another, or size_aware=False"
        )
    return output, sums


def _native_flash(query: Tensor, call: Call, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """PyTorch's own, of which diffusers returns the log-sum-exp in parallel runs alone."""
    query, key, value = (x.transpose(1, 2) for x in (query, call.key, call.value))
    own = torch.ops.aten
    flash = (
        own._scaled_dot_product_flash_attention_for_cpu
        if query.device.type == "cpu"
        else (own._scaled_dot_product_flash_attention)
    )
    output, sums, *_ = flash(query, key, value, 0.0, bool(options.get("is_causal")), scale=options.get("scale"))
    return output.transpose(1, 2), sums
