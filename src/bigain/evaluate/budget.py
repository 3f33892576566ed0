"""Methods at equal cost: the strength at which a method takes no more FLOPs than another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bigain.diffusion import Denoiser
from bigain.evaluate.space import Space
from bigain.evaluate.timing import flops
from bigain.methods import Method, TokenMerging, parse, spec


def at_equal_flops(denoiser: Denoiser, methods: str, reference: str, condition: str | int) -> str:
    """The least strength of a method at which a forward takes at most the FLOPs of ``reference``.

    The ratio is searched token by token of the finest grid that takes part, the factor from 1; both by bisection, as
    more strength never takes more FLOPs than less. What the assignment costs is counted too.

    Args:
        methods: spec of one method; its ratio or factor is replaced.
        reference: spec of what sets the FLOPs.
        condition: label or prompt of the counted forwards.

    Returns:
        The canonical spec.

    Raises:
        ValueError: ``methods`` is several methods, none, or follows a schedule; or it takes more FLOPs at its most.
    """
    parsed = parse(methods)
    if len(parsed) != 1:
        raise ValueError(
            f"{methods!r} is {len(parsed) or 'no'} methods: give one, whose ratio or factor is to be found"
        )
    [method] = parsed
    if isinstance(method, TokenMerging) and method.is_scheduled:
        raise ValueError(f"{methods!r} follows a schedule: give it one ratio, which is replaced")
    target = flops(denoiser, reference, condition)
    strengths = _strengths(method, Space.of(denoiser))

    def cost(number: int) -> int:
        return flops(denoiser, spec(strengths[number]), condition)

    last = len(strengths) - 1
    least = cost(last)
    if least > target:
        raise ValueError(
            f"{spec(strengths[last])} is the most that {methods!r} can compress and takes {least:,} FLOPs, more than "
            f"the {target:,} of {reference}: give larger cells, more levels or another method"
        )
    return spec(strengths[_first(lambda number: cost(number) <= target, last)])


def _strengths(method: Method, space: Space) -> list[Method]:
    """The method at all its strengths, the weakest that compresses first."""
    taking = {level for number, level in enumerate(space.levels) if method.includes(level, number)}
    grids = [space.grids[level - 1] for level in sorted(taking)]
    if not grids:
        raise ValueError(f"{spec(method)} takes part in no layer of this model")
    if not isinstance(method, TokenMerging):
        longest = max(max(grid.height, grid.width) for grid in grids)
        return [replace(method, factor=factor) for factor in range(2, longest + 1)]
    tokens = grids[0].tokens
    most = min(method.limit(grid) / grid.tokens for grid in grids)
    return [replace(method, ratio=merged / tokens) for merged in range(1, int(most * tokens + 1e-6) + 1)]


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The first number up to ``last`` for which ``holds``, which it does from there on, and for ``last``."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
