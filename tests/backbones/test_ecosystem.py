"""LoRA, ControlNet residuals, IP-Adapter and custom processors beside compression."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0 as IPAdapter
from peft import LoraConfig

import bigain

METHODS = ["lgtm-0.5", "iekvd-2"]


def _add_lora(unet) -> None:
    config = LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights="gaussian")
    unet.add_adapter(config)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))


def _add_ip_adapter(unet) -> None:
    """The state dict of a small IP-Adapter, as a checkpoint of one holds it."""
    generator = torch.Generator().manual_seed(0)
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    state = {"image_proj": {}, "ip_adapter": {}}
    state["image_proj"]["proj.weight"] = torch.randn(4 * 16, 16, generator=generator)
    state["image_proj"]["proj.bias"] = torch.zeros(4 * 16)
    state["image_proj"]["norm.weight"], state["image_proj"]["norm.bias"] = torch.ones(16), torch.zeros(16)
    for number, name in enumerate(sorted(names, key=lambda n: list(unet.attn_processors).index(n))):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_k_ip", "to_v_ip"):
            weight = torch.randn(attention.inner_dim, 16, generator=generator)
            state["ip_adapter"][f"{2 * number + 1}.{part}.weight"] = weight
    unet._load_ip_adapter_weights([state])


def _ip_inputs(inputs):
    image_embeds = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(3))
    return inputs | {"added_cond_kwargs": {"image_embeds": [image_embeds]}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("addition", ["lora", "ip_adapter"])
def test_what_is_loaded_before_or_after_apply_gives_the_same(families, forward, method, addition):
    add, outputs = {"lora": _add_lora, "ip_adapter": _add_ip_adapter}[addition], []
    inputs = families["unet"].inputs()
    for before in (True, False):
        torch.manual_seed(0)
        unet = families["unet"].build()
        with bigain.compressed(unet, method):
            bare = forward(unet, inputs)
        torch.manual_seed(1)
        if before:
            add(unet)
        bigain.apply(unet, method)
        if not before:
            add(unet)
        outputs.append(forward(unet, _ip_inputs(inputs) if addition == "ip_adapter" else inputs))
        assert not torch.allclose(outputs[-1], bare, atol=1e-4)
    if addition == "ip_adapter":
        assert any(isinstance(processor, IPAdapter) for processor in unet.attn_processors.values())
    assert torch.equal(*outputs)


@pytest.mark.parametrize("method", METHODS)
def test_controlnet_residuals(families, forward, method):
    unet, inputs = families["unet"].build(), families["unet"].inputs()
    with bigain.compressed(unet, method):
        bare = forward(unet, inputs)
        generator = torch.Generator().manual_seed(0)
        shapes = [(2, 16, 16, 16), (2, 16, 16, 16), (2, 16, 8, 8), (2, 32, 8, 8)]
        down = tuple(torch.randn(*shape, generator=generator) for shape in shapes)
        mid = torch.randn(2, 32, 8, 8, generator=generator)
        extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        guided = forward(unet, inputs | extra)
    assert guided.isfinite().all()
    assert not torch.allclose(bare, guided, atol=1e-4)


@pytest.mark.parametrize("method", [*METHODS, "lgtm:ratio=0.5,size_aware=true"])
def test_processors_can_be_exchanged_while_compressed(families, forward, method):
    unet, inputs = families["unet"].build(), families["unet"].inputs()
    bigain.apply(unet, method)
    unet.set_attn_processor(AttnProcessor2_0())
    fused = forward(unet, inputs)
    unet.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(forward(unet, inputs), fused, atol=1e-5, rtol=1e-4)
