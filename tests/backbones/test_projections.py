"""Keys and values projected from pooled tokens, against projections of tokens that were replaced by their windows'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bigain
from bigain.backbones.families import layout
from bigain.backbones.hooks import NothingCompressedError
from bigain.operators.grid import Grid

APART = [
    "sd3",
    "flux",
    "kontext",
    "chroma",
    "qwen",
    "zimage",
    "wan",
    "ltx",
    "hunyuan",
    "cogvideox",
    "auraflow",
    "lumina2",
]
"""All but those whose projections are fused."""


@torch.no_grad()
def output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    result = model(**inputs, return_dict=False)[0]
    return result if isinstance(result, Tensor) else torch.stack(result)


def windows(grid: Grid, factor: int) -> list[list[int]]:
    """The tokens of each window of each frame."""
    return [
        [
            (frame * grid.height + y) * grid.width + x
            for y in range(top, min(top + factor, grid.height))
            for x in range(left, min(left + factor, grid.width))
        ]
        for frame in range(grid.frames)
        for top in range(0, grid.height, factor)
        for left in range(0, grid.width, factor)
    ]


def by_mean(x: Tensor, group: list[int], grid: Grid) -> Tensor:
    return x[:, group].double().mean(1).to(x.dtype)


def by_centre(x: Tensor, group: list[int], grid: Grid) -> Tensor:
    """The token one down and to the right of the first, as far as the window goes."""
    last = group[-1] - group[0]
    return x[:, group[0] + min(1, last // grid.width) * grid.width + min(1, last % grid.width)]


@contextmanager
def replaced(joint: Any, model: nn.Module, pool: Callable[[Tensor, list[int], Grid], Tensor]) -> Iterator[None]:
    """All tokens of a window enter the projections to keys and values as the same token."""

    def entering(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        start = 0 if layout(model).family.image == "first" else x.shape[1] - sum(grid.tokens for grid in joint.grids)
        for grid in joint.grids:
            for group in windows(grid, 2):
                places = [start + token for token in group]
                x[:, places] = pool(args[0][:, start : start + grid.tokens], group, grid)[:, None]
            start += grid.tokens
        return (x, *args[1:])

    sites = layout(model).sites
    hooks = [
        getattr(site.attention, name).register_forward_pre_hook(entering) for site in sites for name in ("to_k", "to_v")
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("spec", ["avgpool-2", "todo-2"])
@pytest.mark.parametrize("name", APART)
def test_projected_is_what_replaced_tokens_give(joints: Any, name: str, spec: str) -> None:
    joint = joints[name]
    model, inputs = joint.build(), joint.inputs()
    with replaced(joint, model, by_mean if spec == "avgpool-2" else by_centre), bigain.compressed(model, spec):
        wanted = output(model, inputs)
    with bigain.compressed(model, f"{spec.replace('-', ':factor=')},pool_at=projection"):
        torch.testing.assert_close(output(model, inputs), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", APART)
def test_values_and_nearest_keys_are_what_pooling_at_the_attention_gives(
    joints: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint, calls = joints[name], list[tuple[Tensor, Tensor]]()
    fused = functional.scaled_dot_product_attention

    def spying(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append((key.clone(), value.clone()))
        return fused(query, key, value, *rest, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spying)
    model, inputs = joint.build(), joint.inputs()
    for method, keys_too in ((bigain.ToDo, True), (bigain.AveragePooling, False)):
        seen = []
        for pool_at in ("attention", "projection"):
            calls.clear()
            with bigain.compressed(model, method(layers=(0,), pool_at=pool_at)):
                output(model, inputs)
            seen.append(list(calls))
        place = next(i for i, call in enumerate(seen[0]) if call[0].shape[2] == min(one[0].shape[2] for one in seen[0]))
        (key, value), (same_key, same_value) = (one[place] for one in seen)
        torch.testing.assert_close(same_value, value, rtol=0, atol=1e-5)
        if keys_too:
            torch.testing.assert_close(same_key, key, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", APART)
def test_removed_it_leaves_every_bit_and_the_summary_counts_it(joints: Any, name: str) -> None:
    joint = joints[name]
    model, inputs = joint.build(), joint.inputs()
    plain = output(model, inputs)
    with bigain.compressed(model, "avgpool-2") as handle:
        output(model, inputs)
        attention = handle.summary()
    with bigain.compressed(model, "avgpool:factor=2,pool_at=projection") as handle:
        output(model, inputs)
        both = handle.summary()
    assert torch.equal(output(model, inputs), plain)
    with bigain.compressed(model, "avgpool:factor=1,pool_at=projection"):
        assert torch.equal(output(model, inputs), plain)
    for one, other, site in zip(attention, both, layout(model).sites, strict=True):
        weights = site.attention.to_k.weight.numel() + site.attention.to_v.weight.numel()
        fewer = sum(grid.tokens - len(windows(grid, 2)) for grid in joint.grids)
        assert other.flops[0] - other.flops[1] - (one.flops[0] - one.flops[1]) == 2 * weights * fewer
        assert other.flops[0] > one.flops[0]


@pytest.mark.parametrize("name", [name for name in APART if name not in ("kontext", "lumina2")])
def test_compiled_as_one_graph_it_gives_what_eager_gives(joints: Any, name: str) -> None:
    joint = joints[name]
    model, inputs = joint.build(), joint.inputs()
    text = "iekvd:factor=2x2x2,pool_at=projection" if joint.grids[0].frames > 1 else "iekvd:factor=2,pool_at=projection"
    bigain.apply(model, text, **joint.hint)
    eager = output(model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(output(compiled, inputs), eager, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("flux2", "avgpool:factor=2,pool_at=projection", r"single_transformer_blocks\.0\.attn must have to_k and to_v"),
        ("prx", "avgpool:factor=2,pool_at=projection", r"blocks\.0\.attention must have to_k and to_v"),
        (
            "flux",
            "freqsel:factor=2,pool_at=projection",
            "pool_at must be 'attention' in transformer_blocks.0.attn for freq",
        ),
    ],
)
def test_what_cannot_be_is_refused(joints: Any, name: str, spec: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bigain.apply(joints[name].build(), spec)


def test_layers_of_flux_2_with_projections_of_their_own_can(joints: Any) -> None:
    joint = joints["flux2"]
    model, inputs = joint.build(), joint.inputs()
    with bigain.compressed(model, "todo:factor=2,layers=0"):
        wanted = output(model, inputs)
    with bigain.compressed(model, "todo:factor=2,layers=0,pool_at=projection"):
        torch.testing.assert_close(output(model, inputs), wanted, rtol=0, atol=2e-5)


def test_fused_projections_are_refused_before_and_noticed_after(joints: Any) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    model.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"separate projections .* not fused ones: call unfuse_qkv_projections"):
        bigain.apply(model, "avgpool:factor=2,pool_at=projection")
    model = joint.build()
    bigain.apply(model, "avgpool:factor=2,pool_at=projection")
    model.fuse_qkv_projections()
    with pytest.raises(NothingCompressedError, match=r"transformer_blocks\.0\.attn must project its keys and values"):
        output(model, inputs)
