"""Keys that weigh by their size where the attention takes no mask: calls joined on their log-sum-exp."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, dispatch_attention_fn
from torch import Tensor, nn

import bigain
from bigain.backbones.families import layout
from bigain.backbones.joining import Call, joined, takes_masks

DISPATCHED = ["flux", "kontext", "flux2", "qwen", "zimage", "wan", "ltx", "prx"]
"""Families that attend by diffusers' dispatch, and can without a mask."""
calls: list[int] = []


@torch.no_grad()
def output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    result = model(**inputs, return_dict=False)[0]
    return result if isinstance(result, Tensor) else torch.stack(result)


def flash_like(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    _parallel_config: Any = None,
) -> Any:
    """An attention over (B, S, H, D) that takes no mask and returns its log-sum-exp as (B, H, S)."""
    if attn_mask is not None:
        raise ValueError("`attn_mask` is not supported by this one")
    calls.append(key.shape[1])
    logits = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) * (scale or 1 / math.sqrt(query.shape[3]))
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value.double()).to(query.dtype)
    return (out, logits.logsumexp(-1).float()) if return_lse else out


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> AttentionBackendName:
    """A backend that goes by the name of flash."""
    name = AttentionBackendName.FLASH
    names = {"query", "key", "value", "attn_mask", "scale", "return_lse", "_parallel_config"}
    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, flash_like)
    monkeypatch.setitem(_AttentionBackendRegistry._supported_arg_names, name, names)
    calls.clear()
    return name


def without_masks(joint: Any) -> dict[str, Any]:
    """Inputs whose text has no padding."""
    inputs = joint.inputs()
    for name in ("encoder_hidden_states_mask", "attention_mask"):
        inputs.pop(name, None)
    if "cap_feats" in inputs:
        inputs["cap_feats"] = [inputs["cap_feats"][0]] * 2
    return inputs


def use(model: nn.Module, backend: AttentionBackendName | None) -> None:
    for site in layout(model).sites:
        site.attention.processor._attention_backend = backend


@pytest.mark.parametrize("backend", [AttentionBackendName.FLASH, AttentionBackendName._NATIVE_FLASH])
def test_joined_calls_are_one_call_with_a_mask(flash: Any, backend: AttentionBackendName) -> None:
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, length, 4, 16, generator=rng) for length in (33, 19, 19))
    sizes = [1] * 5 + [4] * 8 + [2] * 6
    parts = [Call(key[:, a:b], value[:, a:b], None, math.log(sizes[a])) for a, b in ((0, 5), (5, 13), (13, 19))]
    result = joined(dispatch_attention_fn, query, parts, {"backend": backend})
    mask = torch.tensor(sizes).float().log()[None, None, None]
    wanted = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=AttentionBackendName.NATIVE)
    torch.testing.assert_close(result, wanted, rtol=0, atol=1e-6)
    repeated = [x.double().repeat_interleave(torch.tensor(sizes), 1) for x in (key, value)]
    exact = flash_like(query.double(), *repeated)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-6)
    half = [Call(one.key.bfloat16(), one.value.bfloat16(), None, one.log_size) for one in parts]
    rounded = joined(dispatch_attention_fn, query.bfloat16(), half, {"backend": backend})
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), wanted, rtol=0, atol=0.03)


@pytest.mark.parametrize("backend", [AttentionBackendName.FLASH, AttentionBackendName._NATIVE_FLASH])
@pytest.mark.parametrize("name", DISPATCHED)
def test_a_backend_without_masks_gives_what_a_mask_gives(
    joints: Any, name: str, backend: AttentionBackendName, flash: Any
) -> None:
    joint = joints[name]
    model, inputs = joint.build(), without_masks(joint)
    specs = ["avgpool-2", "iekvd-4"] + ["avgpool-2x2x2"] * (joint.grids[0].frames > 1)
    wanted = []
    for spec in specs:
        with bigain.compressed(model, spec):
            wanted.append(output(model, inputs))
    use(model, backend)
    for spec, one in zip(specs, wanted, strict=True):
        with bigain.compressed(model, spec):
            torch.testing.assert_close(output(model, inputs), one, rtol=0, atol=1e-5)
    if backend == flash:
        assert len(calls) > 3 * joint.sites, "text, full windows and partial ones each in a call"


def test_calls_are_one_where_all_keys_weigh_alike(joints: Any, flash: Any) -> None:
    joint = joints["wan"]
    model, inputs = joint.build(), joint.inputs()
    inputs["hidden_states"] = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0))  # 4 x 6 tokens
    use(model, flash)
    for spec in ("avgpool-2", "avgpool:factor=2,size_aware=true", "avgpool:factor=4,size_aware=false"):
        calls.clear()
        with bigain.compressed(model, spec):
            output(model, inputs)
        assert len(calls) == 2, spec


@pytest.mark.parametrize("name", ["flux", "wan"])
def test_compiled_as_one_graph_it_gives_what_eager_gives(joints: Any, name: str) -> None:
    joint = joints[name]
    model, inputs = joint.build(), joint.inputs()
    use(model, AttentionBackendName._NATIVE_FLASH)
    bigain.apply(model, "avgpool-2", **joint.hint)
    eager = output(model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(output(compiled, inputs), eager, rtol=0, atol=1e-6)


def test_what_cannot_be_weighed_is_refused(joints: Any, flash: Any) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    alone = {name: value if name.endswith("_ids") else value[:1] for name, value in inputs.items()}
    use(model, flash)
    for spec in ("lgtm:ratio=0.5,queries=full", "lgtm:ratio=0.5,locations=block"):
        with (
            bigain.compressed(model, spec),
            pytest.raises(ValueError, match=r"must take masks for merged tokens.*flash"),
        ):
            output(model, alone)
    use(model, AttentionBackendName.FLASH_VARLEN)
    with (
        bigain.compressed(model, "avgpool-2"),
        pytest.raises(ValueError, match=r"backend of transformer_blocks\.0\.attn must"),
    ):
        output(model, inputs)
    assert takes_masks(None, "attn")
    assert not takes_masks("sage", "attn")
