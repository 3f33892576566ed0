"""Applying, replacing and removing, whatever holds the model and whatever happens to that in between."""

from __future__ import annotations

import pytest
import tomesd
import torch

import bigain
from bigain.backbones.application import session_of
from bigain.methods import parse


class Pipe:
    """What stands for a pipeline: it holds a model, which may be exchanged."""

    def __init__(self, unet):
        self.unet = unet


def test_a_compiled_model_of_a_pipeline_is_compressed_and_restored(families, forward):
    unet, inputs = families["unet"].build(), families["unet"].inputs()
    plain = forward(unet, inputs)
    with bigain.compressed(unet, "lgtm-0.5"):
        expected = forward(unet, inputs)
    pipe = Pipe(torch.compile(unet, backend="eager"))
    torch.testing.assert_close(forward(pipe.unet, inputs), plain)
    with bigain.compressed(pipe, "lgtm-0.5"):
        torch.testing.assert_close(forward(pipe.unet, inputs), expected)
    torch.testing.assert_close(forward(pipe.unet, inputs), plain)
    handle = bigain.apply(pipe, "lgtm-0.5")
    assert handle.model is unet
    torch.testing.assert_close(forward(pipe.unet, inputs), expected)
    bigain.remove(pipe)
    torch.testing.assert_close(forward(pipe.unet, inputs), plain)


def test_a_model_that_was_exchanged_in_its_pipeline_is_restored_by_the_handle(families, forward):
    first, second, inputs = families["unet"].build(), families["unet"].build(), families["unet"].inputs()
    plain, pipe = forward(first, inputs), Pipe(first)
    handle = bigain.apply(pipe, "lgtm-0.5")
    pipe.unet = second
    with pytest.warns(UserWarning, match=r"nothing is applied: .* call remove\(\) on the handle"):
        bigain.remove(pipe)
    assert session_of(first) is handle.session
    handle.remove()
    assert torch.equal(forward(first, inputs), plain)
    handle.remove()  # nothing to do, and nothing to say
    with bigain.compressed(pipe, "lgtm-0.5"):
        pipe.unet = first
    assert session_of(second) is session_of(first) is None


def test_removing_where_nothing_is_applied_is_told(families):
    model = families["dit"].build()
    bigain.apply(model, "lgtm-0.5")
    bigain.remove(model)
    with pytest.warns(UserWarning, match="not a DiTTransformer2DModel on which nothing is applied"):
        bigain.remove(model)


def test_what_is_applied_can_be_replaced(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    with bigain.compressed(model, "iekvd-2"):
        expected = forward(model, inputs)
    first = bigain.apply(model, "lgtm-0.5")
    with pytest.raises(ValueError, match="factor must be at most"):
        bigain.apply(model, "iekvd-99", replace=True)
    assert session_of(model) is first.session, "what cannot be applied replaces nothing"
    second = bigain.apply(model, "iekvd-2", replace=True)
    assert torch.equal(forward(model, inputs), expected)
    first.remove()
    assert torch.equal(forward(model, inputs), expected), "the first handle takes away what it applied, which is gone"
    second.remove()
    assert torch.equal(forward(model, inputs), plain)
    bigain.apply(model, "lgtm-0.5", replace=True)
    bigain.apply(model, "none", replace=True)
    assert torch.equal(forward(model, inputs), plain)


def test_a_handle_removes_at_the_end_of_a_with_block(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    with bigain.apply(model, "lgtm-0.5") as handle:
        assert not torch.equal(forward(model, inputs), plain)
        assert handle.methods == parse("lgtm-0.5")
    assert torch.equal(forward(model, inputs), plain)
    with pytest.raises(ValueError, match="images went out"), bigain.apply(model, "lgtm-0.5"):
        raise ValueError("images went out")
    assert torch.equal(forward(model, inputs), plain)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_opened_model_is_compressed_as_its_pipeline_is(compiled):
    from bigain.diffusion import open_model

    opened = open_model("glyphs-dit")
    inner = opened.model
    if compiled:
        opened._model = torch.compile(inner, backend="eager")
    with bigain.compressed(opened, "lgtm-0.5") as handle:
        assert handle.model is inner
        assert session_of(inner) is not None
    bigain.apply(opened, "lgtm-0.5")
    bigain.remove(opened)
    assert session_of(inner) is None


def test_no_module_keeps_a_forward_of_its_own(family, forward):
    model, inputs = family.build(), family.inputs()
    with bigain.compressed(model, "lgtm:ratio=0.5,features=first+iekvd-2"):
        forward(model, inputs)
        assert any("forward" in module.__dict__ for module in model.modules())
    assert not [name for name, module in model.named_modules() if "forward" in module.__dict__]


def test_a_forward_that_was_set_before_is_set_after(families):
    model = families["dit"].build()
    block = model.transformer_blocks[0]
    own = block.forward

    def replaced(*args, **kwargs):
        return own(*args, **kwargs)

    block.forward = replaced
    with bigain.compressed(model, "lgtm-0.5"):
        assert block.forward is not replaced
    assert block.forward is replaced


@pytest.mark.parametrize("first", ["remove", "tomesd"])
def test_tomesd_acts_on_a_model_that_was_compressed_before(families, first):
    inputs = families["unet"].inputs()
    sample = inputs.pop("sample")

    def run(unet):
        with torch.no_grad():
            return unet(sample, **inputs, return_dict=False)[0]  # tomesd knows no keyword for it

    torch.manual_seed(0)
    fresh = families["unet"].build()
    torch.manual_seed(0)
    unet = families["unet"].build()
    plain = run(fresh)
    tomesd.apply_patch(fresh, ratio=0.5, use_rand=False)
    expected = run(fresh)
    assert not torch.equal(expected, plain)
    handle = bigain.apply(unet, "lgtm-0.5")
    if first == "remove":
        handle.remove()
    tomesd.apply_patch(unet, ratio=0.5, use_rand=False)
    handle.remove()
    assert torch.equal(run(unet), expected)
    tomesd.remove_patch(unet)
    assert torch.equal(run(unet), plain)


def test_a_removal_that_cannot_be_whole_takes_nothing_off(families, forward):
    model, inputs = families["dit"].build(), families["dit"].inputs()
    plain = forward(model, inputs)
    handle = bigain.apply(model, "lgtm-0.5")
    expected = forward(model, inputs)
    block = model.transformer_blocks[1]
    hooked = block.forward
    block.forward = lambda *args, **kwargs: hooked(*args, **kwargs)
    with pytest.raises(RuntimeError, match="was replaced while it was compressed"):
        handle.remove()
    assert torch.equal(forward(model, inputs), expected)
    block.forward = hooked
    handle.remove()
    assert torch.equal(forward(model, inputs), plain)


def test_public_names_are_there_for_completion():
    assert {*bigain.__all__} <= {*dir(bigain)}
    assert all(hasattr(bigain, name) for name in dir(bigain))
