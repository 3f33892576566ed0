"""Agreement with tomesd 0.1.3, the best-known implementation of ToMe."""

from __future__ import annotations

import copy

import pytest
import tomesd
import torch

import bigain


@pytest.mark.parametrize("ratio", [0.3, 0.6])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (18, 26)])
def test_first_of_cell_gives_the_output_of_tomesd(families, ratio, height, width):
    ours = families["unet"].build()
    theirs = tomesd.apply_patch(copy.deepcopy(ours), ratio=ratio, max_downsample=1, use_rand=False)
    inputs = families["unet"].inputs(height=height, width=width)
    arguments = (inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"])  # it needs positions
    with torch.no_grad():
        plain = ours(*arguments, return_dict=False)[0]
        expected = theirs(*arguments, return_dict=False)[0]
        bigain.apply(ours, bigain.ToMe(ratio=ratio, destinations="first", features="block"))
        output = ours(*arguments, return_dict=False)[0]
    assert not torch.allclose(plain, expected, atol=1e-4)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_every_location_agrees_too(families):
    ours = families["unet"].build()
    theirs = tomesd.apply_patch(
        copy.deepcopy(ours), ratio=0.5, max_downsample=1, use_rand=False, merge_crossattn=True, merge_mlp=True
    )
    inputs = families["unet"].inputs()
    arguments = (inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"])
    with torch.no_grad():
        expected = theirs(*arguments, return_dict=False)[0]
        bigain.apply(ours, bigain.ToMe(ratio=0.5, locations=("self_attention", "cross_attention", "mlp")))
        output = ours(*arguments, return_dict=False)[0]
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
