"""What a forward costs and can win, from a config alone, against PyTorch's own counter on real forwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bigain
from bigain.backbones import counting
from bigain.backbones.arguments import ARGUMENTS, text_of
from bigain.backbones.bound import at_sizes, bounds
from bigain.backbones.counting import Count, count
from bigain.backbones.families import SUPPORTED, layout
from bigain.operators.grid import Grid
from bigain.zoo.published import published


def first_row(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch of two, without the second."""
    return {
        name: value[:1] if isinstance(value, list) or (isinstance(value, Tensor) and value.shape[0] == 2) else value
        for name, value in inputs.items()
    }


@torch.no_grad()
def measured(model: nn.Module, inputs: dict[str, Any]) -> FlopCounterMode:
    """A real forward, by the plain kernel, whose products the counter knows; not those of PyTorch's fused one."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter


def of(model: Any, text: int) -> Count:
    return count(type(model).__name__, model.config, text)


def tokens_of(joint: Any) -> int:
    """Z-Image pads them to a multiple of 32."""
    tokens = sum(grid.tokens for grid in joint.grids)
    return -(-tokens // 32) * 32 if joint.kind.startswith("ZImage") else tokens


def test_a_forward_costs_what_pytorch_counts(joint: Any) -> None:
    model, inputs = joint.build(), first_row(joint.inputs())
    counted = of(model, text_of(inputs)).flops(tokens_of(joint))
    assert counted == pytest.approx(measured(model, inputs).get_total_flops(), rel=1e-9)


@pytest.mark.parametrize("name", ["unet", "sdxl", "dit", "pixart"])
def test_a_forward_of_transformer_blocks_costs_what_pytorch_counts(families: Any, name: str) -> None:
    model, inputs = families[name].build(), families[name].inputs(batch=1)
    if name == "pixart":
        inputs["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    side = {"unet": 16, "sdxl": 16}.get(name, 8)
    counted = of(model, 5).flops(side * side)
    assert counted == pytest.approx(measured(model, inputs).get_total_flops(), rel=1e-9)


def test_the_bound_of_pooling_is_what_pooling_does_to_the_flops(joint: Any) -> None:
    if len(joint.grids) > 1 or joint.kind.startswith("ZImage"):
        pytest.skip("a size has one grid, and nothing that pads it")
    model, inputs = joint.build(), first_row(joint.inputs())
    before = measured(model, inputs).get_total_flops()
    found = bounds(of(model, text_of(inputs)), joint.grids[0]).speed_ups
    for factor in (2, 4):
        with bigain.compressed(model, f"avgpool-{factor}"):
            after = measured(model, inputs).get_total_flops()
        assert found[f"pooled-{factor}"] == pytest.approx(before / after, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "way"),
    [
        ("avgpool:factor=2,levels=1/2", "pooled-2"),
        ("tome:ratio=0.5,queries=full,levels=1/2", "merged-50"),
        ("tome:ratio=0.5,locations=self_attention/cross_attention/mlp,levels=1/2", "blocks-50"),
    ],
)
@pytest.mark.parametrize("name", ["unet", "dit", "pixart"])
def test_the_bounds_of_transformer_blocks_are_what_methods_do(families: Any, name: str, method: str, way: str) -> None:
    if name != "unet":
        method = method.replace(",levels=1/2", "")
    if name == "dit":
        method = method.replace("/cross_attention", "")
    model, inputs = families[name].build(), families[name].inputs(batch=1)
    side = 16 if name == "unet" else 8
    found = bounds(of(model, 5), Grid(side, side)).speed_ups
    before = measured(model, inputs).get_total_flops()
    handle = bigain.apply(model, method)
    after = measured(model, inputs).get_total_flops() - sum(row.matching for row in handle.summary())
    assert found[way] == pytest.approx(before / after, rel=1e-9)


KINDS = sorted(model.__name__ for model in SUPPORTED)


def test_every_supported_class_has_arguments() -> None:
    assert sorted(ARGUMENTS) == KINDS


def counter_by_module(joint: Any, grid: Grid) -> dict[str, int]:
    """FLOPs of each module of a small model on a grid of its own."""
    model: Any = joint.build()
    given = ARGUMENTS[joint.kind].of(model.config, grid, 32)
    counter = measured(model, {key: zeroed(value) for key, value in given.items()})
    start = f"{joint.kind}."
    return {
        name.removeprefix(start): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
        if name.startswith(start)
    } | {"": counter.get_total_flops()}


def zeroed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.dtype == torch.bool else torch.zeros_like(value)
    return [zeroed(one) for one in value] if isinstance(value, list) and isinstance(value[0], Tensor) else value


@pytest.mark.parametrize("way", ["pooled-4-projections", "blocks-50"])
def test_fewer_tokens_in_projections_and_blocks_cost_what_a_smaller_image_does(joints: Any, way: str) -> None:
    for name in ("sd3", "flux", "flux2", "qwen", "zimage", "wan", "ltx", "hunyuan", "lumina2"):
        joint = joints[name]
        large, small = Grid(16, 16), Grid(4, 4) if way != "blocks-50" else Grid(16, 8)
        if name == "zimage" and way != "blocks-50":
            small = Grid(8, 4)  # which nothing pads; a line leads on to a sixteenth
        many, few = counter_by_module(joint, large), counter_by_module(joint, small)
        model: Any = joint.build()
        where = layout(model)
        if way == "blocks-50":
            saved = sum(many[layer.name] - few[layer.name] for layer in where.layers)
        else:
            parts = [f"{site.name}.{part}" for site in where.sites for part in ("to_k", "to_v")]
            share = (large.tokens - large.tokens / 16) / (large.tokens - small.tokens)
            saved = sum(share * (many[part] - few[part]) for part in parts if part in many)
            seam = bounds(of(model, 32), large).speed_ups["pooled-4"]
            saved += many[""] - many[""] / seam  # which another test holds against real pooling
        found = bounds(of(model, 32), large).speed_ups[way]
        assert found == pytest.approx(many[""] / (many[""] - saved), rel=1e-9), name


def test_a_published_model_costs_what_its_dimensions_say() -> None:
    [flux] = at_sizes(published("flux.1-dev"), [(1024, 1024)])
    tokens, width = 4096 + 512, 3072
    linear = 2 * (19 + 38) * tokens * 12 * width**2  # q, k, v, out, and an MLP of four widths
    attention = 4 * 57 * tokens**2 * width
    assert flux.bounds.levels == (4096,)
    assert flux.bounds.flops == pytest.approx(linear + attention, rel=1e-2)
    assert flux.bounds.attention == pytest.approx(attention / flux.bounds.flops, rel=1e-9)
    [wan] = at_sizes(published("Wan2.1-14B"), [(1280, 720)], frames=81)
    tokens, width, inner = 45 * 80 * 21, 5120, 13824
    linear = 2 * 40 * (tokens * (6 * width**2 + 2 * width * inner) + 512 * 2 * width**2)
    attention, crossed = 4 * 40 * tokens**2 * width, 4 * 40 * tokens * 512 * width
    assert wan.bounds.flops == pytest.approx(linear + attention + crossed, rel=1e-2)
    assert wan.bounds.ceiling == pytest.approx(1 / (1 - attention / wan.bounds.flops), rel=1e-9)
    keys = 23 * 40 * 21  # 45 is odd
    pooled = wan.bounds.flops - attention * (1 - keys / tokens)
    assert wan.bounds.speed_ups["pooled-2"] == pytest.approx(wan.bounds.flops / pooled, rel=1e-9)
    keys = 23 * 40 * 11  # the first latent frame stands for one frame, and stays alone
    pooled = wan.bounds.flops - attention * (1 - keys / tokens)
    assert wan.bounds.speed_ups["pooled-2x2x2"] == pytest.approx(wan.bounds.flops / pooled, rel=1e-9)


def test_counting_leaves_what_is_around_it_alone(joints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counting._counted.cache_clear()
    joint = joints["flux"]
    model, state = joint.build(), torch.get_rng_state()
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.FLASH)  # not installed here
    with torch.device("meta"), torch.autocast("cpu"), FlopCounterMode(display=False) as counter:
        found = of(model, 5)
    assert counter.get_total_flops() == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert len(found.attentions) == joint.sites
    assert of(model, 5) is found


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("SanaTransformer2DModel", {}, "the class must be one of UNet2DConditionModel, .*, not SanaTransformer2DModel"),
        ("FluxTransformer2DModel", {"num_attention_heads": "many"}, "config must be that of a FluxTransformer2DModel"),
        ("UNet2DConditionModel", {"attention_head_dim": 0}, "config must be that of a UNet2DConditionModel"),
    ],
)
def test_what_cannot_be_counted_is_refused(kind: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        count(kind, config)


@pytest.mark.parametrize(
    ("name", "size", "frames", "words"),
    [
        (
            "FLUX.1-dev",
            (1000, 1024),
            None,
            "the width of size must be a multiple of 16 pixels for this model, not 1000",
        ),
        ("SD-1.5", (512, 520), None, "the height of size must be a multiple of 64 pixels for this model, not 520"),
        ("Z-Image", (512, 512), 9, "frames must be 1 or left out for a model of images, not 9"),
        ("Wan2.1-1.3B", (832, 480), 80, "frames must be one more than a multiple of 4 for this model, not 80"),
        (
            "DiT-XL-2-256",
            (512, 512),
            None,
            "size must be one of 16x16 tokens, the only grid of this DiT.*, not of 32x32",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_named(name: str, size: tuple[int, int], frames: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        at_sizes(published(name), [size], frames=frames)


LITTLE = (
    r"at 90 tokens attention is \d+% of the FLOPs of this WanTransformer3DModel: avgpool:factor=2 can make a forward"
)


def test_a_forward_that_can_win_little_is_told_once(joints: Any, forward: Callable[..., Tensor]) -> None:
    model, inputs = joints["wan"].build(), first_row(joints["wan"].inputs())
    large = inputs | {"hidden_states": torch.zeros(1, 4, 3, 64, 64)}
    wide: Any = type(model).from_config({**model.config, "ffn_dim": 4096}).eval()  # beside which attention is little
    told = bigain.apply(wide, "avgpool-2")
    with pytest.warns(UserWarning, match=LITTLE):
        forward(wide, inputs)
    assert told.summary().forward.bound < 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward(wide, inputs)
        handle = bigain.apply(model, "avgpool-2")
        forward(model, large)
        handle.remove()
    whole = handle.summary().forward
    assert whole.tokens == (3 * 32 * 32, 7)
    assert 1.1 < whole.bound < whole.ceiling


def test_later_forwards_count_nothing(
    joints: Any, forward: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    bigain.apply(model, "todo-2")
    forward(model, inputs)
    monkeypatch.setattr("bigain.backbones.summary.count", lambda *_: pytest.fail("it counted again"))
    forward(model, inputs)


def test_a_model_that_is_compiled_as_a_whole_is_told_by_its_summary(
    joints: Any, forward: Callable[..., Tensor]
) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    handle = bigain.apply(model, "todo-2", **joint.hint)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="at .* tokens")
        forward(torch.compile(model, backend="eager", fullgraph=True), inputs)
    assert handle.summary().forward.tokens == (30, 5)
    assert "the whole forward" in str(handle.summary())


def test_the_summary_sets_what_was_saved_beside_the_whole_forward(joint: Any) -> None:
    model, inputs = joint.build(), first_row(joint.inputs())
    before = measured(model, inputs).get_total_flops()
    handle = bigain.apply(model, "lgtm:ratio=0.5,queries=full")
    after = measured(model, inputs).get_total_flops()
    whole = handle.summary().forward
    padded = 0.05 if joint.kind.startswith("ZImage") else 1e-9  # to a multiple of 32 tokens
    assert whole.flops == pytest.approx((before, after), rel=padded)
    assert whole.tokens == (sum(grid.tokens for grid in joint.grids), text_of(inputs))
    lines = str(handle.summary()).splitlines()
    assert any(line.startswith("the whole forward") for line in lines)
    assert any(f"at most {whole.bound:.2f}x as fast" in line for line in lines)


def test_a_config_that_does_not_give_the_model_is_told_and_does_not_stop_it(
    joints: Any, forward: Callable[..., Tensor]
) -> None:
    joint = joints["wan"]
    model, inputs = joint.build(), joint.inputs()
    model.register_to_config(num_attention_heads="two")
    handle = bigain.apply(model, "todo-2")
    with pytest.warns(UserWarning, match="the FLOPs of a forward cannot be counted"):
        forward(model, inputs)
    with pytest.warns(UserWarning, match="the FLOPs of a forward cannot be counted"):
        assert handle.summary().forward is None
