from __future__ import annotations

import hashlib

import torch

from bigain.diffusion import image_key, seeded_generator


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
