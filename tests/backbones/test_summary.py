"""The summary's FLOPs against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bigain


def _counted(model, inputs) -> int:
    # The counter knows the matrix products of the plain kernel, not PyTorch's fused one for CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "method",
    [
        "lgtm-0.5",
        "tome-0.7",
        "abm-0.5",
        "quadtree-0.5",
        "sito-0.5",
        "todo-2",
        "lgtm:ratio=0.5,queries=full",
        "lgtm-0.5+iekvd-2",
        "tome:ratio=0.5,locations=self_attention/cross_attention/mlp",
    ],
)
@pytest.mark.parametrize("name", ["unet", "dit", "pixart"])
def test_flops_saved_are_those_that_pytorch_counts(families, name, method):
    if name == "dit" and "cross_attention" in method:
        method = method.replace("/cross_attention", "")
    model, inputs = families[name].build(), families[name].inputs(batch=1)
    plain = _counted(model, inputs)
    handle = bigain.apply(model, method)
    compressed = _counted(model, inputs)
    before, after = handle.summary().flops
    assert compressed - plain == after - before < 0


def test_the_table_names_layers_tokens_and_costs(families):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    handle = bigain.apply(model, "todo-2")
    with pytest.raises(RuntimeError, match="none ran yet"):
        handle.summary()
    with torch.no_grad():
        model(**inputs)
    text = str(handle.summary())
    assert "transformer_blocks.1" in text
    assert "8x8" in text
    assert "64 -> 16" in text
    assert "compression cannot be faster" not in text


def test_a_matching_that_costs_more_than_it_saves_is_told(families):
    model = families["dit"].build(attention_head_dim=2, num_attention_heads=2, num_layers=1, sample_size=32)
    handle = bigain.apply(model, bigain.ToMe(ratio=0.01))
    with torch.no_grad():
        model(**families["dit"].inputs(height=32, width=32))
    assert "costs more than the attention it saves" in str(handle.summary())


def test_the_summary_of_none_says_so(families):
    handle = bigain.apply(families["dit"].build(), "none")
    assert str(handle.summary()) == "no layer is compressed"
    assert handle.summary().flops == (0, 0)


def test_matching_that_did_not_run_is_not_charged(families):
    model = families["dit"].build()
    handle = bigain.apply(model, "tome:ratio=0>0.5+iekvd-2")  # at the last timestep no token merges
    for timestep, charged in ((999, False), (0, True)):
        inputs = families["dit"].inputs(batch=1, timestep=timestep)
        counted = _counted(model, inputs)
        assert all((row.matching > 0) == charged for row in handle.summary())
        before, after = handle.summary().flops
        handle.remove()
        assert counted - _counted(model, inputs) == after - before
        handle = bigain.apply(model, handle.methods)
