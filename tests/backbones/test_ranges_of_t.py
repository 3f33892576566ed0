"""Methods that act in a range of t: outside of it they do nothing, in it what they do without one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import bigain
from bigain.backbones import applied_to, row_keys
from bigain.backbones.application import session_of
from bigain.backbones.families import layout
from bigain.backbones.state import Forward as StateOfForward
from bigain.methods import Compression

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


def test_told_the_timesteps_a_layer_compiles_inside_its_attention_and_around_its_block(joints: Any) -> None:
    model, inputs = joints["wan"].build(), joints["wan"].inputs()
    bigain.apply(model, f"{PLACES['projections']},timesteps=0-500+{PLACES['block']},timesteps=500-1000")
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for t in (300, 700, 400, 900):
        inputs["timestep"] = torch.full_like(inputs["timestep"], t)
        with row_keys(model, torch.zeros(2, dtype=torch.long), timesteps=[t]):
            torch.testing.assert_close(
                joint_output(compiled, inputs), joint_output(model, inputs), atol=1e-5, rtol=1e-5
            )
    assert counter.frame_count == 2


@pytest.mark.xfail(strict=True, reason="which methods act follows the timestep's value, which a graph cannot")
def test_untold_a_range_does_not_compile_into_one_graph(families: Any, forward: Forward) -> None:
    model, inputs = families["dit"].build(), families["dit"].inputs(timestep=HIGH)
    bigain.apply(model, RANGED)
    torch._dynamo.reset()
    forward(torch.compile(model, backend="eager", fullgraph=True), inputs)


@torch.no_grad()
def joint_output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    result = model(**inputs, return_dict=False)[0]
    return result if isinstance(result, Tensor) else torch.stack(result)


def test_families_that_attend_jointly_count_t_in_thousandths(joint: Any) -> None:
    model, inputs = joint.build(), joint.inputs()
    family = layout(model).family
    assert family is not None
    above = int(family.level(inputs[family.timestep]).max()) + 1

    plain = joint_output(model, inputs)
    with bigain.compressed(model, "avgpool-2"):
        pooled = joint_output(model, inputs)
    with bigain.compressed(model, f"avgpool:factor=2,timesteps=0-{above}+todo:factor=2,timesteps={above}-2000"):
        assert torch.equal(joint_output(model, inputs), pooled)
    with bigain.compressed(model, f"avgpool:factor=2,timesteps={above}-2000") as handle:
        assert torch.equal(joint_output(model, inputs), plain)
        assert all(row.keys[0] == row.keys[1] for row in handle.summary())
    assert not torch.equal(pooled, plain)


PLACES = {
    "attention": "lgtm:ratio=0.5,queries=full",
    "projections": "avgpool:factor=2,pool_at=projection",
    "mlp": "lgtm:ratio=0.5,locations=mlp",
    "block": "abm:ratio=0.5,locations=block",
}
TIMES = {"sd3": 300.0, "flux": 0.3, "wan": 300}
"""Of a forward at 300 of a thousand, as the model is told."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TIMES)
def test_every_place_of_joint_families_rests_bit_for_bit(joints: Any, name: str, place: str) -> None:
    if (name, place) == ("flux", "mlp"):
        pytest.skip("its single blocks have no MLP of their own")
    model, inputs, method = joints[name].build(), joints[name].inputs(), PLACES[place]
    inputs["timestep"] = torch.full_like(inputs["timestep"], TIMES[name])
    plain = joint_output(model, inputs)
    with bigain.compressed(model, method):
        inside = joint_output(model, inputs)
    assert not torch.equal(inside, plain)
    with bigain.compressed(model, f"{method},timesteps=0-300"):
        assert torch.equal(joint_output(model, inputs), inside)
    with bigain.compressed(model, f"{method},timesteps=300-1000") as handle:
        assert torch.equal(joint_output(model, inputs), plain)
        summary = handle.summary()
        assert summary.rests
        assert summary.flops[0] == summary.flops[1]
        assert summary.forward.bound == 1
        assert "no method acts at the t of this forward" in str(summary)
        with row_keys(model, torch.zeros(2, dtype=torch.long), timesteps=[301]):
            assert torch.equal(joint_output(model, inputs), inside)  # what is told counts
        assert not handle.summary().rests
        assert torch.equal(joint_output(model, inputs), plain)
    assert torch.equal(joint_output(model, inputs), plain)


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("avgpool:factor=2,pool_at=projection", "avgpool:factor=3,pool_at=projection"),
        ("avgpool:factor=2,pool_at=projection", "todo:factor=2,pool_at=attention"),
        ("avgpool:factor=2,pool_at=projection", "lgtm:ratio=0.5,queries=full"),
        ("lgtm:ratio=0.5,locations=mlp", "tome:ratio=0.3,locations=mlp"),
        ("abm:ratio=0.5,locations=block", "lgtm:ratio=0.25,locations=block,size_aware=false"),
        ("abm:ratio=0.5,locations=block", "avgpool:factor=2,pool_at=projection"),
        ("lgtm:ratio=0.5,queries=full", "abm:ratio=0.5,locations=block"),
        ("lgtm:ratio=0.5,queries=full", "lgtm:ratio=0.5,locations=mlp"),
    ],
)
@pytest.mark.parametrize("name", ["wan", "sd3"])
def test_methods_take_turns_in_a_layer_of_joint_families(joints: Any, early: str, late: str, name: str) -> None:
    model, inputs = joints[name].build(), joints[name].inputs()
    wanted = {}
    for t, method in ((700, early), (300, late)):
        inputs["timestep"] = torch.full_like(inputs["timestep"], t)
        with bigain.compressed(model, method) as handle:
            wanted[t] = joint_output(model, inputs), handle.summary()
    with bigain.compressed(model, f"{early},timesteps=500-1000+{late},timesteps=0-500") as handle:
        for t in (300, 700, 300):
            inputs["timestep"] = torch.full_like(inputs["timestep"], t)
            assert torch.equal(joint_output(model, inputs), wanted[t][0])
            for row, alone in zip(handle.summary(), wanted[t][1], strict=True):
                assert (row.queries, row.keys, row.matching) == (alone.queries, alone.keys, alone.matching)
                assert row.flops[0] - row.flops[1] == alone.flops[0] - alone.flops[1]


def test_methods_of_a_layer_do_not_take_turns_around_its_mlp_and_all_of_it(joints: Any) -> None:
    model = joints["sd3"].build()
    methods = f"{PLACES['mlp']},timesteps=500-1000+{PLACES['block']},timesteps=0-500"
    with pytest.raises(ValueError, match="locations must be 'mlp' or 'block' in a layer of this model, in all ranges"):
        bigain.apply(model, methods)
    apart = f"{PLACES['mlp']},layers=0,timesteps=500-1000+{PLACES['block']},layers=1,timesteps=0-500"
    bigain.apply(model, apart).remove()
    with pytest.raises(ValueError, match="methods must be one in a layer of this model at a timestep"):
        bigain.apply(model, "avgpool:factor=2,timesteps=0-501+todo:factor=2,timesteps=500-1000")


def test_what_little_can_be_won_is_told_of_the_first_forward_in_which_all_act(joints: Any) -> None:
    model, inputs = joints["wan"].build(), joints["wan"].inputs()
    wide: Any = type(model).from_config({**model.config, "ffn_dim": 4096}).eval()
    bigain.apply(wide, "avgpool:factor=2,timesteps=500-1000")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="at .* tokens")
        joint_output(wide, inputs | {"timestep": torch.tensor([500, 500])})
    late = inputs | {"timestep": torch.tensor([501, 501])}
    with pytest.warns(UserWarning, match="avgpool:factor=2,timesteps=500-1000 can make a forward at most 1.0"):
        joint_output(wide, late)
    with warnings.catch_warnings():  # once
        warnings.filterwarnings("error", message="at .* tokens")
        joint_output(wide, late)
    bigain.remove(wide)
    bigain.apply(wide, "avgpool:factor=2,timesteps=500-1000+avgpool:factor=3,timesteps=0-500")
    with warnings.catch_warnings():  # of one range alone: what both win over all t is more
        warnings.filterwarnings("error", message="at .* tokens")
        joint_output(wide, late)


def test_keys_and_timesteps_reach_both_models_of_a_pipeline(joints: Any) -> None:
    first, second = (joints["wan"].build() for _ in range(2))
    pipe, inputs = SimpleNamespace(transformer=first, transformer_2=second), joints["wan"].inputs()
    inputs["timestep"] = torch.full_like(inputs["timestep"], 100)
    plain, keys = joint_output(first, inputs), torch.zeros(2, dtype=torch.long)

    def compress_both() -> None:
        bigain.apply(pipe, "avgpool:factor=2,timesteps=500-1000")

    def compress_each() -> None:
        bigain.apply(first, "avgpool:factor=2,timesteps=500-1000")
        bigain.apply(second, "todo:factor=2,timesteps=500-1000")

    for compress, count in ((compress_both, 1), (compress_each, 2)):
        compress()
        assert len(applied_to(pipe)) == count
        for model in (first, second):
            with row_keys(pipe, keys, alike=torch.tensor([3, 4]), timesteps=iter([700])):
                session = session_of(model)
                assert session is not None
                assert session.alike is not None
                assert session.resting == ()
                assert not torch.equal(joint_output(model, inputs), plain)
            assert session.alike is None
            assert session.resting is None
            assert torch.equal(joint_output(model, inputs), plain)
        bigain.remove(pipe)
    assert applied_to(pipe) == Compression()


def test_a_thousandth_that_rounding_moves_is_in_its_range(joints: Any) -> None:
    model = joints["sd3"].build()
    handle = bigain.apply(model, "todo:factor=2,timesteps=0-3")
    level = 1000 * (1 - torch.tensor([997 / 1000]))  # as of Z-Image
    assert level > 3
    assert handle.session.resting_in(StateOfForward(level, None, None)) == ()
