"""What the hooks compute, against plain attention written out."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

import bigain
from bigain.backbones import recorded, row_keys
from bigain.backbones.families import layout
from bigain.methods import Compression, Context
from bigain.operators.assignment import group_sizes
from bigain.operators.grid import Grid


def plain_attention(attention: Attention, queries: Tensor, sources: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + bias) v, head by head, with the module's own projections."""
    q, k, v = attention.to_q(queries), attention.to_k(sources), attention.to_v(sources)
    width = q.shape[-1] // attention.heads
    heads = []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / width**0.5
        heads.append((logits if bias is None else logits + bias).softmax(dim=-1) @ v[..., part])
    return attention.to_out[0](torch.cat(heads, dim=-1))


def pooled(x: Tensor, grid: Grid, factor: int, alpha: float) -> Tensor:
    """α · the window's token at ⌊factor/2⌋ + (1 − α) · the window's mean, window by window."""
    windows = []
    for top in range(0, grid.height, factor):
        for left in range(0, grid.width, factor):
            rows = range(top, min(top + factor, grid.height))
            members = [r * grid.width + c for r in rows for c in range(left, min(left + factor, grid.width))]
            row, column = min(top + factor // 2, grid.height - 1), min(left + factor // 2, grid.width - 1)
            windows.append(alpha * x[:, row * grid.width + column] + (1 - alpha) * x[:, members].mean(dim=1))
    return torch.stack(windows, dim=1)


class Recorder:
    """Inputs and outputs of a module's calls, in order."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        module.register_forward_hook(self)

    def __call__(self, module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs.append(args[0])
        self.outputs.append(output)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0, 1.2])
@pytest.mark.parametrize(("height", "width", "factor"), [(16, 16, 2), (18, 26, 4), (10, 14, 3)])
def test_iekvd_is_attention_over_pooled_keys_and_values(families, forward, alpha, height, width, factor):
    model = families["unet"].build()
    block = model.down_blocks[0].attentions[0].transformer_blocks[0]
    seen = Recorder(block.attn1)
    bigain.apply(model, bigain.InterpolateExtrapolateKV(factor=factor, alpha=alpha))
    forward(model, families["unet"].inputs(height=height, width=width))
    sources = pooled(seen.inputs[0], Grid(height, width), factor, alpha)
    with torch.no_grad():
        expected = plain_attention(block.attn1, seen.inputs[0], sources)
    torch.testing.assert_close(seen.outputs[0], expected, atol=1e-5, rtol=0)


def test_the_alpha_schedule_acts_per_row_of_a_mixed_batch(families, forward):
    model = families["dit"].build()
    attention = model.transformer_blocks[0].attn1
    seen = Recorder(attention)
    bigain.apply(model, bigain.InterpolateExtrapolateKV(factor=2, alpha=bigain.Linear(0.8, 1.2)))
    timesteps = torch.tensor([999, 0, 333])
    forward(model, families["dit"].inputs(batch=3, timestep=timesteps))
    for row, timestep in enumerate(timesteps.tolist()):
        alpha = 0.8 + (1.2 - 0.8) * (1 - timestep / 999)
        x = seen.inputs[0][row : row + 1]
        with torch.no_grad():
            expected = plain_attention(attention, x, pooled(x, Grid(8, 8), 2, alpha))
        torch.testing.assert_close(seen.outputs[0][row : row + 1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("alpha", "other"), [(1.0, bigain.ToDo), (0.0, bigain.AveragePooling)])
def test_the_ends_of_alpha_are_todo_and_average_pooling(family, forward, alpha, other):
    model, inputs = family.build(), family.inputs()
    with bigain.compressed(model, bigain.InterpolateExtrapolateKV(factor=2, alpha=alpha)):
        ours = forward(model, inputs)
    with bigain.compressed(model, other(factor=2)):
        assert torch.equal(ours, forward(model, inputs))


@pytest.mark.parametrize("size_aware", [False, True])
@pytest.mark.parametrize("queries", ["merged", "full"])
@pytest.mark.parametrize("features", ["block", "first"])
def test_merging_is_attention_over_group_means(families, forward, size_aware, queries, features):
    model, grid = families["dit"].build(), Grid(8, 8)
    block = model.transformer_blocks[1]
    seen, outer, first = Recorder(block.attn1), Recorder(block), Recorder(model.transformer_blocks[0])
    method = bigain.LaplacianMerging(ratio=0.6, size_aware=size_aware, queries=queries, features=features)
    bigain.apply(model, method)
    forward(model, families["dit"].inputs())
    x = seen.inputs[0]
    tokens = {"block": outer.inputs[0], "first": first.inputs[0]}[features]
    assignment = method.assign(tokens, Context(grid, layer=1))
    for row in range(x.shape[0]):
        index = assignment.index[row]
        means = torch.stack([x[row, index == group].mean(dim=0) for group in range(assignment.groups)])[None]
        bias = group_sizes(assignment)[row].log() if size_aware else None
        with torch.no_grad():
            if queries == "full":
                expected = plain_attention(block.attn1, x[row : row + 1], means, bias)
            else:
                expected = plain_attention(block.attn1, means, means, bias)[:, index]
        torch.testing.assert_close(seen.outputs[0][row : row + 1], expected, atol=1e-5, rtol=0)


def test_the_first_features_are_those_of_the_level_even_where_its_first_block_takes_no_part(families, forward):
    model = families["unet"].build()
    layers = layout(model).layers
    chosen = [number for number, layer in enumerate(layers) if layer.level == 1][-1]
    entry = Recorder(next(layer.block for layer in layers if layer.level == 1))
    seen = Recorder(layers[chosen].block.attn1)
    method = bigain.LaplacianMerging(ratio=0.5, layers=(chosen,), features="first")
    plain = forward(model, families["unet"].inputs())
    with bigain.compressed(model, method):
        forward(model, families["unet"].inputs())
    assert torch.equal(forward(model, families["unet"].inputs()), plain)  # no hook is left
    x = seen.inputs[1]
    side = math.isqrt(x.shape[1])
    assignment = method.assign(entry.inputs[1], Context(Grid(side, side), layer=chosen))
    assert chosen > next(number for number, layer in enumerate(layers) if layer.level == 1)
    index = assignment.index[0]
    means = torch.stack([x[0, index == group].mean(dim=0) for group in range(assignment.groups)])[None]
    with torch.no_grad():
        expected = plain_attention(layers[chosen].block.attn1, means, means)[:, index]
    torch.testing.assert_close(seen.outputs[1][:1], expected, atol=1e-5, rtol=0)


def test_by_the_first_features_all_classes_of_an_image_merge_alike(families, forward):
    model = families["dit"].build()
    inputs = families["dit"].inputs(batch=1)
    inputs = {name: torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.ndim else x for name, x in inputs.items()}
    inputs["class_labels"] = torch.tensor([0, 3])
    alike = {}
    for features in ("first", "block"):
        seen = []
        with recorded(model, bigain.LaplacianMerging(ratio=0.5, features=features), seen.append):
            forward(model, inputs)
        alike[features] = [torch.equal(*each.assignment.index) for each in seen]
    assert alike == {"first": [True, True], "block": [True, False]}


@pytest.mark.parametrize(
    ("family", "spec", "rows"),
    [
        ("dit", "quadtree:ratio=0.5,features=first", 2),
        ("dit", "tome:ratio=0.5,features=first,destinations=random", 2),
        ("dit", "tome:ratio=0.5,features=first,destinations=random,redraw=forward", 5),
        ("dit", "abm:ratio=0.5", 5),
        ("unet", "abm:ratio=0.5,features=first", 5),  # where some add their prompt to the time
    ],
)
def test_rows_that_are_alike_are_assigned_once_where_no_class_is_told_yet(
    families, forward, monkeypatch, family, spec, rows
):
    model, keys = families[family].build(), torch.tensor([7, 4, 7, 7, 4])
    inputs = families[family].inputs(batch=2)
    kind = (keys == 4).long()
    inputs = {name: x[kind] if isinstance(x, torch.Tensor) and x.ndim else x for name, x in inputs.items()}
    if "class_labels" in inputs:
        inputs["class_labels"] = torch.arange(5)
    [method] = Compression.of(spec)
    assign, met = type(method).assign, []

    def noted(self, x, context):
        met.append(len(x))
        assert all(len(own) == len(x) for own in (context.timestep, context.image_keys, context.draw_keys))
        return assign(self, x, context)

    monkeypatch.setattr(type(method), "assign", noted)
    with bigain.compressed(model, method):
        with row_keys(model, image=keys, draw=torch.arange(5)):
            plain = forward(model, inputs)
        assert set(met) == {5}
        met.clear()
        with row_keys(model, image=keys, draw=torch.arange(5), alike=keys):
            shared = forward(model, inputs)
        assert set(met) == {rows}
        met.clear()
        with row_keys(model, image=keys, draw=torch.arange(5), alike=torch.arange(5)):
            assert torch.equal(forward(model, inputs), plain)
        assert set(met) == {5}
    torch.testing.assert_close(shared, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("queries", ["merged", "full"])
def test_size_aware_attention_is_exact_where_a_groups_tokens_are_identical(families, forward, queries):
    model = families["dit"].build(num_layers=1)
    attention, grid = model.transformer_blocks[0].attn1, Grid(8, 8)
    cells = torch.randn(2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    x = cells.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).reshape(2, 64, 16)  # 2x2 cells of equal tokens
    seen = Recorder(attention)
    model.transformer_blocks[0].norm1.register_forward_hook(lambda module, args, output: (x, *output[1:]))
    model.transformer_blocks[0].register_forward_pre_hook(lambda module, args: (x, *args[1:]))
    method = bigain.AdaptiveBlockMerging(ratio=0.75, size_aware=True, queries=queries)
    bigain.apply(model, method)
    forward(model, families["dit"].inputs())
    with torch.no_grad():
        expected = plain_attention(attention, x, x)
    assert method.assign(x, Context(grid)).groups == 16
    torch.testing.assert_close(seen.outputs[0], expected, atol=1e-5, rtol=0)
