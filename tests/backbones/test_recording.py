"""What is recorded is what the method met, and recording changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bigain.backbones import Seen, compressed, recorded
from bigain.backbones.application import session_of
from bigain.methods import parse


@pytest.mark.parametrize("method", ["lgtm-0.5", "lgtm:ratio=0.5,locations=self_attention/mlp",
                                    "lgtm:ratio=0.5,features=first",
                                    "todo-2"])  # fmt: skip
def test_every_layer_is_told_once_and_the_output_stays(
    families: Any, forward: Callable[..., Tensor], method: str
) -> None:
    model, inputs = families["dit"].build(), families["dit"].inputs()
    with compressed(model, method):
        expected = forward(model, inputs)
    blocks: list[Tensor] = []
    watches = [block.register_forward_pre_hook(lambda _, args: blocks.append(args[0]))
               for block in model.transformer_blocks]  # fmt: skip
    seen: list[Seen] = []
    [only] = parse(method)
    with recorded(model, only, seen.append) as handle:
        torch.testing.assert_close(forward(model, inputs), expected, rtol=0, atol=0)
        assert len(handle.summary()) == 2
    for watch in watches:
        watch.remove()
    assert [(each.name, each.context.layer) for each in seen] == [
        ("transformer_blocks.0", 0),
        ("transformer_blocks.1", 1),
    ]
    for each, block in zip(seen, blocks, strict=True):
        assert each.decided
        assert each.tokens.shape == block.shape
        after_norm = method == "todo-2"
        assert torch.equal(each.tokens, block) != after_norm
        if each.features is not None:
            assert torch.equal(each.features, blocks[0] if "first" in method else each.tokens)
        assert (each.features is None) == (method == "todo-2")
        assert (each.assignment is None) == (method == "todo-2")
    assert session_of(model) is None
    forward(model, inputs)
    assert len(seen) == 2


def test_a_cached_assignment_is_told_with_the_tokens_of_each_layer(
    families: Any, forward: Callable[..., Tensor]
) -> None:
    model = families["dit"].build()
    seen: list[Seen] = []
    [only] = parse("lgtm:ratio=0.5,cached=true")
    with recorded(model, only, seen.append):
        forward(model, families["dit"].inputs())
    assert [each.decided for each in seen] == [True, False]
    assert seen[0].assignment is seen[1].assignment
    assert not torch.equal(seen[0].tokens, seen[1].tokens)


def test_layers_in_which_the_method_does_not_act_are_not_told(families: Any, forward: Callable[..., Tensor]) -> None:
    model = families["dit"].build()
    seen: list[Seen] = []
    [only] = parse("avgpool:factor=2,layers=1")
    with recorded(model, only, seen.append):
        forward(model, families["dit"].inputs())
    assert [each.context.layer for each in seen] == [1]
