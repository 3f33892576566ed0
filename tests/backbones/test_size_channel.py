"""Proportional attention by a channel: equal to the mask, without one, and refused where it does not apply."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional

import bigain
from bigain.backbones.families import layout
from bigain.backbones.size_channel import narrow, widen_keys, widen_queries, widen_values, widened
from bigain.operators.assignment import Assignment, group_sizes, key_bias, merge

ATTEND = functional.scaled_dot_product_attention


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """As diffusers' AttnProcessor2_0 does it: (B, N, heads * d)."""
    mask = None if mask is None else mask[:, None]
    output = ATTEND(heads_of(q, heads), heads_of(k, heads), heads_of(v, heads), attn_mask=mask)
    return output.transpose(1, 2).flatten(2)


def by_channel(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    output = attention(widen_queries(q, heads), widen_keys(k, heads, bias), widen_values(v, heads), heads)
    return narrow(output, heads, v.shape[-1] // heads)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    heads=st.integers(1, 3),
    channels=st.integers(1, 17),
    groups=st.integers(1, 9),
    empty=st.integers(0, 2),
    data=st.data(),
)
def test_log_sizes_make_groups_of_identical_tokens_weigh_as_all_their_tokens(
    seed: int, heads: int, channels: int, groups: int, empty: int, data: st.DataObject
) -> None:
    """A property of the maths: softmax over n equal keys is softmax over one of them plus log n."""
    rest = data.draw(st.lists(st.integers(0, groups - 1), min_size=empty, max_size=20))
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor([*range(groups), *rest])[None]
    kept = torch.cat([torch.arange(groups), torch.zeros(empty, dtype=torch.int64)])[None]
    assignment = Assignment(index, kept, padded=empty > 0)
    width = heads * channels
    k, v = (torch.randn(1, groups, width, generator=generator)[:, index[0]] for _ in range(2))
    q = torch.randn(1, 5, width, generator=generator)
    expected = attention(q, k, v, heads)
    merged_k, merged_v = merge(k, assignment), merge(v, assignment)
    bias = key_bias(assignment, size_aware=True)
    assert bias is not None
    torch.testing.assert_close(attention(q, merged_k, merged_v, heads, bias), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_channel(q, merged_k, merged_v, heads, bias), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_empty_group_has_no_weight_at_all(dtype: torch.dtype) -> None:
    heads, channels = 2, 160
    generator = torch.Generator().manual_seed(0)
    q, k = (8 * torch.randn(1, 4, heads * channels, generator=generator).to(dtype) for _ in range(2))
    v = torch.zeros(1, 4, heads * channels, dtype=dtype)
    v[:, 3] = 1000
    bias = torch.tensor([1.0, 2.0, 64.0, 0.0]).log().view(1, 1, 4)
    assert float(by_channel(q, k, v, heads, bias).abs().max()) == 0


def test_heads_widen_to_the_next_multiple_of_8_with_room_for_one() -> None:
    assert [widened(channels) for channels in (1, 7, 8, 40, 64, 72, 79, 80)] == [8, 8, 16, 48, 72, 80, 80, 88]


class Seen:
    """What reaches PyTorch's attention."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[tuple[int, ...], bool]] = []

        def record(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
            assert query.shape[-1] == key.shape[-1] == value.shape[-1]
            self.calls.append((tuple(query.shape), attn_mask is not None))
            return ATTEND(query, key, value, attn_mask=attn_mask, **rest)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", record)


METHODS = {
    "lgtm": {"method": bigain.LaplacianMerging, "ratio": 0.6},
    "scheduled": {"method": bigain.LaplacianMerging, "ratio": bigain.Linear(0.7, 0.0)},
    "quadtree": {"method": bigain.QuadtreeMerging, "ratio": 0.8},
}


def both(name: str, **fields: Any) -> tuple[Any, Any]:
    settings = METHODS[name] | fields
    method = settings.pop("method")
    return tuple(method(**settings, size_aware=True, size_bias=form) for form in ("mask", "channel"))


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("queries", ["merged", "full"])
def test_the_channel_equals_the_mask(family, name, queries, forward, monkeypatch):
    model, inputs = family.build(), family.inputs(timestep=torch.tensor([999, 400]))
    mask, channel = both(name, queries=queries)
    plain = forward(model, inputs)
    with bigain.compressed(model, mask):
        expected = forward(model, inputs)
    seen = Seen(monkeypatch)
    with bigain.compressed(model, channel) as handle:
        torch.testing.assert_close(forward(model, inputs), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(forward(model, inputs), forward(model, inputs))
        assert len(handle.summary()) > 0
    assert not torch.allclose(plain, expected, atol=1e-4)
    assert not any(masked for _, masked in seen.calls)
    blocks = [layer.block for layer in layout(model).layers if layer.level == 1]
    widths = {block.attn1.inner_dim // block.attn1.heads for block in blocks}
    assert {shape[-1] for shape, _ in seen.calls} >= {widened(width) for width in widths}
    assert torch.equal(forward(model, inputs), plain)  # removed


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_half_precision_is_as_near_as_the_mask(families, forward, name):
    model = families[name].build()
    inputs = {
        key: value.bfloat16() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in families[name].inputs().items()
    }
    mask, channel = both("lgtm")
    with bigain.compressed(model, mask):
        exact = forward(
            model, {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()}
        )
    errors = []
    model = model.to(torch.bfloat16)
    for method in (mask, channel):
        with bigain.compressed(model, method):
            errors.append((forward(model, inputs).float() - exact).square().mean().sqrt())
    assert errors[1] < 1.5 * errors[0]


def add_lora(model: nn.Module) -> None:
    model.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights="gaussian")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))


def test_a_lora_that_was_loaded_before_takes_part(families, forward):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    mask, channel = both("lgtm")
    with bigain.compressed(model, channel):
        without = forward(model, inputs)
    add_lora(model)
    with bigain.compressed(model, mask):
        expected = forward(model, inputs)
    with bigain.compressed(model, channel):
        torch.testing.assert_close(forward(model, inputs), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(without, expected, atol=1e-4)


def test_a_lora_that_is_loaded_or_unloaded_after_apply_says_so(families, forward):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    plain, (_, channel) = forward(model, inputs), both("lgtm")
    bigain.apply(model, channel)
    add_lora(model)
    words = (
        r"projections of down_blocks\.0\..*attn1 were exchanged after apply.*apply\(\) again, or set size_bias='mask'"
    )
    with pytest.raises(ValueError, match=words):
        forward(model, inputs)
    bigain.remove(model)
    with bigain.compressed(model, channel):
        forward(model, inputs)
        model.unload_lora()
        with pytest.raises(ValueError, match=words):
            forward(model, inputs)
    assert torch.equal(forward(model, inputs), plain)


def test_a_copy_is_compressed_anew(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    bigain.apply(model, both("lgtm")[1])
    twin = copy.deepcopy(model)
    bigain.remove(twin)
    bigain.apply(twin, both("lgtm")[1])
    assert torch.equal(forward(twin, inputs), forward(model, inputs))


def _fuse(model: nn.Module) -> None:
    model.fuse_qkv_projections()


def _normalise(model: nn.Module) -> None:
    model.down_blocks[0].attentions[0].transformer_blocks[0].attn1.norm_q = nn.Identity()


def _exchange(model: nn.Module) -> None:
    model.set_attn_processor(AttnProcessor())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_fuse, "has fused projections"),
        (_normalise, "normalises its queries or keys"),
        (_exchange, "has the processor AttnProcessor and not AttnProcessor2_0"),
    ],
)
def test_attention_that_is_not_plain_is_refused(families, forward, change, words):
    words = rf"down_blocks\.0\..*attn1 {words}.*set size_bias='mask'"
    model, inputs, (_, channel) = families["unet"].build(), families["unet"].inputs(), both("lgtm")
    with bigain.compressed(model, channel):
        change(model)  # while it is compressed
        with pytest.raises(ValueError, match=words):
            forward(model, inputs)
    with pytest.raises(ValueError, match=words):
        bigain.apply(model, channel)


def test_group_sizes_are_what_is_added() -> None:
    assignment = Assignment(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 1]]))
    bias = key_bias(assignment, size_aware=True)
    assert bias is not None
    q, k = torch.tensor([[[2.0, 0.5]]]), torch.tensor([[[1.0, 3.0], [0.0, 1.0]]])
    logits = widen_queries(q, 1) @ widen_keys(k, 1, bias).transpose(1, 2) / 8**0.5
    torch.testing.assert_close(logits, q @ k.transpose(1, 2) / 2**0.5 + group_sizes(assignment).log())
