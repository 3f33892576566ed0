"""Random numbers as pure functions of names or integer keys: no random state, no order, no batch.

From names by SHA-256, the same in every process and on every machine; from keys by integer arithmetic, with equal bits
on every device.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor, library

_MASK = 0xFFFFFFFF
_KEY_BITS = 62  # what is left of 64 when keys must stay nonnegative and below 2**62


def image_key(image_id: str, seed: int) -> int:
    """The key of an image in a run, for random draws: a nonnegative integer below 2**62, from the digest of both."""
    return _digest("image", seed, image_id)


def seeded_generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded from the SHA-256 digest of ``parts``."""
    return torch.Generator().manual_seed(_digest(*parts))


def mix_keys(*parts: Tensor | int) -> Tensor:
    """Hash integers into one key each; the order of the parts matters.

    Parts are integers (taken modulo 2**64), or int64 tensors that broadcast against each other. The keys are int64 in
    [0, 2**63), of the broadcast shape (0-d on the CPU if every part is an int).
    """
    if not parts:
        raise ValueError("parts must hold at least one integer, not none")
    low, high = 0x9E3779B9, 0x7F4A7C15
    for part in parts:
        low = _mix(low ^ (part & _MASK))
        high = _mix(high ^ ((part >> 32) & _MASK) ^ low)
        low = _mix((low + high) & _MASK)
    return torch.as_tensor(((high & 0x7FFFFFFF) << 32) | low)


def random_uniform(keys: Tensor, tokens: int) -> Tensor:
    """A uniform number per token, as a function of (key, token).

    Keys are (B,) int64 and non-negative, as from :func:`mix_keys`; the result is (B, N) float32, multiples of 2**-24 in
    [0, 1).
    """
    if keys.dim() != 1 or keys.dtype != torch.int64:
        raise ValueError(f"keys must be (B,) int64, not {tuple(keys.shape)} {keys.dtype}")
    if tokens < 1:
        raise ValueError(f"tokens must be a whole number from 1, not {tokens!r}")
    counter = _mix((torch.arange(tokens, device=keys.device) + 0x9E3779B9) & _MASK)
    hashed = _mix(_mix(counter[None, :] ^ (keys[:, None] & _MASK)) ^ ((keys[:, None] >> 32) & _MASK))
    return (hashed >> 8).to(torch.float32) * 2.0**-24


def random_normal(keys: Tensor, tokens: int) -> Tensor:
    """A standard normal number per token, as a function of (key, token), by Box and Muller's transform.

    Keys as in :func:`random_uniform`; the result is (B, N) float32, equal to rounding on every device.
    """
    radius, angle = random_uniform(keys, 2 * tokens).unflatten(1, (2, tokens)).unbind(1)
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()  # 1 - radius lies in (0, 1]


def _digest(*parts: str | int) -> int:
    # Joined as a JSON list, so that ("a", 1) and ("a1",) differ.
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _KEY_BITS)


def _mix(value: Any) -> Any:
    """A bijective hash of a 32-bit integer, or of those in an int64 tensor (lowbias32 of Wellons' hash-prospector)."""
    if torch.compiler.is_compiling() and isinstance(value, Tensor):
        return _mixed_whole(value)
    return _mixed(value)


def _mixed(value: Any) -> Any:
    value = value ^ (value >> 16)
    value = (value * 0x7FEB352D) & _MASK
    value = value ^ (value >> 15)
    value = (value * (0x846CA68B - 2**32)) & _MASK  # equal modulo 2**32, and the product stays below 2**63
    return value ^ (value >> 16)


@library.custom_op("bigain::mix", mutates_args=())
def _mixed_whole(value: Tensor) -> Tensor:
    """``_mixed`` as one operation, which a compiler does not look into.

    Inductor puts an expression in the place of each use. Every exclusive or uses one twice, so that a chain of these
    took it longer than anyone waits.
    """
    result: Tensor = _mixed(value)
    return result


@_mixed_whole.register_fake
def _(value: Tensor) -> Tensor:
    return torch.empty_like(value)
