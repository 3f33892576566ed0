"""Methods that act in a range of t: outside of it they do nothing, in it what they do without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import bigain
from bigain.backbones import row_keys
from bigain.backbones.families import layout

LOW, HIGH = torch.tensor([100, 500]), torch.tensor([501, 1000])
RANGED = "tome:ratio=0.5,timesteps=500-1000"
Forward = Callable[..., Tensor]


@pytest.mark.parametrize(
    "method",
    [
        "tome-0.5",
        "iekvd:factor=2,alpha=0.8>1.2",
        "lgtm:ratio=0.5,locations=self_attention/mlp,size_aware=true,features=first",
        "quadtree:ratio=0.5,queries=full",
    ],
)
def test_a_range_is_that_of_the_method_inside_and_nothing_outside(family: Any, forward: Forward, method: str) -> None:
    model = family.build()
    low, high = family.inputs(timestep=LOW), family.inputs(timestep=HIGH)
    plain = forward(model, low)
    with bigain.compressed(model, method):
        inside = forward(model, high)
    ranged = f"{method if ':' in method else method.replace('-', ':ratio=')},timesteps=500-1000"
    with bigain.compressed(model, ranged) as handle:
        assert torch.equal(forward(model, low), plain)
        assert all(row.queries[0] == row.queries[1] and row.keys[0] == row.keys[1] for row in handle.summary())
        assert torch.equal(forward(model, high), inside)
        assert any(row.keys[0] > row.keys[1] for row in handle.summary())
    assert not torch.equal(inside, forward(model, high))


def test_a_layer_has_a_method_for_each_range(families: Any, forward: Forward) -> None:
    model, inputs = families["dit"].build(), families["dit"].inputs
    expected = {}
    for t, method in ((100, "lgtm-0.3"), (900, "tome-0.5")):
        with bigain.compressed(model, method):
            expected[t] = forward(model, inputs(timestep=t))
    with bigain.compressed(model, f"{RANGED}+lgtm:ratio=0.3,timesteps=0-500"):
        for t, output in expected.items():
            assert torch.equal(forward(model, inputs(timestep=t)), output)


def test_rows_on_both_sides_of_a_bound_are_refused_and_nothing_stays_behind(families: Any, forward: Forward) -> None:
    model, inputs = families["unet"].build(), families["unet"].inputs
    with bigain.compressed(model, RANGED):
        with pytest.raises(ValueError, match="which differ between t = 500 and 501: give rows of each range"):
            forward(model, inputs(timestep=torch.tensor([500, 501])))
        forward(model, inputs(timestep=HIGH))
        with (
            pytest.raises(ValueError, match="the rows of a forward must have the same methods"),
            row_keys(model, torch.zeros(2, dtype=torch.long), timesteps=[3, 700]),
        ):
            pass


def test_two_methods_at_one_t_are_refused(families: Any) -> None:
    model = families["dit"].build()
    for other, meets in (("0-501", True), ("999-1000", True), ("0-500", False)):
        methods = f"{RANGED}+lgtm:ratio=0.3,timesteps={other}"
        if meets:
            with pytest.raises(ValueError, match="at most one merging and one downsampling in a layer at a timestep"):
                bigain.apply(model, methods)
        else:
            bigain.apply(model, methods).remove()
    with pytest.raises(ValueError, match="size_aware must be False"):
        bigain.apply(model, "tome:ratio=0.5,size_aware=true,timesteps=0-600+todo:factor=2,timesteps=500-1000")
    bigain.apply(model, "tome:ratio=0.5,size_aware=true,timesteps=0-500+todo:factor=2,timesteps=500-1000")


def test_nothing_compressed_is_an_error_inside_the_range_only(families: Any, forward: Forward) -> None:
    model, inputs = families["unet"].build(), families["unet"].inputs
    bigain.apply(model, "tome:ratio=0.001,timesteps=500-1000")
    forward(model, inputs(timestep=LOW))
    with pytest.raises(ValueError, match="nothing was compressed by it"):
        forward(model, inputs(timestep=HIGH))


def test_told_the_timesteps_each_range_is_one_graph(families: Any, forward: Forward) -> None:
    model, inputs = families["dit"].build(), families["dit"].inputs
    bigain.apply(model, RANGED)
    eager = {t: forward(model, inputs(timestep=t)) for t in (100, 400, 700, 1000)}
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for t in (100, 700, 400, 1000):
        with row_keys(model, torch.zeros(2, dtype=torch.long), timesteps=[t]):
            torch.testing.assert_close(forward(compiled, inputs(timestep=t)), eager[t], atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 2


@pytest.mark.xfail(strict=True, reason="which methods act follows the timestep's value, which a graph cannot")
def test_untold_a_range_does_not_compile_into_one_graph(families: Any, forward: Forward) -> None:
    model, inputs = families["dit"].build(), families["dit"].inputs(timestep=HIGH)
    bigain.apply(model, RANGED)
    torch._dynamo.reset()
    forward(torch.compile(model, backend="eager", fullgraph=True), inputs)


def test_families_that_attend_jointly_count_t_in_thousandths(joint: Any) -> None:
    model, inputs = joint.build(), joint.inputs()
    family = layout(model).family
    assert family is not None
    above = int(family.level(inputs[family.timestep]).max()) + 1

    def output() -> Tensor:
        with torch.no_grad():
            result = model(**inputs, return_dict=False)[0]
        return result if isinstance(result, Tensor) else torch.stack(result)

    plain = output()
    with bigain.compressed(model, "avgpool-2"):
        pooled = output()
    with bigain.compressed(model, f"avgpool:factor=2,timesteps=0-{above}+todo:factor=2,timesteps={above}-2000"):
        assert torch.equal(output(), pooled)
    with bigain.compressed(model, f"avgpool:factor=2,timesteps={above}-2000") as handle:
        assert torch.equal(output(), plain)
        assert all(row.keys[0] == row.keys[1] for row in handle.summary())
    assert not torch.equal(pooled, plain)
