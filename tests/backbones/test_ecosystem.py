"""LoRA, ControlNet residuals, IP-Adapter and custom processors beside compression."""

from __future__ import annotations

import itertools

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig
from diffusers.hooks import HookRegistry, apply_first_block_cache, apply_pyramid_attention_broadcast
from diffusers.hooks.hooks import CacheContext, _set_cache_context
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


class _Counted(ModelHook):
    """What offloading puts around a model: it counts its calls instead of moving weights."""

    def __init__(self):
        self.calls = 0

    def pre_forward(self, module, *args, **kwargs):
        self.calls += 1
        return args, kwargs


@pytest.mark.parametrize("part", ["model", "every module"])
@pytest.mark.parametrize("first", ["offload", "apply"])
@pytest.mark.parametrize("method", [*METHODS, "lgtm:ratio=0.5,size_aware=true,features=first"])
def test_offloading_goes_on_and_off_around_compression(families, forward, part, first, method):
    """As a pipeline does after every call (`maybe_free_model_hooks`), with what accelerate wraps a module in."""
    model, inputs = families["unet"].build(), families["unet"].inputs()
    modules = [model] if part == "model" else list(model.modules())
    plain = forward(model, inputs)
    with bigain.compressed(model, method):
        expected = forward(model, inputs)
    counted = _Counted()

    def offload():
        for module in modules:
            add_hook_to_module(module, counted)

    if first == "offload":
        offload()
        bigain.apply(model, method)
    else:
        bigain.apply(model, method)
        offload()
    for call in range(1, 3):
        counted.calls = 0
        assert torch.equal(forward(model, inputs), expected), call
        assert counted.calls >= 1, "still offloaded"
        for module in modules:
            remove_hook_from_module(module)
        assert torch.equal(forward(model, inputs), expected), "still compressed"
        offload()
    bigain.remove(model)
    counted.calls = 0
    assert torch.equal(forward(model, inputs), plain)
    assert counted.calls >= 1, "still offloaded"
    for module in modules:
        remove_hook_from_module(module)
    assert torch.equal(forward(model, inputs), plain)


def _calls_of(block) -> list[int]:
    calls: list[int] = []
    block.norm1.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("order", list(itertools.permutations(["apply", "offload", "cache"])), ids="-".join)
@pytest.mark.parametrize("method", [*METHODS, "tome:ratio=0.5,layers=1/2"])
def test_offloading_and_a_cache_go_on_when_compression_is_removed(families, forward, method, order):
    model, inputs = families["dit"].build(num_layers=3), families["dit"].inputs()
    plain, counted = forward(model, inputs), _Counted()
    steps = {
        "apply": lambda: bigain.apply(model, method),
        "offload": lambda: [add_hook_to_module(module, counted) for module in model.modules()],
        "cache": lambda: apply_first_block_cache(model, FirstBlockCacheConfig(threshold=0.5)),
    }
    for step in order:
        steps[step]()
    calls = _calls_of(model.transformer_blocks[1])

    def run():
        calls.clear()
        counted.calls = 0
        HookRegistry.check_if_exists_or_initialize(model).reset_stateful_hooks()
        _set_cache_context(model, CacheContext("one"))  # as `cache_context`, which this class does not have
        first, *_ = [forward(model, inputs) for _ in range(3)]
        return first, len(calls), counted.calls

    compressed, ran, offloaded = run()
    assert ran == 1, "the cache left the block out of the second and third forward"
    assert offloaded > 0
    assert not torch.allclose(compressed, plain, atol=1e-4)
    bigain.remove(model)
    restored, *after = run()
    assert after == [ran, offloaded], "both go on"
    assert torch.equal(restored, plain)
    for module in model.modules():
        remove_hook_from_module(module)
    assert torch.equal(run()[0], plain)


def test_a_forward_that_was_replaced_by_hand_is_named(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    bigain.apply(model, "lgtm-0.5")
    block = model.transformer_blocks[0]
    hooked = block.forward
    block.forward = lambda *args, **kwargs: hooked(*args, **kwargs)
    with pytest.raises(
        RuntimeError, match="the forward of a BasicTransformerBlock was replaced while it was compressed"
    ):
        bigain.remove(model)
    block.forward = hooked
    bigain.remove(model)
    assert torch.equal(forward(model, inputs), plain)


def test_a_block_that_was_compiled_after_apply_is_restored(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    bigain.apply(model, "lgtm-0.5")
    compressed = forward(model, inputs)
    model.transformer_blocks[0] = torch.compile(model.transformer_blocks[0], backend="eager")
    torch.testing.assert_close(forward(model, inputs), compressed)
    bigain.remove(model)
    torch.testing.assert_close(forward(model, inputs), plain)


@pytest.mark.parametrize("method", METHODS)
def test_attentions_that_a_cache_leaves_out_are_not_missed(families, forward, method):
    model, inputs = families["unet"].build(), families["unet"].inputs()
    bigain.apply(model, method)
    step = {"now": 999}
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(0, 1000),
        current_timestep_callback=lambda: step["now"],
    )
    config.spatial_attention_block_identifiers = ("down_blocks", "up_blocks", "mid_block")
    apply_pyramid_attention_broadcast(model, config)
    for now in (900, 800, 700):
        step["now"] = now
        assert forward(model, inputs).isfinite().all()
