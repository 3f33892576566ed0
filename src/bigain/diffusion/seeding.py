"""Random numbers that depend on names alone: no global state, no order, no batch.

A key or a generator is a function of the SHA-256 digest of its parts, so it is the same in every process,
on every machine, and for any number of workers.
"""

from __future__ import annotations

import hashlib
import json

import torch

_KEY_BITS = 62  # what is left of 64 when keys must stay nonnegative and below 2**62


def image_key(image_id: str) -> int:
    """The first 62 bits of SHA-256 of an image's id: a nonnegative integer below 2**62.

    Methods with seeded destinations draw from it, so an image has the same key for every class and timestep.
    """
    digest = hashlib.sha256(image_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _KEY_BITS)


def seeded_generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded from the SHA-256 digest of ``parts``.

    The parts are joined as a JSON list, so ``("a", 1)`` and ``("a1",)`` differ.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> (64 - _KEY_BITS))
