"""Random numbers that depend on names alone: no global state, no order, no batch.

A key or a generator is a function of the SHA-256 digest of its parts, so it is the same in every process,
on every machine, and for any number of workers.
"""

from __future__ import annotations

import hashlib
import json

import torch

_KEY_BITS = 62  # what is left of 64 when keys must stay nonnegative and below 2**62


def image_key(image_id: str, seed: int) -> int:
    """The key of an image in a run: a nonnegative integer below 2**62, from the SHA-256 digest of both.

    Methods with random destinations draw from it, so an image has the same draws for every class and timestep, and
    other draws under another seed.
    """
    return _digest("image", seed, image_id)


def seeded_generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded from the SHA-256 digest of ``parts``."""
    return torch.Generator().manual_seed(_digest(*parts))


def _digest(*parts: str | int) -> int:
    # Joined as a JSON list, so that ("a", 1) and ("a1",) differ.
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _KEY_BITS)
