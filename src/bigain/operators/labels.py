"""Names for the parts of a method, by which a profile of ``torch.profiler`` shows them: "bigain::match" and others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
from torch.profiler import record_function

Part = Literal["score", "match", "merge", "unmerge", "pool"]
PARTS: tuple[str, ...] = get_args(Part)
PREFIX = "bigain::"

P = ParamSpec("P")
R = TypeVar("R")


def labelled(name: Part) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose time a profile shows under a name; without a profiler it does nothing."""

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling() or not torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
                return function(*args, **kwargs)
            with record_function(PREFIX + name):
                return function(*args, **kwargs)

        return called

    return decorated
