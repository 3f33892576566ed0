"""Fewer keys and values between rotary embedding and softmax, in every family that attends jointly or over video."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor, Flux2KVParallelSelfAttnProcessor
from torch import Tensor, nn
from torch.nn import functional

import bigain
from bigain.backbones import recorded
from bigain.backbones.families import layout
from bigain.backbones.hooks import NothingCompressedError
from bigain.operators.grid import Grid

Groups = Callable[[str, Grid, int], list[list[int]]]
"""The groups of the tokens of one row's grid, by the name of the attention, the grid and the row."""


@torch.no_grad()
def output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The sample that a forward gives."""
    result = model(**inputs, return_dict=False)[0]
    return result if isinstance(result, Tensor) else torch.stack(result)


def windows(grid: Grid, factor: int | tuple[int, int, int], whole: int = 0) -> list[list[int]]:
    """The tokens of each window, written out: the first frame alone, or as it is where ``whole`` is 1."""
    span, high, wide = (1, factor, factor) if isinstance(factor, int) else factor
    times = [[frame] for frame in range(grid.frames)]
    if span > 1:
        times = [[0], *([*range(grid.frames)][start : start + span] for start in range(1, grid.frames, span))]
    groups = []
    for frames in times:
        for top in range(0, grid.height, high):
            for left in range(0, grid.width, wide):
                rows = range(top, min(top + high, grid.height))
                columns = range(left, min(left + wide, grid.width))
                groups.append([(t * grid.height + y) * grid.width + x for t in frames for y in rows for x in columns])
    first = whole * grid.height * grid.width
    return [[token] for token in range(first)] + [group for group in groups if group[0] >= first]


@contextmanager
def slowly(joint: Any, model: nn.Module, groups: Groups, size_aware: bool) -> Iterator[None]:
    """Attention in float64 in which all tokens of a group have the mean key and value; or one key each has them."""
    inside: list[str] = []
    fused = functional.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
        if not inside:
            return fused(query, key, value, attn_mask, **options)
        name = inside.pop()
        key, value = key.double().clone(), value.double().clone()
        stays = torch.ones(key.shape[0], key.shape[2], dtype=torch.bool)
        tokens = sum(grid.tokens for grid in joint.grids)
        start = 0 if layout(model).family.image == "first" else key.shape[2] - tokens
        for grid in joint.grids:
            for row in range(key.shape[0]):
                for group in groups(name, grid, row):
                    places = [start + token for token in group]
                    for x in (key, value):
                        x[row, :, places] = x[row, :, places].mean(1, keepdim=True)
                    if not size_aware:
                        stays[row, places[1:]] = False
            start += grid.tokens
        logits = query.double() @ key.transpose(-1, -2) * (options.get("scale") or 1 / math.sqrt(query.shape[-1]))
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        logits = logits.masked_fill(~stays[:, None, None], -math.inf)
        shares = logits.softmax(-1).nan_to_num(0)  # a padded token of text may attend to nothing
        return (shares @ value).to(query.dtype)

    def entered(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    hooks = [site.attention.register_forward_pre_hook(entered(site.name)) for site in layout(model).sites]
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = fused
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("size_aware", [None, True, False])
@pytest.mark.parametrize("factor", [2, 4])
def test_pooled_keys_weigh_what_their_tokens_weighed(joint: Any, factor: int, size_aware: bool | None) -> None:
    model, inputs = joint.build(), joint.inputs()
    plain = output(model, inputs)
    with slowly(joint, model, lambda name, grid, row: windows(grid, factor), size_aware is not False):
        wanted = output(model, inputs)
    with bigain.compressed(model, bigain.AveragePooling(factor=factor, size_aware=size_aware)):
        pooled = output(model, inputs)
    torch.testing.assert_close(pooled, wanted, rtol=0, atol=2e-5)
    assert (pooled - plain).abs().max() > 1e-5, "that it is near says something"


@pytest.mark.parametrize("spec", ["lgtm:ratio=0.5,queries=full", "abm:ratio=0.5,queries=full"])
def test_merged_keys_weigh_what_their_tokens_weighed(joint: Any, spec: str) -> None:
    model, inputs, seen = joint.build(), joint.inputs(), {}

    def note(one: Any) -> None:
        seen.setdefault(one.name, []).append(one.assignment)

    with recorded(model, spec, note):
        merged = output(model, inputs)
    assert len(seen) == joint.sites

    def groups(name: str, grid: Grid, row: int) -> list[list[int]]:
        assignment, frame = seen[name][joint.grids.index(grid)], grid.height * grid.width
        found: dict[int, list[int]] = {}
        for number in range(grid.frames):
            for token, group in enumerate(assignment.index[row * grid.frames + number].tolist()):
                found.setdefault(number * frame + group, []).append(number * frame + token)
        return list(found.values())

    with slowly(joint, model, groups, True):
        wanted = output(model, inputs)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=2e-5)


def longer(joint: Any, frames: int) -> Any:
    """A family whose video has another number of frames."""
    grid = replace(joint.grids[0], frames=frames)

    def inputs() -> dict[str, Any]:
        given = joint.inputs()
        old = given["hidden_states"]
        shape = list(old.shape)
        shape[{"Wan": 2, "Hun": 2, "Cog": 1, "LTX": 1}[joint.kind[:3]]] = frames * (
            30 if joint.kind[:3] == "LTX" else 1
        )
        sample = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return given | {"hidden_states": sample} | ({"num_frames": frames} if "num_frames" in given else {})

    return replace(joint, inputs=inputs, grids=(grid,))


@pytest.mark.parametrize("factor", [(2, 2, 2), (3, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("name", ["wan", "ltx", "hunyuan", "cogvideox"])
def test_windows_over_time_leave_the_first_frame_alone(joints: Any, name: str, factor: tuple[int, int, int]) -> None:
    joint = longer(joints[name], 6)  # the first, then 2 + 2 + 1, or 3 + 2
    model, inputs = joint.build(), joint.inputs()
    plain = output(model, inputs)
    with slowly(joint, model, lambda name, grid, row: windows(grid, factor), True):
        wanted = output(model, inputs)
    with bigain.compressed(model, bigain.AveragePooling(factor=factor)) as handle:
        pooled = output(model, inputs)
        keys = handle.summary()[0].keys
    torch.testing.assert_close(pooled, wanted, rtol=0, atol=2e-5)
    assert (pooled - plain).abs().max() > 1e-5, "that it is near says something"
    assert keys[0] - keys[1] == 180 - len(windows(joint.grids[0], factor))


@pytest.mark.parametrize("spec", ["abm:ratio=0.5,cell=2x2x2", "quadtree:ratio=0.5,depth=2,time_depth=1"])
@pytest.mark.parametrize("name", ["wan", "hunyuan"])
def test_blocks_over_time_weigh_what_their_tokens_weighed(joints: Any, name: str, spec: str) -> None:
    joint = longer(joints[name], 5)
    model, inputs, seen = joint.build(), joint.inputs(), dict[str, list[Any]]()
    with recorded(model, f"{spec},queries=full", lambda one: seen.setdefault(one.name, []).append(one)):
        merged = output(model, inputs)
    assert all([one.context.grid for one in several] == [Grid(5, 6), Grid(5, 6, 4)] for several in seen.values())
    assert any(_spans_frames(one.assignment) for several in seen.values() for one in several[1:])

    def groups(name: str, grid: Grid, row: int) -> list[list[int]]:
        found: dict[tuple[int, int], list[int]] = {}
        for number, one in enumerate(seen[name]):
            for token, group in enumerate(one.assignment.index[row].tolist()):
                found.setdefault((number, group), []).append(30 * number + token)
        return list(found.values())

    with slowly(joint, model, groups, True):
        wanted = output(model, inputs)
    torch.testing.assert_close(merged, wanted, rtol=0, atol=2e-5)


def _spans_frames(assignment: Any) -> bool:
    frames = torch.arange(assignment.index.shape[1]) // 30
    return any(len(frames[assignment.index[0] == group].unique()) > 1 for group in range(assignment.groups))


@pytest.mark.parametrize("factor", [2, (2, 2, 2)])
@pytest.mark.parametrize("name", ["wan", "ltx", "hunyuan"])
def test_a_frame_that_conditions_a_video_stays_whole(joints: Any, name: str, factor: Any) -> None:
    joint = longer(joints[name], 4)
    if name == "hunyuan":
        joint = replace(joint, config=joint.config | {"image_condition_type": "token_replace"})
    model, inputs = joint.build(), joint.inputs()
    if name != "hunyuan":  # Wan 2.2 TI2V and LTX-Video tell the timestep of each token
        inputs["timestep"] = torch.cat([torch.zeros(2, 30), torch.full((2, 90), 500.0)], 1)
    with slowly(joint, model, lambda name, grid, row: windows(grid, factor, whole=1), True):
        wanted = output(model, inputs)
    with bigain.compressed(model, bigain.AveragePooling(factor=factor)):
        pooled = output(model, inputs)
    torch.testing.assert_close(pooled, wanted, rtol=0, atol=2e-5)
    if name == "hunyuan":
        return
    inputs["timestep"] = torch.full((2, 120), 500.0)  # nothing is conditioned
    with slowly(joint, model, lambda name, grid, row: windows(grid, factor), True):
        wanted = output(model, inputs)
    with bigain.compressed(model, bigain.AveragePooling(factor=factor)):
        torch.testing.assert_close(output(model, inputs), wanted, rtol=0, atol=2e-5)


def test_timesteps_that_must_be_read_are_refused_where_they_cannot_be(joints: Any) -> None:
    joint = joints["wan"]
    model, inputs = joint.build(), joint.inputs()
    bigain.apply(model, "todo-2")
    clean, noisy = torch.zeros(1, 30), torch.full((1, 30), 500.0)
    inputs["timestep"] = torch.cat([torch.cat([clean, noisy, noisy], 1), torch.cat([noisy] * 3, 1)])
    with pytest.raises(ValueError, match=r"timestep must condition all rows .* not \[True, False\]"):
        output(model, inputs)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"timestep must be one for each row where the whole model is compiled"):
        output(torch.compile(model, backend="eager", fullgraph=True), inputs)


def test_what_acts_over_time_takes_a_video(joints: Any) -> None:
    for spec in ("avgpool-2x2x2", "abm:ratio=0.5,cell=2x2x2,queries=full"):
        with pytest.raises(ValueError, match=r"must not act over time in a SD3Transformer2DModel, which has no frames"):
            bigain.apply(joints["sd3"].build(), spec)
    joint = longer(joints["wan"], 1)
    model = joint.build()
    bigain.apply(model, "avgpool-2x2x2")
    with pytest.raises(ValueError, match=r"factor must span at most the one frame that .* not 2"):
        output(model, joint.inputs())


@pytest.mark.parametrize("name", ["sd3", "wan"])
def test_frequency_selection_keeps_keys_with_their_values(joints: Any, name: str) -> None:
    joint = joints[name]
    model, inputs, calls = joint.build(), joint.inputs(), list[Any]()
    fused = functional.scaled_dot_product_attention

    def spying(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append((key.clone(), value.clone()))
        return fused(query, key, value, *rest, **options)

    spec = bigain.FrequencySelection(layers=(0,), factor=(2, 2, 2) if name == "wan" else 2)
    functional.scaled_dot_product_attention = spying
    try:
        output(model, inputs)
        (key, value), calls[:] = calls[0], []
        with bigain.compressed(model, spec):
            output(model, inputs)
    finally:
        functional.scaled_dot_product_attention = fused
    fewer_key, fewer_value = calls[0]
    left = sum(len(windows(grid, (2, 2, 2) if name == "wan" else 2)) for grid in joint.grids)
    assert fewer_key.shape[2] == left + key.shape[2] - joint.grids[0].tokens
    for row in range(2):
        for one, of_it in zip(fewer_key[row, 0], fewer_value[row, 0], strict=True):
            place = (key[row, 0] - one).abs().sum(1).argmin()
            assert torch.equal(key[row, 0, place], one)
            assert torch.equal(value[row, 0, place], of_it)


def test_what_compresses_nothing_and_what_was_removed_leave_every_bit(joint: Any) -> None:
    model, inputs = joint.build(), joint.inputs()
    plain, state = output(model, inputs), {**model.state_dict()}
    processors = [site.attention.processor for site in layout(model).sites]
    for spec in ("avgpool-1", "lgtm:ratio=0,queries=full"):
        with bigain.compressed(model, spec):
            assert torch.equal(output(model, inputs), plain), spec
    handle = bigain.apply(model, "todo-2")
    output(model, inputs)
    assert len(handle.summary()) == joint.sites
    assert {**model.state_dict()}.keys() == state.keys()
    handle.remove()
    assert torch.equal(output(model, inputs), plain)
    assert all(site.attention.processor is one for site, one in zip(layout(model).sites, processors, strict=True))


def test_queries_and_text_come_through_to_the_bit(joint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, calls = joint.build(), joint.inputs(), list[tuple[Tensor, Tensor, Tensor]]()
    fused = functional.scaled_dot_product_attention

    def spying(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append((query.clone(), key.clone(), value.clone()))
        return fused(query, key, value, *rest, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spying)
    output(model, inputs)
    plain, calls[:] = list(calls), []
    with bigain.compressed(model, bigain.AveragePooling(layers=(0,))):
        output(model, inputs)
    place = next(number for number, (one, two) in enumerate(zip(plain, calls, strict=True))
                 if one[1].shape != two[1].shape)  # fmt: skip
    (query, key, value), (same, fewer_key, fewer_value) = plain[place], calls[place]
    assert torch.equal(query, same)
    tokens = sum(grid.tokens for grid in joint.grids)
    left = sum(len(windows(grid, 2)) for grid in joint.grids)
    assert key.shape[2] - fewer_key.shape[2] == tokens - left
    first = layout(model).family.image == "first"
    text, same_text = (slice(tokens, None), slice(left, None)) if first else (slice(-tokens), slice(-left))
    assert torch.equal(key[:, :, text], fewer_key[:, :, same_text])
    assert torch.equal(value[:, :, text], fewer_value[:, :, same_text])


def test_compiled_as_one_graph_it_gives_what_eager_gives(joint: Any) -> None:
    if joint.kind.startswith("Lumina2") or len(joint.grids) > 1:
        pytest.skip("Lumina 2 cannot be one graph without us either, and img_ids of several images are no hint")
    model, inputs = joint.build(), joint.inputs()
    over_time = joint.grids[0].frames > 1
    bigain.apply(model, "iekvd-2x2x2" if over_time else "iekvd-2", **joint.hint)
    eager = output(model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(output(compiled, inputs), eager, rtol=0, atol=1e-6)


def test_a_compiled_forward_that_does_not_show_its_grid_asks_for_it(joints: Any) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    bigain.apply(model, "todo-2")
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"grid must be given to apply\(\).*such as grid=\(64, 64\)"):
        output(torch.compile(model, backend="eager", fullgraph=True), inputs)


def test_a_processor_that_is_set_later_is_an_error_and_not_silence(joints: Any) -> None:
    joint = joints["wan"]
    model, inputs = joint.build(), joint.inputs()
    handle = bigain.apply(model, "todo-2")
    other = type(handle._blocks[0][0].original)()
    model.blocks[1].attn1.processor = other
    with pytest.raises(NothingCompressedError, match=r"blocks\.1\.attn1 must have the attention processor"):
        output(model, inputs)
    handle.remove()
    assert model.blocks[1].attn1.processor is other
    output(model, inputs)


def test_a_backend_that_is_set_while_compressed_stays(joints: Any) -> None:
    joint = joints["flux"]
    model, inputs = joint.build(), joint.inputs()
    plain = output(model, inputs)
    with bigain.compressed(model, "todo-2"):
        before = output(model, inputs)
        model.set_attention_backend("_native_math")
        torch.testing.assert_close(output(model, inputs), before, rtol=0, atol=1e-5)
    torch.testing.assert_close(output(model, inputs), plain, rtol=0, atol=1e-5)
    assert str(model.transformer_blocks[0].attn.processor._attention_backend).endswith("_NATIVE_MATH")
    model.reset_attention_backend()


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("flux", "lgtm-0.5", "queries must be 'full'"),
        ("flux", "lgtm:ratio=0.5,queries=full,cached=true", "cached must be False in transformer_blocks.0"),
        ("flux", "lgtm:ratio=0.5,queries=full+todo-2", "methods must be one in a layer of this model"),
        ("wan", "todo:factor=2,layers=2", r"layers must lie in 0 to 1"),
        ("wan", "todo:factor=2,levels=2", r"levels must lie in 1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(joints: Any, name: str, spec: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bigain.apply(joints[name].build(), spec)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("qwen", {"img_shapes": [[(1, 5, 6)], [(1, 6, 5)]]}, "img_shapes must be the same for all rows"),
        ("zimage", {"x": [torch.zeros(4, 1, 10, 12), torch.zeros(4, 1, 12, 12)]}, "x must have images of one size"),
        ("flux", {"img_ids": torch.zeros(30, 3)}, "img_ids must name the tokens of a grid row by row"),
        (
            "hunyuan",
            {"hint": (3, 50, 6)},
            r"grid must be what .* is given, 3x5x6, not 3x50x6",
        ),
        ("kontext", {"hint": (5, 6)}, r"grid must be what this FluxTransformer2DModel is given, 42 tokens, not 5x6"),
        (
            "lumina2",
            {"encoder_attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2]).bool()},
            r"encoder_attention_mask must show captions of one length in a compressed forward, not of \[5, 3\]",
        ),
    ],
)
def test_grids_that_cannot_be_are_named(joints: Any, name: str, change: dict[str, Any], words: str) -> None:
    model = joints[name].build()
    bigain.apply(model, "todo-2", grid=change.get("hint"))
    inputs = joints[name].inputs() | {key: value for key, value in change.items() if key != "hint"}
    with pytest.raises(ValueError, match=words):
        output(model, inputs)


def test_context_parallelism_is_refused(joints: Any) -> None:
    model = joints["wan"].build()
    before = model.blocks[0].attn1.processor
    model.blocks[1].attn1.processor._parallel_config = object()
    with pytest.raises(ValueError, match=r"blocks\.1\.attn1 must not be run context-parallel"):
        bigain.apply(model, "todo-2")
    assert model.blocks[0].attn1.processor is before


def test_keys_that_are_kept_between_forwards_are_refused(joints: Any) -> None:
    model, inputs = joints["flux2"].build(), joints["flux2"].inputs()
    for block in model.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in model.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    plain = output(model, inputs)
    with bigain.compressed(model, "todo-2"):
        assert not torch.equal(output(model, inputs), plain)  # without kept keys it is as any other
        with pytest.raises(ValueError, match="kv_cache_mode must be None in a compressed forward, not 'extract'"):
            output(model, inputs | {"kv_cache_mode": "extract", "num_ref_tokens": 6})


def test_timesteps_of_each_token_and_of_each_family_come_as_thousandths(joints: Any) -> None:
    seen: list[Tensor] = []
    for name, wanted in (("wan", [500, 100]), ("flux", [500, 100]), ("zimage", [500, 100]), ("lumina2", [500, 100])):
        model, inputs = joints[name].build(), joints[name].inputs()
        with recorded(model, "avgpool-2", lambda one: seen.append(one.context.timestep)):
            output(model, inputs)
        frames = joints[name].grids[0].frames
        torch.testing.assert_close(seen[-1][::frames].double(), torch.tensor(wanted).double(), rtol=1e-5, atol=0)
