"""What a method is given in each layer of a forward, and the assignment that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bigain.backbones.application import Handle, compressed
from bigain.backbones.state import Seen
from bigain.methods import Method


@contextmanager
def recorded(
    pipe_or_model: object, methods: Method | Sequence[Method], note: Callable[[Seen], object]
) -> Iterator[Handle]:
    """``compressed``, which also tells what the methods meet; the outputs are the same.

    Args:
        note: called in every forward with each layer in which a method acts, in order.
    """
    with compressed(pipe_or_model, methods) as handle:
        handle.session.observer = note
        yield handle
