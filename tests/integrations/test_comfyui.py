"""The node on a stand-in for ComfyUI: a U-Net of diffusers whose self-attentions keep to ComfyUI's patch interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

import bigain
from bigain.methods import Context
from bigain.operators.assignment import merge, unmerge
from bigain.operators.grid import Grid
from integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from integrations.comfyui.nodes import CHOICES, CompressTokens, Patch, grid_of, method_of

POOLED = [choice for choice, name in CHOICES.items() if name in ("avgpool", "iekvd", "todo")]
MERGED = [choice for choice in CHOICES if choice not in POOLED]


class StandIn:
    """What a node is given: it keeps patches, and runs a U-Net with them."""

    def __init__(self, unet: nn.Module, before: tuple[Any, ...] = (), behind: tuple[Any, ...] = ()) -> None:
        self.unet, self.before, self.behind = unet, before, behind

    def clone(self) -> StandIn:
        return StandIn(self.unet, self.before, self.behind)

    def set_model_attn1_patch(self, patch: Callable[..., Any]) -> None:
        self.before = (*self.before, patch)

    def set_model_attn1_output_patch(self, patch: Callable[..., Any]) -> None:
        self.behind = (*self.behind, patch)

    def __call__(self, sample: Tensor, **inputs: Any) -> Tensor:
        blocks = [block for block in self.unet.modules() if isinstance(block, BasicTransformerBlock)]
        whole = {block: block.attn1.forward for block in blocks}

        def run(number: int, block: Any, n: Tensor) -> Tensor:
            options = {"original_shape": list(sample.shape), "transformer_index": number}
            context = value = n
            for patch in self.before:
                n, context, value = patch(n, context, value, options)
            torch.testing.assert_close(context, value)  # diffusers has one tensor for both
            n = whole[block](n, encoder_hidden_states=context)
            for patch in self.behind:
                n = patch(n, options)
            return n

        try:
            for number, block in enumerate(blocks):
                block.attn1.forward = lambda n, *_, number=number, block=block, **__: run(number, block, n)
            with torch.no_grad():
                return self.unet(sample, **inputs, return_dict=False)[0]
        finally:
            for block in blocks:
                del block.attn1.forward


@pytest.fixture
def unet(families: Any) -> nn.Module:
    return families["unet"].build()


@pytest.fixture
def inputs(families: Any) -> dict[str, Any]:
    return families["unet"].inputs()


def plain(unet: nn.Module, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return unet(**inputs, return_dict=False)[0]


@pytest.mark.parametrize("choice", POOLED)
def test_pooling_is_that_of_apply(unet: nn.Module, inputs: dict[str, Any], choice: str) -> None:
    [patched] = CompressTokens().patch(StandIn(unet), choice, 0.75)
    found = patched(**inputs)
    with bigain.compressed(unet, method_of(choice, 0.75)):
        expected = plain(unet, inputs)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, plain(unet, inputs))


@pytest.mark.parametrize("choice", MERGED)
def test_merging_is_that_of_the_operators(choice: str) -> None:
    n = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method: Any = method_of(choice, 0.5)
    patch, options = Patch(method), {"original_shape": (2, 4, 8, 8), "transformer_index": 3}
    fewer, context, value = patch.before(n, n, n, options)
    assignment = method.assign(n, Context(Grid(8, 8), layer=3))
    assert fewer.shape[1] < 64
    assert fewer is context is value
    torch.testing.assert_close(fewer, merge(n, assignment))
    torch.testing.assert_close(patch.behind(2 * fewer, options), unmerge(2 * fewer, assignment))
    assert set(options) == {"original_shape", "transformer_index"}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_model_runs_with_it_and_without_it(unet: nn.Module, inputs: dict[str, Any], choice: str) -> None:
    before, model = plain(unet, inputs), StandIn(unet)
    [patched] = CompressTokens().patch(model, choice, 0.5)
    found = patched(**inputs)
    assert found.isfinite().all()
    assert not torch.allclose(found, before)
    torch.testing.assert_close(patched(**inputs), found, rtol=0, atol=0)
    torch.testing.assert_close(model(**inputs), before, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(16, 16), (11, 16), (13, 7)])
def test_only_the_finest_level_has_fewer(size: tuple[int, int]) -> None:
    patch = Patch(method_of("Average pooling of keys and values", 0.75))
    options = {"original_shape": (2, 4, *size)}
    fine, coarse = size[0] * size[1], -(-size[0] // 2) * -(-size[1] // 2)
    for tokens in (fine, coarse, fine):
        n = torch.randn(2, tokens, 8, generator=torch.Generator().manual_seed(0))
        queries, keys, values = patch.before(n, n, n, dict(options))
        assert queries is n
        assert keys.shape == values.shape
        assert (keys.shape[1] < tokens) == (tokens == fine)


def test_sdxl_has_no_attention_at_the_latents_own_size() -> None:
    patch = Patch(method_of("Token merging (ToMe)", 0.5))
    for side, fewer in ((8, True), (4, False)):
        n = torch.randn(1, side * side, 8, generator=torch.Generator().manual_seed(0))
        assert (patch.before(n, n, n, {"original_shape": (1, 4, 16, 16)})[0].shape[1] < side * side) == fewer


@pytest.mark.parametrize(("strength", "factor"), [(0.1, 2), (0.75, 2), (0.85, 3), (0.95, 4)])
def test_pooling_takes_the_nearest_factor(strength: float, factor: int) -> None:
    for choice in POOLED:
        assert method_of(choice, strength).factor == factor  # type: ignore[attr-defined]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be one of .*, not 'magic'"):
        method_of("magic", 0.5)
    with pytest.raises(ValueError, match="strength must lie between 0 and 1, not 1"):
        method_of("Quadtree merging", 1.0)
    with pytest.raises(ValueError, match="the tokens must be those of 16x16 latents, halved some times, not 100"):
        grid_of((16, 16), 100)


def test_comfyui_finds_one_choice_and_one_slider() -> None:
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in NODE_CLASS_MAPPINGS.values():
        shown = node.INPUT_TYPES()["required"]
        assert list(shown) == ["model", "method", "strength"]
        assert hasattr(node, node.FUNCTION)
        assert node.RETURN_TYPES == ("MODEL",)
