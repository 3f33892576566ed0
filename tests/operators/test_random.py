"""Keyed numbers against unbounded integers, and what they promise."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.operators.random import image_key, mix_keys, random_normal, random_uniform, seeded_generator


def mix_by_integers(value: int) -> int:
    """lowbias32, in unbounded integers."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ (value >> 16)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3), st.integers(1, 40))
def test_random_uniform_agree_with_unbounded_integers(keys: list[int], count: int) -> None:
    scores = random_uniform(torch.tensor(keys), count)
    assert scores.dtype == torch.float32
    for row, key in enumerate(keys):
        for token in range(count):
            counter = mix_by_integers((token + 0x9E3779B9) % 2**32)
            hashed = mix_by_integers(mix_by_integers(counter ^ key % 2**32) ^ key >> 32)
            assert scores[row, token].item() == (hashed >> 8) / 2**24


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_keys_from_integers_equal_keys_from_tensors(parts: list[int]) -> None:
    key = mix_keys(*parts)
    assert key.dtype == torch.int64
    assert key.dim() == 0
    assert key.item() >= 0
    assert mix_keys(*[torch.tensor([part]) for part in parts]).tolist() == [key.item()]
    assert mix_keys(parts[0], torch.tensor(parts)).tolist() == [mix_keys(parts[0], part).item() for part in parts]


def test_keys_and_scores_spread() -> None:
    parts = torch.arange(300)
    keys = mix_keys(7, parts[:, None], parts[None, :])
    assert keys.shape == (300, 300)
    assert keys.unique().numel() == 90_000  # the order of the parts matters: (1, 2) is not (2, 1)
    scores = random_uniform(mix_keys(0, parts), 256)
    assert 0.0 <= float(scores.min()) < 1e-3
    assert 0.999 < float(scores.max()) < 1.0
    counts = torch.histc(scores, bins=16, min=0.0, max=1.0)
    chi_squared = float(((counts - 4800) ** 2 / 4800).sum())
    assert chi_squared < 40.0  # 15 degrees of freedom: p = 0.0005
    places = scores.view(300, 64, 4).argmax(2).flatten().bincount(minlength=4)
    assert float(((places - 4800) ** 2 / 4800).sum()) < 17.7  # 3 degrees of freedom: p = 0.0005
    assert abs(float(torch.corrcoef(scores).fill_diagonal_(0).abs().max())) < 0.35


def test_random_uniform_depend_on_their_key_alone_and_touch_no_random_state() -> None:
    keys = mix_keys(3, torch.arange(5))
    before = torch.get_rng_state()
    scores = random_uniform(keys, 20)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(scores[2:3], random_uniform(keys[2:3], 20))
    assert torch.equal(scores[:, :7], random_uniform(keys, 7))
    assert random_uniform(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)


def test_bad_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"keys must be \(B,\) int64, not \(2,\) torch.float32"):
        random_uniform(torch.zeros(2), 3)
    with pytest.raises(ValueError, match="tokens must be a whole number from 1, not 0"):
        random_uniform(torch.zeros(2, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="parts must hold at least one integer, not none"):
        mix_keys()


def test_normal_numbers_are_normal_and_keyed() -> None:
    keys = mix_keys(1, torch.arange(100))
    drawn = random_normal(keys, 500)
    assert drawn.shape == (100, 500)
    assert torch.isfinite(drawn).all()
    assert abs(float(drawn.mean())) < 0.02  # 4.5 standard errors
    assert abs(float(drawn.square().mean()) - 1) < 0.03  # 4.7 standard errors
    assert abs(float((drawn < 1).double().mean()) - 0.8413) < 0.007  # 4.3 standard errors
    assert torch.equal(drawn[3:4], random_normal(keys[3:4], 500))
    assert len(drawn.unique()) > 0.98 * drawn.numel()


def test_an_image_key_is_the_first_62_bits_of_sha256_over_seed_and_name():
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(b'["image", 3, "val/0001"]').digest())
    assert image_key("val/0001", 3) == int(bits[:62], 2)
    keys = [image_key(str(i), seed) for i in range(100) for seed in (0, 1)]
    assert torch.tensor(keys).unique().numel() == 200


def test_a_generator_depends_on_every_part_and_on_where_parts_end():
    def draw(*parts):
        return torch.randn(4, generator=seeded_generator(*parts)).tolist()

    assert draw(0, "a", 25) == draw(0, "a", 25)
    different = [
        draw(0, "a", 25),
        draw(1, "a", 25),
        draw(0, "b", 25),
        draw(0, "a", 75),
        draw(0, "a2", 5),
        draw("0a", 25),
    ]
    assert len({tuple(d) for d in different}) == len(different)


def test_no_global_random_state_is_touched():
    before = torch.get_rng_state()
    torch.randn(3, generator=seeded_generator("x"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_compiler_sees_a_hash_as_one_operation() -> None:
    """Inductor would put each expression in the place of each of its uses, which doubles it with every exclusive or."""

    def draw(keys: torch.Tensor) -> torch.Tensor:
        return random_uniform(mix_keys(keys, 3), 8)

    shifts = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        shifts.extend(node for node in graph.graph.nodes if "rshift" in str(node.target))
        return graph

    keys = torch.tensor([5, 2**40 + 7])
    torch._dynamo.reset()
    assert torch.equal(torch.compile(draw, backend=backend, fullgraph=True)(keys), draw(keys))
    assert len(shifts) <= 3  # those of the halves of keys, and of the result; each hash would have three more
