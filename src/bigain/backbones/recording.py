"""What a method is given in each layer of a forward, and the assignment that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigain.backbones.application import Handle, compressed
from bigain.backbones.hooks import BlockHook
from bigain.methods import Context, Method
from bigain.methods.base import Location
from bigain.operators.assignment import Assignment


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method met in one layer of one forward.

    Args:
        name: of the transformer block.
        method: that acts there.
        tokens: (B, N, C), the block's input, or that of its attention where ``method`` pools that.
        features: (B, N, C') that the assignment was made from, ``tokens`` or those that entered the level; None where
            keys and values are pooled.
        context: as the method got it; ``context.layer`` is the number of the block.
        assignment: of the tokens; None where keys and values are pooled instead.
        decided: whether the assignment was made in this layer; False where a cached one was used again.
    """

    name: str
    method: Method
    tokens: Tensor
    features: Tensor | None
    context: Context
    assignment: Assignment | None
    decided: bool = True


@contextmanager
def recorded(
    pipe_or_model: object, methods: Method | Sequence[Method], note: Callable[[Seen], object]
) -> Iterator[Handle]:
    """``compressed``, which also tells what the methods meet; the outputs are the same.

    Args:
        note: called in every forward with each layer in which a method acts, in order.
    """
    with compressed(pipe_or_model, methods) as handle:
        for name, hook, _ in handle._blocks:
            if hook.merging is not None:
                _tell_assignments(hook, name, note)
            if hook.downsampling is not None:
                hook.downsampling = _Telling(hook.downsampling, name, note)  # type: ignore[assignment]
        yield handle


def _tell_assignments(hook: BlockHook, name: str, note: Callable[[Seen], object]) -> None:
    ask, method = hook.assignment, hook.merging
    assert method is not None

    def assignment(tokens: Tensor, location: Location) -> Assignment | None:
        found = ask(tokens, location)
        if found is not None and location == "self_attention":  # where all methods merge, and a block's first location
            forward = hook.session.current()
            given, features = forward.block_input, forward.features
            assert given is not None  # kept when the block began
            assert features is not None
            context = hook.session.context(hook.layer)
            note(Seen(name, method, given.detach(), features.detach(), context, found, hook.assigned))
        return found

    hook.assignment = assignment  # type: ignore[method-assign]  # the hook goes when the handle is removed


class _Telling:
    """Stands for a downsampling method in the hooks of one layer."""

    def __init__(self, method: Any, name: str, note: Callable[[Seen], object]) -> None:
        self.method = method
        self.name = name
        self.note = note

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.note(Seen(self.name, self.method, x.detach(), None, context, None))
        pooled: Tensor = self.method.pool(x, context)
        return pooled
