"""Fewer tokens around MLPs and whole blocks, against models in which all tokens of a group are the same token."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bigain
from bigain.backbones import recorded
from bigain.backbones.families import layout
from bigain.backbones.hooks import NothingCompressedError

SERIAL = ["sd3", "qwen", "zimage", "wan", "ltx", "cogvideox", "auraflow", "lumina2"]
"""Families whose blocks all have an MLP of their own."""
SHARED = ["flux", "kontext", "chroma", "flux2", "qwen", "hunyuan", "cogvideox"]
"""Families in which all rows of a batch have the same rotary embedding, but CogVideoX, which has none when small."""
EACH = ["sd3", "zimage", "wan", "ltx", "auraflow", "lumina2", "prx"]


@torch.no_grad()
def output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    result = model(**inputs, return_dict=False)[0]
    return result if isinstance(result, Tensor) else torch.stack(result)


def first_row(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch of one."""
    shared = {name for name in ("img_ids", "txt_ids") if name in inputs and inputs[name].dim() == 2}
    return {
        name: value[:1] if isinstance(value, Tensor | list) and name not in shared else value
        for name, value in inputs.items()
    }


def stand_ins(seen: list[Any], batch: int) -> list[tuple[list[list[int]], list[int]]]:
    """Of each row: its groups of image tokens, and for each token the one that stands for it."""
    rows = []
    for row in range(batch):
        begin, groups, stands = 0, [], []
        for one in seen:
            folds = one.assignment.index.shape[0] // batch
            tokens = one.assignment.index.shape[1]
            for fold in range(folds):
                index = one.assignment.index[row * folds + fold].tolist()
                kept = one.assignment.kept[row * folds + fold].tolist()
                found: dict[int, list[int]] = {}
                for token, group in enumerate(index):
                    found.setdefault(group, []).append(begin + token)
                groups += found.values()
                stands += [begin + kept[group] for group in index]
                begin += tokens
        rows.append((groups, stands))
    return rows


def averaged(x: Tensor, start: int, rows: list[tuple[list[list[int]], list[int]]]) -> Tensor:
    """Every token of a group is the group's mean."""
    x = x.clone()
    for row, (groups, _) in enumerate(rows):
        for group in groups:
            places = [start + token for token in group]
            x[row, places] = x[row, places].double().mean(0).to(x.dtype)
    return x


@contextmanager
def slowly(joint: Any, model: nn.Module, seen: dict[str, list[Any]], whole_blocks: bool, batch: int) -> Iterator[None]:
    """MLPs, or blocks, of as many tokens as ever, of which those of a group are all alike."""
    where, tokens = layout(model), sum(grid.tokens for grid in joint.grids)
    family: Any = where.family

    def start_of(length: int) -> int:
        return 0 if family.image == "first" else length - tokens

    def around_block(block: nn.Module, rows: Any) -> Any:
        forward, names = block.forward, [*inspect.signature(type(block).forward).parameters][1:]

        def slow(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | kwargs
            extra = args[len(names) :] if "args" in names else ()
            given.pop("args", None)
            x = given[family.tokens]
            given[family.tokens] = same = averaged(x, start_of(x.shape[1]), rows)
            for one in family.per_token:
                if given.get(one.name) is not None:
                    given[one.name] = stood_for(one, given[one.name], rows)
            assert not extra
            result = forward(**given)
            begin = start_of(x.shape[1])
            image = slice(begin, begin + tokens)
            parts = [result] if isinstance(result, Tensor) else list(result)
            place = 0 if isinstance(result, Tensor) else family.output
            parts[place] = parts[place].clone()
            parts[place][:, image] = (x + (parts[place] - same))[:, image]
            return parts[0] if isinstance(result, Tensor) else tuple(parts)

        return slow

    def stood_for(one: Any, value: Any, rows: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(part if one.first and i else stood_for(one, part, rows) for i, part in enumerate(value))
        length = value.shape[one.axis]
        if length < tokens:
            return value
        begin = start_of(length)
        lists = [
            [*range(begin), *(begin + token for token in stands), *range(begin + tokens, length)] for _, stands in rows
        ]
        if one.shared:
            return value.index_select(one.axis, torch.tensor(lists[0]))
        value = value.expand(batch, *value.shape[1:])
        return torch.stack(
            [part.index_select(one.axis - 1, torch.tensor(places)) for part, places in zip(value, lists, strict=True)]
        )

    hooks, changed = [], []
    for layer in where.layers:
        if layer.name not in seen:
            continue
        rows = stand_ins(seen[layer.name], batch)
        if whole_blocks:
            layer.block.forward = around_block(layer.block, rows)
            changed.append(layer.block)
        else:
            entering = lambda _, args, rows=rows: (averaged(args[0], start_of(args[0].shape[1]), rows),)  # noqa: E731
            hooks.append(getattr(layer.block, family.mlp).register_forward_pre_hook(entering))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block in changed:
            del block.forward


def compare(joint: Any, spec: str, inputs: dict[str, Any], batch: int, layers: int) -> None:
    model, seen = joint.build(), dict[str, list[Any]]()
    plain = output(model, inputs)
    with recorded(model, spec, lambda one: seen.setdefault(one.name, []).append(one)) as handle:
        merged = output(model, inputs)
        summary = handle.summary()
    assert len(seen) == layers == len(summary)
    assert all(row.flops[1] < row.flops[0] for row in summary) or "abm" not in spec
    with slowly(joint, model, seen, "block" in spec, batch):
        wanted = output(model, inputs)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=3e-5)
    assert (merged - plain).abs().max() > 1e-5, "that it is near says something"
    assert torch.equal(output(model, inputs), plain), "removed, every bit is as it was"


@pytest.mark.parametrize("spec", ["lgtm:ratio=0.5,locations=mlp", "quadtree:ratio=0.5,locations=mlp"])
@pytest.mark.parametrize("name", SERIAL)
def test_an_mlp_sees_the_mean_of_each_group(joints: Any, name: str, spec: str) -> None:
    joint = joints[name]
    compare(joint, spec, joint.inputs(), 2, len(layout(joint.build()).layers))


@pytest.mark.parametrize("name", ["flux", "kontext", "chroma", "flux2", "hunyuan"])
def test_blocks_of_two_streams_merge_around_their_mlp_and_others_are_refused(joints: Any, name: str) -> None:
    joint = joints[name]
    compare(joint, "lgtm:ratio=0.5,locations=mlp,layers=0", joint.inputs(), 2, 1)
    with pytest.raises(ValueError, match=r"single_transformer_blocks\.0 must have an MLP that is one module .*'block'"):
        bigain.apply(joint.build(), "lgtm:ratio=0.5,locations=mlp")


@pytest.mark.parametrize("name", EACH)
def test_a_block_sees_the_mean_of_each_group_at_its_token_s_place(joints: Any, name: str) -> None:
    joint = joints[name]
    compare(joint, "lgtm:ratio=0.5,locations=block", joint.inputs(), 2, len(layout(joint.build()).layers))


@pytest.mark.parametrize("name", [name for name in SHARED if name != "kontext"])
def test_rows_share_positions_where_they_merge_alike(joints: Any, name: str) -> None:
    joint = joints[name]
    layers = len(layout(joint.build()).layers)
    compare(joint, "abm:ratio=0.6,locations=block", joint.inputs(), 2, layers)  # all cells that are whole


@pytest.mark.parametrize("name", SHARED)
def test_a_batch_of_one_image_merges_as_it_likes(joints: Any, name: str) -> None:
    joint = joints[name]
    layers = len(layout(joint.build()).layers)
    compare(joint, "lgtm:ratio=0.5,locations=block", first_row(joint.inputs()), 1, layers)


@pytest.mark.parametrize("name", [name for name in SHARED if name != "cogvideox"])
def test_rows_that_merge_apart_are_refused_where_they_share_positions(joints: Any, name: str) -> None:
    joint = joints[name]
    model = joint.build()
    bigain.apply(model, "lgtm:ratio=0.5,locations=block")
    with pytest.raises(ValueError, match=r"rows must keep the same tokens, as .* is one for all rows: .*a batch of 1"):
        output(model, joint.inputs())


@pytest.mark.parametrize(
    "spec", ["quadtree:ratio=0.5,depth=2,time_depth=1,locations=block", "abm:ratio=0.5,cell=2x2x2,locations=mlp"]
)
def test_blocks_over_time_merge_there_too(joints: Any, spec: str) -> None:
    joint = joints["wan"]
    inputs = joint.inputs()
    inputs["timestep"] = torch.cat([torch.zeros(2, 30), torch.full((2, 120), 500.0)], 1)  # its first frame stays whole
    inputs["hidden_states"] = torch.randn(2, 4, 5, 10, 12, generator=torch.Generator().manual_seed(0))
    model, seen = joint.build(), list[Any]()
    plain = output(model, inputs)
    with recorded(model, spec, seen.append) as handle:
        assert not torch.equal(output(model, inputs), plain)
        row = handle.summary()[0]
    assert {str(one.context.grid) for one in seen} == {"4x5x6"}
    assert row.flops[1] < row.flops[0]
    assert row.queries == (150, seen[0].assignment.groups + 30 if "block" in spec else 150)


@pytest.mark.parametrize("locations", ["mlp", "block"])
@pytest.mark.parametrize("name", ["flux", "qwen", "wan", "hunyuan"])
def test_compiled_as_one_graph_it_gives_what_eager_gives(joints: Any, name: str, locations: str) -> None:
    joint = joints[name]
    model = joint.build()
    inputs = first_row(joint.inputs()) if locations == "block" and name in SHARED else joint.inputs()
    layers = ",layers=0" if locations == "mlp" and name in ("flux", "hunyuan") else ""
    bigain.apply(model, f"lgtm:ratio=0.5,locations={locations}{layers}", **joint.hint)
    eager = output(model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(output(compiled, inputs), eager, rtol=0, atol=1e-6)


@pytest.mark.parametrize("locations", ["mlp", "block"])
def test_what_merges_nothing_leaves_every_bit_and_raises_where_it_should_have(joints: Any, locations: str) -> None:
    joint = joints["wan"]
    model, inputs = joint.build(), joint.inputs()
    plain = output(model, inputs)
    with bigain.compressed(model, f"lgtm:ratio=0,locations={locations}"):
        assert torch.equal(output(model, inputs), plain)
    bigain.apply(model, f"lgtm:ratio=0.001,locations={locations}")
    with pytest.raises(NothingCompressedError, match="nothing was compressed"):
        output(model, inputs)


def test_text_weighs_more_without_the_sizes(joints: Any) -> None:
    joint = joints["sd3"]
    model, inputs = joint.build(), joint.inputs()
    outputs = []
    for size_aware in ("none", "true", "false"):
        with bigain.compressed(model, f"lgtm:ratio=0.5,locations=block,size_aware={size_aware}"):
            outputs.append(output(model, inputs))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_chunked_mlp_is_refused(joints: Any) -> None:
    joint = joints["sd3"]
    model, inputs = joint.build(), joint.inputs()
    model.enable_forward_chunking(chunk_size=6, dim=1)
    bigain.apply(model, "lgtm:ratio=0.5,locations=mlp")
    with pytest.raises(
        ValueError, match=r"must be given the 30 tokens .* at once .* not 6: call set_chunk_feed_forward"
    ):
        output(model, inputs)
